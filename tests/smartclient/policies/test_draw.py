import random
from collections import Counter

import pytest

from smartclient.errors import NoEndpoints
from smartclient.policies.draw import TRIES, Draw
from smartclient.policy import ANY, PickInfo
from smartclient.testing import endpoints


def test_draws_are_even() -> None:
    draw = Draw(endpoints(5), random.Random(1))
    drawn = Counter(draw.one(ANY, 0.0).name for _ in range(5000))
    assert all(900 <= count <= 1100 for count in drawn.values())


def test_the_other_is_never_the_same_and_any_of_the_rest() -> None:
    everybody = endpoints(4)
    draw = Draw(everybody, random.Random(1))
    assert {draw.other(everybody[0], ANY, 0.0) for _ in range(200)} == set(everybody[1:])


def test_the_only_one_left_is_found_in_a_long_list() -> None:
    everybody = endpoints(20 * TRIES)
    draw = Draw(everybody, random.Random(1))
    info = PickInfo(exclude=frozenset(everybody[1:]))
    assert draw.one(info, 0.0) is everybody[0]
    assert draw.other(everybody[0], info, 0.0) is None


def test_nobody_to_draw_is_an_error() -> None:
    with pytest.raises(NoEndpoints):
        Draw((), random.Random(1)).one(ANY, 0.0)
