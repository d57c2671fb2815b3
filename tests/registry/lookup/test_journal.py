from hypothesis import given
from hypothesis import strategies as st

from registry.lookup.journal import PIECE, Journal


def filled(count, rows=10_000):
    journal = Journal(100)
    for number in range(count):
        journal.append(b"%d\n" % number, 101 + number, rows)
    return journal


def test_a_reader_is_told_what_it_has_not_seen():
    journal = filled(5)
    assert journal.since(journal.place_of(103)) == (b"3\n4\n", 5)
    assert journal.since(5) == (b"", 5)


def test_readers_at_one_place_share_the_bytes():
    journal = filled(5)
    assert journal.since(2)[0] is journal.since(2)[0]


def test_an_index_it_does_not_know_has_no_place():
    assert filled(5).place_of(99) is None
    assert filled(5).place_of(106) is None


def test_it_is_no_longer_than_the_list_is_worth():
    journal = filled(100_000, rows=100)
    assert len(journal.since(journal.start)[0]) < 20_000
    assert not journal.holds(0)
    assert journal.missed(0)
    assert journal.place_of(101) is None


def test_much_is_told_in_pieces():
    journal = Journal(100)
    for number in range(30):
        journal.append(b"x" * 9_999 + b"\n", 101 + number, 10_000)
    told, place = b"", 0
    while place < journal.end:
        piece, place = journal.since(place)
        assert len(piece) < PIECE + 10_000
        told += piece
    assert len(told) == 300_000


def test_a_list_told_as_a_whole_is_no_readers_fault():
    journal = filled(5)
    journal.renew(200)
    assert not journal.holds(5)
    assert not journal.missed(5)
    assert journal.missed(4)
    journal.append(b"6\n", 201, 10_000)
    assert not journal.missed(5)
    assert journal.place_of(200) == 6


@given(st.lists(st.integers(0, 3000), max_size=80))
def test_whoever_is_held_gets_all_lines_from_its_place(sizes):
    journal, lines = Journal(0), []
    for number, size in enumerate(sizes):
        lines.append(b"%d" % number + b"x" * size)
        journal.append(lines[-1], number + 1, 50)
    for place in range(journal.start, journal.end + 1):
        told, reached = journal.since(place)
        assert told == b"".join(lines[place:reached])
        assert reached > place or place == journal.end
        assert journal.place_of(place) == place
