"""The law that every policy keeps, whatever it goes by (after Finagle's one abstract suite over all its balancers).

Availability: an endpoint that may not be had (ejected, cooling down, tried already) is never picked while another one
may; ``NoEndpoints`` means that nobody may. Evenness: among n equal endpoints that have work each gets between half and
twice 1/n of it. 100,000 picks of 100 endpoints are 1,000 each; blind chance alone gives a standard deviation of
sqrt(1000 * 0.99) = 31, so twice is 31 of those away and half 15: whoever gets there is preferred, not lucky. Rotations
must be exact. Proportion: shares follow the weights within 2 % of the whole, for policies that promise it; those that
compare endpoints (least_request, p2c, rotation_p2c, probed, prequal) do not, for there a weight divides what is
compared or gives turns that may be lost, and reported_load goes by reported weights instead of the registry's.
Change: what is known of an endpoint outlives any change of the list, and who has left it is not picked. Ignorance: an
endpoint that never answered has one attempt in flight, where latency is what counts. Chance: one seed, the same picks.
"""

import random
from collections import Counter, deque
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.model import Health, Instance, Snapshot
from registry.testing import ManualClock, instance
from smartclient.balancer import Balancer
from smartclient.breaker import EjectionRule, Reach
from smartclient.endpoint import Endpoint, Lease
from smartclient.errors import NoEndpoints
from smartclient.load import LoadReport
from smartclient.policies.select import named, names
from smartclient.policy import AskingPicker, Picker, PickInfo
from smartclient.stats import Outcome

DESCRIBED = {
    "subset": "subset?size=5&client=me",
    "zone": "zone?zone=a",
    "split": "split?1=50&2=50",
}
EVERY = [DESCRIBED.get(name, name) for name in names()]
ASKING = [
    "probed",
    "prequal",
    "subset?size=5&client=me&then=probed",
    "zone?zone=a&then=prequal",
    "split?1=50&2=50&then=probed",
]
EXACT = [
    "rotation",
    "hash",
    "split?1=50&2=50&then=rotation",
    "subset?size=5&client=me&then=rotation",
    "zone?zone=a&then=rotation",
]
BY_WEIGHT = ["rotation", "hash", "subset?size=3&client=me&then=rotation", "zone?zone=a&then=rotation"]
BY_LATENCY = ["p2c", "rotation_p2c", "probed"]

every = pytest.mark.parametrize("policy", EVERY)


def fleet(count: int, weights: Sequence[int] = (), **meta: str) -> list[Endpoint]:
    """Endpoints in zones a and b and of versions 1 and 2, every second one each."""
    given_weights = weights or [1] * count
    return [
        Endpoint(
            instance(n + 1, weight=given_weights[n], zone="ab"[n % 2], version="12"[n // 2 % 2], meta=meta),
            EjectionRule(),
        )
        for n in range(count)
    ]


def keyed(number: int, exclude: Sequence[Endpoint] = ()) -> PickInfo:
    return PickInfo(key=f"user {number}", exclude=exclude)


def begin(endpoint: Endpoint, now: float) -> Lease:
    """An attempt whose end is an answer that tells how long it took, and how busy the node is."""

    def settle(lease: Lease, outcome: Outcome, retry_after: float | None, took: float | None) -> None:
        endpoint.latency.observe(took or 0.0, now)
        endpoint.heard(LoadReport(at=now, wait=0.0, in_flight=0.0, utilization=0.5, rps=10.0))

    return Lease(endpoint, now, settle)


def asked(picker: Picker, info: PickInfo, now: float) -> PickInfo:
    """What the picker is told when everybody it asks answers."""
    if not isinstance(picker, AskingPicker):
        return info
    candidates = picker.candidates(info, now)
    for endpoint in candidates:
        inside = float(endpoint.in_flight)
        endpoint.heard(LoadReport(at=now, wait=0.05 * inside, in_flight=inside, utilization=0.5, rps=10.0))
    return PickInfo(exclude=info.exclude, reach=info.reach, key=info.key, among=candidates)


def work(picker: Picker, picks: int, seed: int, *, by_key: bool = True, in_flight: int = 20) -> list[Endpoint]:
    """Pick, 1 ms apart and with so many in flight, where every answer takes 50 ms give or take 10 %."""
    rng, picked, open_leases = random.Random(seed), [], deque()
    for number in range(picks):
        now = 1000.0 + number * 0.001
        lease = begin(picker.pick(asked(picker, keyed(number) if by_key else PickInfo(), now), now), now)
        picked.append(lease.endpoint)
        open_leases.append(lease)
        if len(open_leases) > in_flight:
            open_leases.popleft().release(Outcome.OK, took=0.05 * rng.uniform(0.9, 1.1))
    return picked


@pytest.mark.parametrize("policy", [*EVERY, *ASKING])
@settings(max_examples=40, deadline=None)
@given(
    states=st.lists(st.sampled_from(["well", "ejected", "cooling", "tried", "new"]), min_size=1, max_size=14),
    seed=st.integers(0, 99),
)
def test_who_may_not_be_had_is_not_picked_while_another_may(policy: str, states: list[str], seed: int) -> None:
    endpoints, rng = fleet(len(states), load="/load"), random.Random(seed)
    for endpoint, state in zip(endpoints, states, strict=True):
        match state:
            case "ejected":
                endpoint.breaker.eject(1000.0, rng)
            case "cooling":
                endpoint.breaker.cool(20.0, 1000.0)
            case "new":
                endpoint.start_slowly(1000.0)
    tried = [endpoint for endpoint, state in zip(endpoints, states, strict=True) if state == "tried"]
    picker = named(policy).build(endpoints, rng)
    for number in range(20):
        now = 1000.0 + number * 0.01
        info = asked(picker, keyed(number, tried) if number % 2 else PickInfo(exclude=tried), now)
        if {"well", "new"} & set(states):
            endpoint = picker.pick(info, now)
            assert info.admits(endpoint, now)
            lease = begin(endpoint, now)
            if number % 3:
                lease.release(Outcome.OK, took=0.05)
        else:
            with pytest.raises(NoEndpoints):
                picker.pick(info, now)


@pytest.mark.parametrize("policy", ASKING)
@pytest.mark.parametrize("seed", range(10))
def test_who_falls_ill_while_it_is_asked_is_not_picked(policy: str, seed: int) -> None:
    picker = named(policy).build(fleet(12, load="/load"), random.Random(seed))
    info = asked(picker, PickInfo(), 1000.0)
    ill = info.among[0]
    ill.breaker.cool(1.0, 1000.0)
    assert picker.pick(info, 1000.0) is not ill


@every
def test_those_who_cool_down_may_be_had_where_the_pick_reaches_so_far(policy: str) -> None:
    endpoints = fleet(6)
    for endpoint in endpoints:
        endpoint.breaker.cool(20.0, 1000.0)
    picker = named(policy).build(endpoints, random.Random(1))
    assert picker.pick(PickInfo(reach=Reach.COOLING, key="a"), 1000.0) in endpoints
    with pytest.raises(NoEndpoints):
        picker.pick(PickInfo(key="a"), 1000.0)


@every
def test_no_endpoints_at_all_is_an_error(policy: str) -> None:
    with pytest.raises(NoEndpoints):
        named(policy).build((), random.Random(1)).pick(PickInfo(key="a"), 1000.0)


@every
def test_equal_endpoints_get_equal_work_within_a_factor_of_two(policy: str) -> None:
    endpoints = fleet(100, load="/load")
    counts = Counter(work(named(policy).build(endpoints, random.Random(5)), 100_000, seed=6))
    members = {"subset": 5, "zone": 50}.get(policy.partition("?")[0], 100)
    assert len(counts) == members
    fair = 100_000 / members
    assert fair / 2 <= min(counts.values()) <= max(counts.values()) <= 2 * fair


@pytest.mark.parametrize("policy", EXACT)
def test_a_rotation_is_exact(policy: str) -> None:
    counts = Counter(work(named(policy).build(fleet(20), random.Random(5)), 1_000, seed=6, by_key=False))
    assert len(set(counts.values())) == 1


@pytest.mark.parametrize("policy", BY_WEIGHT)
def test_shares_follow_the_weights_within_two_percent(policy: str) -> None:
    weights = [1, 2, 3, 5, 8, 13, 21, 40]
    picker = named(policy).build(fleet(8, weights), random.Random(7))
    counts = Counter(work(picker, 20_000, seed=8, in_flight=0))
    total = sum(endpoint.weight for endpoint in counts)
    for endpoint, count in counts.items():
        assert abs(count / 20_000 - endpoint.weight / total) <= 0.02


@every
def test_weight_zero_gets_nothing_unless_all_have_it(policy: str) -> None:
    some = fleet(8, [0, 0, 1, 1, 1, 1, 1, 1])
    assert not {some[0], some[1]} & set(work(named(policy).build(some, random.Random(7)), 200, seed=8))
    none = fleet(8, [0] * 8)
    assert len(work(named(policy).build(none, random.Random(7)), 20, seed=8)) == 20


class Listed:
    """A balancer and the list it goes by."""

    def __init__(self, policy: str, count: int) -> None:
        self.clock = ManualClock()
        self.balancer = Balancer(
            named(policy), service="digits", source="scripted://", clock=self.clock, rng=random.Random(3)
        )
        self.list(range(1, count + 1))

    def list(self, numbers: Sequence[int]) -> None:
        self.update([instance(n, zone="ab"[n % 2], version="12"[n // 2 % 2]) for n in numbers])

    def update(self, instances: Sequence[Instance]) -> None:
        self.balancer.update(
            Snapshot(service="digits", index=1, instances=tuple(instances), fetched_at=0.0, source="scripted://")
        )

    def picks(self, count: int, broken: Sequence[str] = ()) -> Counter[str]:
        counts: Counter[str] = Counter()
        for number in range(count):
            with self.balancer.pick(keyed(number)) as lease:
                counts[lease.endpoint.name] += 1
                lease.release(Outcome.CONNECT_ERROR if lease.endpoint.name in broken else Outcome.OK)
        return counts


@every
def test_the_list_shrinks_grows_and_changes_and_what_is_known_stays(policy: str) -> None:
    listed = Listed(policy, 6)
    total = listed.picks(120)
    known = {endpoint.name: endpoint for endpoint in listed.balancer.endpoints}
    for numbers in ((1, 2, 3), (1, 2, 3, 4, 5, 6, 7, 8), (2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 5, 6)):
        listed.list(numbers)
        counts = listed.picks(120)
        assert set(counts) <= {f"digits-{number}" for number in numbers}
        total += counts
    again = {endpoint.name: endpoint for endpoint in listed.balancer.endpoints}
    assert again == known
    assert all(endpoint.picked == total[name] for name, endpoint in again.items())


@every
def test_who_drains_or_is_ejected_gets_nothing_while_others_are_well(policy: str) -> None:
    listed = Listed(policy, 6)
    while not any(endpoint.breaker.ejected for endpoint in listed.balancer.endpoints):
        listed.picks(1, broken=[f"digits-{number}" for number in range(1, 7)])
    (out,) = [endpoint.name for endpoint in listed.balancer.endpoints if endpoint.breaker.ejected]
    instances = [endpoint.instance for endpoint in listed.balancer.endpoints]
    drained = next(each for each in instances if each.id != out)
    rest = [each for each in instances if each is not drained]
    listed.update([*rest, msgspec.structs.replace(drained, health=Health.DRAINING)])
    counts = listed.picks(500)
    assert out not in counts
    assert drained.id not in counts


@pytest.mark.parametrize("policy", BY_LATENCY)
def test_who_never_answered_gets_one_trial_at_a_time(policy: str) -> None:
    endpoints = fleet(6)
    for endpoint in endpoints[1:]:
        begin(endpoint, 1000.0).release(Outcome.OK, took=0.05)
    picker = named(policy).build(endpoints, random.Random(9))
    for _ in range(500):
        endpoint = picker.pick(PickInfo(), 1000.0)
        lease = begin(endpoint, 1000.0)
        if endpoint is not endpoints[0]:
            lease.release(Outcome.OK, took=0.05)
    assert endpoints[0].in_flight == 1


@every
def test_the_same_seed_gives_the_same_picks(policy: str) -> None:
    runs = []
    for _ in range(2):
        picker = named(policy).build(fleet(9, load="/load"), random.Random(4))
        runs.append([endpoint.name for endpoint in work(picker, 300, seed=5)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("policy", ASKING)
def test_asked_are_different_endpoints_that_may_be_had(policy: str) -> None:
    endpoints, rng = fleet(12, load="/load"), random.Random(3)
    for endpoint in endpoints[:4]:
        endpoint.breaker.eject(1000.0, rng)
    picker = named(policy).build(endpoints, rng)
    for number in range(100):
        info = keyed(number, endpoints[4:5])
        candidates = picker.candidates(info, 1000.0)
        assert candidates
        assert len(set(candidates)) == len(candidates)
        assert all(info.admits(endpoint, 1000.0) for endpoint in candidates)


@pytest.mark.parametrize("policy", ["probed", "split?1=50&2=50&then=probed", "zone?zone=a&then=probed"])
def test_asking_takes_no_turn(policy: str) -> None:
    def names_of(questions: int) -> list[str]:
        picker = named(policy).build(fleet(8, load="/load"), random.Random(1))
        picked = []
        for _ in range(16):
            for _ in range(questions):
                picker.candidates(PickInfo(), 1000.0)
            picked.append(picker.pick(PickInfo(), 1000.0).name)
        return picked

    assert names_of(3) == names_of(0)
