"""What smart clients report to a dashboard, as JSON: ``POST /api/v1/reports``, one report for each client and period.

Counts are of the period alone, so a lost report loses its period and nothing else. Latencies are sparse histograms,
``[[upper edge in milliseconds, count], …]``, so that they add up whatever the client's own buckets are.
"""

import msgspec

PORT = 8600  # where a dashboard listens unless told otherwise
PATH = "/api/v1/reports"
# Seconds from one report of a client to the next.
PERIOD = 5.0
# A report is larger than this only if something is wrong.
MOST_BYTES = 512 * 1024
MOST_NODES = 2000

Buckets = list[tuple[float, int]]


class NodeReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One instance, as one client sees it: attempts that ended within the period, and how it stands at its end.

    ``state``: the breaker's word (``ejected``, ``cooling``, ``probation``), empty while it has nothing to say.
    """

    instance: str
    ok: int = 0
    failed: int = 0
    overloaded: int = 0
    in_flight: int = 0
    state: str = ""
    latencies: Buckets = []


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one client did within ``period`` seconds. ``client``: its name, unique in the fleet.

    ``calls`` ended, and how many of them ``failed``; ``retries``, ``hedges`` and ``throttled`` as counts;
    ``budget_left``: retries it could make at once now.
    """

    client: str
    service: str
    period: float
    policy: str = ""
    calls: int = 0
    failed: int = 0
    in_flight: int = 0
    retries: int = 0
    hedges: int = 0
    throttled: int = 0
    budget_left: float | None = None
    latencies: Buckets = []
    nodes: list[NodeReport] = []
