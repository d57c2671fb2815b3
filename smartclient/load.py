"""What a node says of its own load: parsed from the header its answers carry and from what it answers when asked.

Two forms, one value. The header ``endpoint-load-metrics`` is ORCA's TEXT form (Envoy and vLLM speak it):

    TEXT named_metrics.wait_ms=12.5,named_metrics.inflight=3,application_utilization=0.7,rps_fractional=18.2

The answer of ``GET /load`` (docs/protocol.md) is JSON:

    {"wait_ms": 12.5, "inflight": 3, "queue": 2, "capacity_rps": 26.0, "utilization": 0.7, "rps": 18.2}

What cannot be read is no report: a node's load is a hint, never a reason for a call to fail.
"""

import math
from collections.abc import Mapping

import msgspec

HEADER = "endpoint-load-metrics"
META = "load"
"""The key of an instance's metadata that holds the path to ask for its load."""


class LoadReport(msgspec.Struct, frozen=True, gc=False):
    """A node's load at ``at`` (monotonic seconds of the reader).

    ``wait``: seconds a request that came then would have waited before it was begun; ``in_flight``: requests inside;
    ``utilization``: share of its time it was busy; ``rps``: requests it answered per second. None is unsaid.
    """

    at: float
    wait: float | None = None
    in_flight: float | None = None
    utilization: float | None = None
    rps: float | None = None


class _Load(msgspec.Struct):
    wait_ms: float | None = None
    inflight: float | None = None
    utilization: float | None = None
    rps: float | None = None


_LOAD = msgspec.json.Decoder(_Load)
# vLLM says how many run and how many wait; their sum is its in-flight count.
_IN_FLIGHT = ("named_metrics.inflight", "named_metrics.num_requests_running", "named_metrics.num_requests_waiting")


def from_header(text: str, now: float) -> LoadReport | None:
    """Return the report in an ``endpoint-load-metrics`` header, None when there is none that can be read."""
    form, _, fields = text.partition(" ")
    if form != "TEXT":
        return None
    values = dict(_pairs(fields))
    wait = values.get("named_metrics.wait_ms")
    present = [values[name] for name in _IN_FLIGHT if name in values]
    report = LoadReport(
        at=now,
        wait=None if wait is None else wait / 1000.0,
        in_flight=sum(present) if present else None,
        utilization=values.get("application_utilization", values.get("cpu_utilization")),
        rps=values.get("rps_fractional", values.get("rps")),
    )
    return report if values else None


def from_answer(headers: Mapping[str, str], now: float) -> LoadReport | None:
    """Return the report that an answer's headers carry, if any."""
    text = headers.get(HEADER)
    return None if text is None else from_header(text, now)


def from_json(body: bytes, now: float) -> LoadReport | None:
    """Return the report in an answer of ``GET /load``, None when it holds none."""
    try:
        load = _LOAD.decode(body)
    except msgspec.MsgspecError:
        return None
    wait, in_flight = _usable(load.wait_ms), _usable(load.inflight)
    if wait is None and in_flight is None:
        return None
    return LoadReport(
        at=now,
        wait=None if wait is None else wait / 1000.0,
        in_flight=in_flight,
        utilization=_usable(load.utilization),
        rps=_usable(load.rps),
    )


def _pairs(fields: str) -> list[tuple[str, float]]:
    pairs = []
    for field in fields.split(","):
        name, _, text = field.partition("=")
        try:
            value = _usable(float(text))
        except ValueError:
            continue
        if value is not None:
            pairs.append((name.strip(), value))
    return pairs


def _usable(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value >= 0 else None
