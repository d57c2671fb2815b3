"""What pages work out alike is worked out once for each fleet, and what is searched once for each instance."""

import msgspec

from registry.dashboard.shelf import MOST, Shelf
from registry.model import Instance


def test_it_is_made_once_for_a_key_as_long_as_the_version_is_the_same():
    shelf, made = Shelf(), []
    for version, key in ((1, "a"), (1, "a"), (1, "b"), (2, "a"), (2, "a")):
        assert shelf.of(version, key, lambda: made.append(1) or len(made)) == len(made)
    assert len(made) == 3


def test_beyond_its_bound_things_are_made_and_not_kept():
    shelf, made = Shelf(), []
    for key in range(MOST + 1):
        shelf.of(1, key, lambda: made.append(1))
    shelf.of(1, 0, lambda: made.append(1))
    assert len(made) == MOST + 1
    shelf.of(1, MOST, lambda: made.append(1))
    assert len(made) == MOST + 2


def test_a_search_reads_every_word_of_an_instance_and_follows_its_changes():
    shelf = Shelf()
    instance = Instance(id="Digits-1", service="digits", address="10.0.0.7", port=80, node="Rack", tags=("Blau", "ß"))
    assert shelf.searched(instance).split("\n") == ["digits-1", "10.0.0.7:80", "rack", "", "blau", "ss"]
    assert "green" in shelf.searched(msgspec.structs.replace(instance, tags=("green",)))
    assert len(shelf.searched(msgspec.structs.replace(instance, tags=("x" * 100_000,)))) == 4000


def test_what_nobody_searches_any_more_is_forgotten():
    shelf = Shelf()
    instance = Instance(id="1", service="digits", address="10.0.0.7", port=80)
    text = shelf.searched(instance)
    shelf.of(1, "", str)
    assert shelf.searched(instance) is text  # still held: it had been searched
    shelf.of(2, "", str)
    shelf.of(3, "", str)
    assert shelf.searched(instance) is not text
