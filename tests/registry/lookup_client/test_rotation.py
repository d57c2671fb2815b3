import random

from registry.lookup.client.rotation import AVOID, Rotation


def rotation(*addresses):
    class First(random.Random):
        def randrange(self, *_):
            return 0

    return Rotation(addresses, First())


def test_each_has_its_turn():
    turns = rotation("a", "b", "c")
    assert ["".join(turns.order(0)) for _ in range(4)] == ["abc", "bca", "cab", "abc"]


def test_clients_begin_anywhere():
    assert {Rotation("abc", random.Random(seed)).order(0)[0] for seed in range(50)} == {"a", "b", "c"}


def test_one_that_failed_is_asked_last_until_it_answers_or_some_time_is_over():
    turns = rotation("a", "b", "c")
    turns.failed("b", 100.0)
    assert ["".join(turns.order(100.0)) for _ in range(3)] == ["acb", "cab", "cab"]
    assert "".join(turns.order(100.0 + AVOID)) == "abc"
    turns.failed("c", 200.0)
    turns.answered("c")
    assert "".join(turns.order(200.0)) == "bca"


def test_when_all_have_failed_each_has_its_turn_again():
    turns = rotation("a", "b")
    turns.failed("a", 1.0)
    turns.failed("b", 2.0)
    assert ["".join(turns.order(3.0)) for _ in range(2)] == ["ab", "ba"]


def test_the_one_to_be_asked_last_is_asked_after_those_that_failed():
    turns = rotation("a", "b")
    turns.failed("b", 1.0)
    assert "".join(turns.order(1.0, last="a")) == "ba"
    assert rotation("a").order(1.0, last="a") == ["a"]
