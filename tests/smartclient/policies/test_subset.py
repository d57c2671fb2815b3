import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.policies.rotation import Rotation
from smartclient.policies.subset import Subset
from smartclient.policy import ANY, PickInfo
from smartclient.testing import endpoints


def members(everybody: list[Endpoint], client: str = "me", size: int = 5) -> set[Endpoint]:
    picker = Subset(Rotation, size=size, client=client).build(everybody, random.Random(1))
    return {picker.pick(ANY, 0.0) for _ in range(len(everybody))}


@settings(max_examples=30, deadline=None)
@given(client=st.text(min_size=1, max_size=5), gone=st.integers(0, 29))
def test_a_node_more_or_less_changes_at_most_one_member(client: str, gone: int) -> None:
    everybody = list(endpoints(30))
    before = members(everybody, client)
    after = members([*everybody[:gone], *everybody[gone + 1 :]], client)
    assert len(before) == len(after) == 5
    assert len(before - after) <= 1
    assert (everybody[gone] in before) == (len(before - after) == 1)


def test_clients_share_the_nodes_evenly() -> None:
    everybody = list(endpoints(20))
    counts = Counter(endpoint for client in range(400) for endpoint in members(everybody, f"client {client}"))
    assert len(counts) == 20
    assert all(60 <= count <= 140 for count in counts.values())


def test_the_same_client_has_the_same_nodes_whatever_the_order_of_the_list() -> None:
    everybody = list(endpoints(30))
    assert members(everybody) == members(everybody[::-1])


def test_below_twice_the_size_all_are_used() -> None:
    assert len(members(list(endpoints(9)))) == 9
    assert len(members(list(endpoints(10)))) == 5


def test_a_client_that_is_not_named_keeps_the_subset_it_has_drawn() -> None:
    everybody, policy = list(endpoints(30)), Subset(Rotation, size=5)
    draws = [{policy.build(everybody, random.Random(seed)).pick(ANY, 0.0) for _ in range(9)} for seed in (1, 2)]
    assert len(draws[0] | draws[1]) <= 5
    other = Subset(Rotation, size=5).build(everybody, random.Random(3))
    assert {other.pick(ANY, 0.0) for _ in range(9)} - draws[0]


def test_when_the_whole_subset_is_out_others_help() -> None:
    everybody = list(endpoints(30))
    own = members(everybody)
    picker = Subset(Rotation, size=5, client="me").build(everybody, random.Random(1))
    assert picker.pick(PickInfo(exclude=own), 0.0) not in own


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(BadOption, match="size="):
        Subset(size=0)
