"""What comes in as a report, taken apart and looked over before anybody counts it.

A report is text from outside: it may be too long, no JSON, hold numbers that spoil every sum they enter, or names as
long as a book. What passes ``decode`` is safe to add up and to keep. The bounds are far beyond what a client that
works ever sends.
"""

import msgspec

from registry.dashboard.wire import MOST_BYTES, MOST_NODES, Buckets, Report
from registry.errors import RegistryError

SHORTEST, LONGEST = 0.5, 120.0  # seconds that a report may be about
LONGEST_NAME = 256
MOST_BUCKETS = 512
MOST_COUNTED = 10**9
STATES = frozenset({"", "ejected", "cooling", "probation"})

_decoder = msgspec.json.Decoder(Report)


class BadReport(RegistryError):
    """A report that cannot be used; the message is one sentence for whoever sent it."""


class TooMany(RegistryError):
    """Reports come too often to be taken; this one is not counted."""

    retryable = True


def decode(body: bytes) -> Report:
    """Return the report in ``body``. Raises ``BadReport``."""
    if len(body) > MOST_BYTES:
        raise BadReport(f"a report is at most {MOST_BYTES // 1024} KiB")
    try:
        report = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # What msgspec says names fields and types; the path of a field is all it repeats of the body.
        raise BadReport(f"this is no report: {str(error)[:200]}") from error
    if not (report.client and report.service):
        raise BadReport("a report names its client and its service")
    if not SHORTEST <= report.period <= LONGEST:
        raise BadReport(f"a report is about {SHORTEST:g} to {LONGEST:g} seconds")
    if len(report.nodes) > MOST_NODES:
        raise BadReport(f"a report is about at most {MOST_NODES} instances")
    if max(len(report.client), len(report.service), len(report.policy)) > LONGEST_NAME:
        raise BadReport(f"a name is at most {LONGEST_NAME} characters long")
    budget = report.budget_left
    if budget is not None and not 0 <= budget <= MOST_COUNTED:
        raise BadReport("budget_left is a number from 0 on")
    counts = (report.calls, report.failed, report.in_flight, report.retries, report.hedges, report.throttled)
    _check(counts, report.latencies)
    for node in report.nodes:
        if not 0 < len(node.instance) <= LONGEST_NAME:
            raise BadReport(f"an instance's id is 1 to {LONGEST_NAME} characters long")
        if node.state not in STATES:
            raise BadReport("an instance's state is empty, ejected, cooling or probation")
        _check((node.ok, node.failed, node.overloaded, node.in_flight), node.latencies)
    return report


def _check(counts: tuple[int, ...], latencies: Buckets) -> None:
    if min(counts) < 0 or max(counts) > MOST_COUNTED:
        raise BadReport(f"a count is a whole number from 0 to {MOST_COUNTED}")
    if len(latencies) > MOST_BUCKETS:
        raise BadReport(f"a histogram has at most {MOST_BUCKETS} buckets")
    for edge, count in latencies:
        if not (edge >= 0 and 0 <= count <= MOST_COUNTED):  # JSON holds no infinity
            raise BadReport("a histogram is pairs of a latency in milliseconds and a count, neither below 0")
