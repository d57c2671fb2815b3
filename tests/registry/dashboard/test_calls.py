"""Reports of clients, counted: rates, quantiles, who leaves whom out, silence, and bounds against whatever comes in."""

import math

import msgspec
import pytest

from registry.dashboard import calls as module
from registry.dashboard.calls import BadReport, Calls, TooMany
from registry.dashboard.latencies import EDGES, Recent, number_of, quantiles
from registry.dashboard.model import Quantiles, Traffic
from registry.dashboard.wire import MOST_BYTES, NodeReport, Report
from registry.testing import ManualClock
from smartclient.stats import LatencyHistogram, bucket_of, upper_edge


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def ejections():
    return []


@pytest.fixture
def calls(clock, ejections):
    return Calls(clock, on_eject=lambda *told: ejections.append(told))


def body(client="shop-1", service="digits", period=5.0, **fields) -> bytes:
    fields["nodes"] = [NodeReport(instance=name, **said) for name, said in fields.get("nodes", {}).items()]
    return msgspec.json.encode(Report(client=client, service=service, period=period, **fields))


async def report(to, clock, /, *, after=5.0, sender="10.0.0.1", **fields):
    to.take(body(**fields), sender)
    await clock.advance(after)


def rounded(traffic):
    return round(traffic.rps, 6), traffic.success and round(traffic.success, 6), traffic.in_flight


async def test_what_nobody_has_reported_is_none_and_not_zero(calls, clock):
    assert calls.instance("digits", "a") == calls.service("digits") == Traffic()
    assert calls.callers() == calls.matrix("digits") == calls.histogram("digits") == []
    await report(calls, clock, nodes={"a": {"ok": 1}})
    assert calls.instance("digits", "b") == Traffic(clients=1)
    assert calls.instance("letters", "a") == Traffic()


async def test_rates_of_an_instance_add_up_over_clients_each_by_its_own_time(calls, clock):
    for _ in range(4):
        await report(calls, clock, client="old", nodes={"a": {"ok": 45, "failed": 5, "in_flight": 2}}, after=5.0)
    await report(calls, clock, client="new", period=2.0, after=0.0, nodes={"a": {"ok": 10, "in_flight": 1}})
    assert rounded(calls.instance("digits", "a")) == (15.0, round((9 + 5) / 15, 6), 3)
    assert calls.instance("digits", "a").clients == 2


async def test_a_lost_report_does_not_lower_a_rate(calls, clock):
    await report(calls, clock, nodes={"a": {"ok": 50}}, after=10.0)
    await report(calls, clock, nodes={"a": {"ok": 50}}, after=0.0)
    assert calls.instance("digits", "a").rps == 10.0


async def test_attempts_older_than_the_window_count_no_more(calls, clock):
    await report(calls, clock, nodes={"a": {"ok": 500, "latencies": [(10.0, 500)]}})
    for _ in range(13):
        await report(calls, clock, nodes={"b": {"ok": 10}})
    idle = calls.instance("digits", "a")
    assert (idle.rps, idle.success, idle.in_flight, idle.latency) == (0.0, None, 0, Quantiles())
    assert calls.instance("digits", "b").rps == 2.0


async def test_quantiles_are_upper_edges_of_merged_buckets(calls, clock):
    edges = [upper_edge(bucket_of(seconds)) * 1000 for seconds in (0.010, 0.100, 1.0)]
    await report(calls, clock, client="a", after=0.0, calls=1, nodes={"x": {"ok": 98, "latencies": [(edges[0], 94)]}})
    await report(
        calls, clock, client="b", calls=1, nodes={"x": {"ok": 98, "latencies": [(edges[1], 4), (edges[2], 2)]}}
    )
    latency = calls.instance("digits", "x").latency
    assert (latency.p50, latency.p95, latency.p99) == pytest.approx(edges)


def test_the_grid_is_that_of_the_client_also_when_its_edges_are_rounded():
    numbers = range(len(LatencyHistogram().buckets))
    edges = [upper_edge(number) * 1000 for number in numbers]
    assert list(EDGES) == pytest.approx(edges)
    assert [number_of(edge) for edge in edges] == list(numbers)
    assert [number_of(float(f"{edge:.5g}")) for edge in edges] == list(numbers)


def test_other_edges_move_up_to_the_next_and_no_further():
    assert [number_of(edge) for edge in (0.0, 0.1, 0.105, 0.11, 0.112, 1e300)] == [0, 0, 1, 1, 2, len(EDGES) - 1]


def test_a_histogram_of_few_buckets_stays_small_and_never_tells_less_than_the_truth():
    recent = Recent(0.0, exact=16)
    for number in range(len(EDGES)):
        recent.add([(number, 1)], 1.0)
    held = recent.read(1.0)
    assert sum(held.values()) == len(EDGES)
    assert len(held) <= 16 + math.ceil(len(EDGES) / 8) + 1
    (median,) = quantiles(held, (0.5,))
    assert EDGES[84] <= median <= EDGES[84 + 8]


def test_a_histogram_forgets_after_half_to_a_whole_window_looked_at_or_not():
    recent = Recent(0.0)
    recent.add([(7, 1)], 1.0)
    recent.add([(7, 1), (8, 2)], 31.0)
    assert recent.read(59.0) == {7: 2, 8: 2}
    assert recent.read(61.5) == {7: 1, 8: 2}
    assert recent.read(130.0) == {}


async def test_an_idle_instance_is_at_rest_whatever_rounding_leaves(calls, clock):
    for client, period, count in (("a", 1.6, 3), ("b", 2.2, 8), ("c", 3.3, 2)):
        nodes = {"x": {"ok": count, "in_flight": 1}}
        await report(calls, clock, client=client, period=period, nodes=nodes, after=0.0)
    await clock.advance(5.0)
    for _ in range(13):
        for client in ("b", "a", "c"):
            await report(calls, clock, client=client, nodes={"x": {"in_flight": 1}}, after=0.0)
        await clock.advance(5.0)
    idle = calls.instance("digits", "x")
    assert (idle.rps, idle.success, idle.in_flight) == (0.0, None, 3)


async def test_a_service_is_the_calls_of_its_clients(calls, clock):
    first = {"calls": 100, "failed": 10, "in_flight": 3, "latencies": [(9.0, 90)]}
    await report(calls, clock, client="a", after=0.0, **first)
    await report(calls, clock, client="b", calls=20, in_flight=1, latencies=[(90.0, 20)])
    assert rounded(calls.service("digits")) == (24.0, round(1 - 2 / 24, 6), 4)
    assert calls.service("digits").clients == 2
    assert [count for _, count in calls.histogram("digits")] == [90, 20]
    edges = [edge for edge, _ in calls.histogram("digits")]
    assert 9.0 <= edges[0] < 9.9
    assert 90.0 <= edges[1] < 99.0
    assert calls.service("digits").latency.p50 == edges[0]


async def test_a_caller_is_shown_as_it_reported(calls, clock):
    said = {"policy": "p2c", "calls": 50, "failed": 5, "retries": 10, "hedges": 5, "throttled": 1, "budget_left": 7.5}
    at = clock.time()
    nodes = {"x": {"ok": 1}, "y": {"state": "ejected"}, "z": {"state": "cooling"}, "w": {"state": "probation"}}
    await report(calls, clock, client="b", nodes=nodes, latencies=[(10.0, 45)], in_flight=4, **said)
    await report(calls, clock, client="a", service="letters", after=0.0)
    await report(calls, clock, client="a", after=0.0)
    shown = calls.callers()
    assert [(each.service, each.client) for each in shown] == [("digits", "a"), ("digits", "b"), ("letters", "a")]
    b = calls.callers("digits")[1]
    assert (b.policy, b.heard_at, b.rps, b.success, b.in_flight, b.budget_left) == ("p2c", at, 10.0, 0.9, 4, 7.5)
    assert (b.retries_per_s, b.hedges_per_s, b.throttled_per_s) == (2.0, 1.0, 0.2)
    assert (b.ejected, b.instances) == (("w", "y"), 4)
    assert 10.0 <= b.latency.p99 < 11.0
    assert (shown[0].rps, shown[0].success, shown[0].latency) == (0.0, None, Quantiles())


async def test_a_silent_client_counts_no_more_and_is_remembered_for_ten_minutes(calls, clock, ejections):
    at = clock.time()
    await report(calls, clock, calls=5, nodes={"a": {"ok": 5, "in_flight": 2, "state": "ejected"}}, after=59.9)
    assert calls.instance("digits", "a").ejected_by == 1
    before = calls.version
    await clock.advance(0.1)
    assert calls.version > before
    assert calls.instance("digits", "a") == calls.service("digits") == Traffic(heard_at=at)
    assert [(each.client, each.heard_at, each.rps) for each in calls.callers()] == [("shop-1", at, 1.0)]
    assert ejections == [("digits", "a", 1, 1), ("digits", "a", 0, 0)]
    await clock.advance(539.8)
    assert len(calls.callers()) == 1
    await clock.advance(0.2)
    assert calls.callers() == []


async def test_a_client_that_is_back_begins_anew(calls, clock):
    await report(calls, clock, calls=500, nodes={"a": {"ok": 500}}, after=120.0)
    await report(calls, clock, calls=5, nodes={"a": {"ok": 5}})
    assert calls.instance("digits", "a").rps == calls.service("digits").rps == 1.0
    assert len(calls.callers()) == 1


async def test_an_instance_left_out_of_a_report_is_idle_and_in_use(calls, clock, ejections):
    await report(calls, clock, nodes={"a": {"in_flight": 3, "state": "ejected"}})
    assert rounded(calls.instance("digits", "a")) == (0.0, None, 3)
    await report(calls, clock)
    seen = calls.instance("digits", "a")
    assert (seen.in_flight, seen.ejected_by, seen.clients) == (0, 0, 1)
    assert ejections == [("digits", "a", 1, 1), ("digits", "a", 0, 1)]


async def test_the_first_and_the_last_client_to_leave_an_instance_out_are_told_of(calls, clock, ejections):
    for client in ("a", "b", "c"):
        await report(calls, clock, client=client, after=0.0, nodes={"x": {"ok": 1}})
    await clock.advance(5.0)
    for client, state in (("a", "ejected"), ("b", "ejected"), ("c", "cooling")):
        await report(calls, clock, client=client, after=0.0, nodes={"x": {"state": state}})
    assert ejections == [("digits", "x", 1, 3)]
    assert calls.instance("digits", "x").ejected_by == calls.service("digits").ejected_by == 2
    await clock.advance(5.0)
    await report(calls, clock, client="a", after=0.0, nodes={"x": {"state": "probation"}})
    await report(calls, clock, client="b", after=5.0, nodes={"x": {"ok": 1}})
    assert len(ejections) == 1
    await report(calls, clock, client="a", nodes={"x": {"ok": 1}})
    assert ejections[1:] == [("digits", "x", 0, 3)]


async def test_who_calls_whom(calls, clock):
    slow = {"ok": 9, "failed": 1, "in_flight": 1, "latencies": [(100.0, 9)]}
    await report(calls, clock, client="a", calls=20, nodes={"x": slow, "y": {"ok": 10}}, after=0.0)
    await report(calls, clock, client="b", calls=5, nodes={"x": {"ok": 5}, "z": {"state": "ejected"}}, after=0.0)
    rows = calls.matrix("digits")
    assert [(row.client, row.instance, row.rps) for row in rows] == [
        ("a", "x", 2.0),
        ("a", "y", 2.0),
        ("b", "x", 1.0),
        ("b", "z", 0.0),
    ]
    assert (rows[0].success, rows[0].in_flight, rows[0].state) == (0.9, 1, "")
    assert 100.0 <= rows[0].p50 == rows[0].p99 < 110.0
    assert (rows[3].success, rows[3].p50, rows[3].p99, rows[3].state) == (None, None, None, "ejected")
    assert [row.client for row in calls.matrix("digits", instance="x")] == ["a", "b"]
    assert [row.instance for row in calls.matrix("digits", client="b")] == ["x", "z"]
    assert [(row.client, row.instance) for row in calls.matrix("digits", clients=1, instances=2)] == [("a", "x")]


async def test_the_version_grows_with_what_is_told(calls, clock):
    await report(calls, clock, nodes={"a": {"ok": 5}, "b": {"in_flight": 1}}, period=2.0, after=2.0)
    first = calls.version
    assert calls.version == first
    await report(calls, clock, nodes={"b": {"in_flight": 1}, "c": {"in_flight": 2}}, period=2.0)
    assert calls.version > first


async def test_one_name_at_two_addresses_is_two_clients(calls, clock):
    await report(calls, clock, after=0.0, calls=5, nodes={"a": {"ok": 5, "in_flight": 1}})
    await report(calls, clock, after=0.0, calls=5, nodes={"a": {"ok": 5, "in_flight": 1}}, sender="10.0.0.2")
    assert rounded(calls.instance("digits", "a")) == (2.0, 1.0, 2)
    assert [each.client for each in calls.callers()] == ["shop-1", "shop-1 at 10.0.0.2"]


async def test_an_instance_twice_in_a_report_counts_its_attempts_twice_and_stands_once(calls, clock):
    twice = [{"instance": "a", "ok": 5, "in_flight": 4}, {"instance": "a", "ok": 5, "in_flight": 1}]
    calls.take(msgspec.json.encode({"client": "c", "service": "digits", "period": 5, "nodes": twice}), "x")
    assert rounded(calls.instance("digits", "a")) == (2.0, 1.0, 1)


GOOD = {"client": "a", "service": "digits", "period": 5}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"period": 0.4}, "seconds"),
        ({"period": 121}, "seconds"),
        ({"client": ""}, "names its client"),
        ({"service": ""}, "names its client"),
        ({"client": "a" * 257}, "256"),
        ({"policy": "a" * 257}, "256"),
        ({"service": 7}, "no report"),
        ({"calls": -1}, "count"),
        ({"calls": 10**30}, "no report|count"),
        ({"calls": 1.5}, "no report"),
        ({"budget_left": -1}, "budget_left"),
        ({"latencies": [[-1, 5]]}, "histogram"),
        ({"latencies": [[1, -5]]}, "histogram"),
        ({"latencies": [[1, 5]] * 513}, "buckets"),
        ({"nodes": [{"instance": ""}]}, "characters"),
        ({"nodes": [{"instance": "a" * 257}]}, "characters"),
        ({"nodes": [{"instance": "a", "in_flight": -1}]}, "count"),
        ({"nodes": [{"instance": "a", "state": "<script>"}]}, "state"),
        ({"nodes": [{"instance": "a", "latencies": [[1, -1]]}]}, "histogram"),
        ({"nodes": [{"instance": "a"}] * 2001}, "2000"),
    ],
)
def test_a_report_that_spoils_sums_or_memory_is_refused_whole(calls, changes, why):
    with pytest.raises(BadReport, match=why) as refused:
        calls.take(msgspec.json.encode(GOOD | changes), "x")
    assert "\n" not in str(refused.value)
    assert calls.callers() == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"client": "a", "service": "s", "period": NaN}',
        b'{"client": "a", "service": "s", "period": 1e999}',
        b'{"client": "a", "service": "s", "period": 5, "latencies": [[1e999, 1]]}',
        b'{"client": "\xff", "service": "s", "period": 5}',
        b"[" * 100_000,
        b'{"client": "a", "nodes": ' + b"[" * 100_000,
        b" " * (MOST_BYTES + 1),
    ],
)
def test_what_is_no_report_is_refused_in_one_sentence(calls, raw):
    with pytest.raises(BadReport) as refused:
        calls.take(raw, "x")
    assert 0 < len(str(refused.value)) < 300
    assert calls.callers() == []


async def test_a_client_reports_once_a_second_at_most(calls, clock):
    await report(calls, clock, calls=5, after=0.9)
    with pytest.raises(TooMany):
        calls.take(body(calls=5), "10.0.0.1")
    await clock.advance(0.1)
    calls.take(body(calls=15), "10.0.0.1")
    assert calls.service("digits").rps == 2.0


async def test_all_clients_together_are_bounded_in_rate_bad_reports_too(calls, clock):
    for number in range(module.MOST_A_SECOND - 1):
        calls.take(body(client=f"c{number}"), "x")
    with pytest.raises(BadReport):
        calls.take(b"", "x")
    with pytest.raises(TooMany):
        calls.take(body(client="late"), "x")
    await clock.advance(1.0)
    calls.take(body(client="late"), "x")
    assert "late" in {each.client for each in calls.callers()}


async def test_of_too_many_clients_the_one_silent_longest_goes(calls, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_CLIENTS", 3)
    for client in ("a", "b", "c", "a"):
        await report(calls, clock, client=client, nodes={"x": {"in_flight": 1}}, after=1.0)
    await report(calls, clock, client="d", nodes={"x": {"in_flight": 1}})
    assert [each.client for each in calls.callers()] == ["a", "c", "d"]
    assert calls.instance("digits", "x").in_flight == 3


async def test_instances_and_pairs_beyond_the_bounds_are_left_out_and_counted(calls, clock, monkeypatch):
    monkeypatch.setattr(module, "MOST_INSTANCES", 2)
    monkeypatch.setattr(module, "MOST_PAIRS", 3)
    monkeypatch.setattr(module, "MOST_TIMED", 1)
    said = {"ok": 5, "latencies": [(10.0, 5)]}
    await report(calls, clock, client="a", nodes={"x": said, "y": said, "z": said}, after=0.0)
    assert calls.uncounted == 1
    assert calls.instance("digits", "z") == Traffic(clients=1)
    assert [row.p50 is None for row in calls.matrix("digits")] == [False, True]
    await report(calls, clock, client="b", nodes={"x": said, "y": said})
    assert calls.uncounted == 2
    assert calls.instance("digits", "x").latency.p50 is not None


async def test_what_is_gone_leaves_nothing_behind(calls, clock):
    for number in range(20):
        client = f"c{number}"
        await report(calls, clock, client=client, service=f"s{number % 3}", nodes={f"i{number}": {"ok": 1}}, after=1.0)
    await clock.advance(700.0)
    assert calls.callers() == []
    assert (calls._live, calls._silent, calls._services) == ({}, {}, {})
    assert (calls._pairs, calls._timed, calls._instances) == (0, 0, 0)


async def test_a_pair_without_traffic_is_dropped_and_its_room_is_given_back(calls, clock):
    await report(calls, clock, nodes={"a": {"ok": 1}})
    for _ in range(20):
        await report(calls, clock, nodes={"b": {"ok": 1}})
    assert [row.instance for row in calls.matrix("digits")] == ["b"]
    assert (calls._pairs, calls.callers()[0].instances) == (1, 1)
