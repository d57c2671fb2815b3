"""Which connections a node keeps, ends and turns away: decisions without sockets."""

import pytest

from node.connections import CLOSING, PRESSED, RESERVED_FOR, RESERVED_LEAST, Connections, Door, Limits


class Peer:
    def __init__(self):
        self.unsent = 0
        self.ended = []

    def cut(self, reason):
        self.ended.append(reason)


@pytest.fixture
def connections():
    return Connections(
        Limits(most=2, reserved=1, header_timeout=10.0, keepalive=75.0, write_timeout=30.0, write_rate=1000.0)
    )


def enter(connections, now, *, busy=False):
    """Let one in as a listener does; None when it was turned away."""
    door = connections.door(now)
    if door is Door.FULL:
        return None
    peer = Peer()
    connections.enter(peer, now, reserved=door is Door.RESERVED)
    if busy:
        connections.busy(peer)
    return peer


def test_a_connection_that_sends_no_whole_request_is_ended_however_it_drips(connections):
    peer = enter(connections, 100.0)
    for now in (101.0, 105.0, 109.9):
        connections.reading(peer, now)  # another byte
        connections.sweep(now)
    assert peer.ended == []
    connections.sweep(110.0)
    connections.sweep(110.5)
    assert peer.ended == ["head"]


def test_a_busy_connection_may_take_its_time_and_an_idle_one_has_the_keepalive(connections):
    peer = enter(connections, 0.0, busy=True)
    connections.sweep(1000.0)
    connections.idle(peer, 1000.0)
    connections.sweep(1074.9)
    assert peer.ended == []
    connections.sweep(1075.0)
    assert peer.ended == ["idle"]


def test_the_next_request_of_a_connection_has_its_own_time_from_its_first_byte(connections):
    peer = enter(connections, 0.0, busy=True)
    connections.idle(peer, 1.0)
    connections.reading(peer, 60.0)
    connections.reading(peer, 69.0)
    connections.sweep(69.9)
    assert peer.ended == []
    connections.sweep(70.0)
    assert peer.ended == ["head"]


def test_a_place_is_free_again_when_its_connection_is_closed(connections):
    peers = [enter(connections, 0.0, busy=True) for _ in range(2)]
    assert connections.door(0.0) is Door.RESERVED
    connections.leave(peers[0])
    assert connections.open == 1
    assert connections.door(0.0) is Door.ORDINARY
    connections.idle(peers[0], 0.0)  # the end of its answer, too late
    connections.sweep(1000.0)
    assert peers[0].ended == []


def test_when_it_is_full_who_is_idle_for_longest_makes_room(connections):
    first, second = (enter(connections, 0.0, busy=True) for _ in range(2))
    connections.idle(second, 1.0)
    connections.idle(first, 2.0)
    assert connections.door(1.0 + PRESSED) is Door.ORDINARY
    assert (first.ended, second.ended) == ([], ["pressed"])
    assert connections.open == 1  # its place is given away before it has closed
    connections.leave(second)
    assert connections.open == 1


def test_who_has_only_just_come_to_rest_keeps_its_place(connections):
    for peer in [enter(connections, 0.0, busy=True) for _ in range(2)]:
        connections.idle(peer, 5.0)
    assert connections.door(5.0 + PRESSED - 0.01) is Door.RESERVED


def test_with_nobody_idle_who_has_not_asked_yet_makes_room(connections):
    slow, _ = enter(connections, 0.0), enter(connections, 0.5)
    assert connections.door(PRESSED - 0.01) is Door.RESERVED
    assert connections.door(PRESSED) is Door.ORDINARY
    assert slow.ended == ["pressed"]


def test_with_all_busy_a_newcomer_gets_a_reserved_place_and_the_next_is_turned_away(connections):
    peers = [enter(connections, 0.0, busy=True) for _ in range(2)]
    reserved = enter(connections, 0.0)
    assert enter(connections, RESERVED_LEAST / 2) is None
    assert connections.counts()["refused"] == 1
    assert (connections.open, connections.snapshot()["reserved"]) == (3, 1)
    assert [peer.ended for peer in (*peers, reserved)] == [[], [], []]


def test_a_reserved_place_goes_to_the_next_one_after_a_moment(connections):
    for _ in range(2):
        enter(connections, 0.0, busy=True)
    reserved = enter(connections, 0.0, busy=True)
    assert enter(connections, RESERVED_LEAST) is not None
    assert reserved.ended == ["pressed"]
    assert connections.open == 3


def test_a_reserved_place_is_held_for_a_short_time_whatever_it_is_used_for(connections):
    for _ in range(2):
        enter(connections, 0.0, busy=True)
    reserved = enter(connections, 0.0, busy=True)
    connections.idle(reserved, 0.5)
    connections.sweep(RESERVED_FOR - 0.01)
    assert reserved.ended == []
    connections.sweep(RESERVED_FOR)
    assert reserved.ended == ["pressed"]


def test_a_peer_that_takes_nothing_is_ended_also_while_it_is_busy(connections):
    peer = enter(connections, 0.0, busy=True)
    peer.unsent = 100_000
    connections.stalled(peer, 5.0)
    connections.sweep(34.9)
    assert peer.ended == []
    connections.sweep(35.0)
    assert peer.ended == ["write"]


def test_a_slow_reader_is_waited_for_as_long_as_it_takes_enough(connections):
    peer = enter(connections, 0.0, busy=True)
    peer.unsent = 100_000
    connections.stalled(peer, 0.0)
    peer.unsent = 69_000  # 31 kB in 30 s
    connections.sweep(30.0)
    connections.sweep(59.9)
    assert peer.ended == []
    peer.unsent = 40_000  # 29 kB in the next 30 s
    connections.sweep(60.0)
    assert peer.ended == ["write"]


def test_a_peer_that_has_caught_up_is_let_alone(connections):
    peer = enter(connections, 0.0, busy=True)
    peer.unsent = 100_000
    connections.stalled(peer, 0.0)
    connections.flowing(peer)
    connections.sweep(1000.0)
    assert peer.ended == []


def test_who_does_not_close_when_told_to_is_ended_for_good(connections):
    peer = enter(connections, 0.0)
    connections.sweep(10.0)
    connections.sweep(10.0 + CLOSING - 0.01)
    assert peer.ended == ["head"]
    connections.sweep(10.0 + CLOSING)
    assert peer.ended == ["head", "closing"]
    connections.leave(peer)
    connections.sweep(100.0)
    assert peer.ended == ["head", "closing"]


def test_a_handshake_that_came_to_nothing_frees_its_place_and_is_counted_once(connections):
    failed, late = enter(connections, 0.0), enter(connections, 0.0)
    connections.failed(failed)
    connections.sweep(10.0)
    connections.failed(late)
    assert connections.snapshot() == {
        "open": 0,
        "reserved": 0,
        "ended": {"refused": 0, "head": 1, "idle": 0, "write": 0, "pressed": 0, "handshake": 1},
    }
