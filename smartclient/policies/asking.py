"""Whether to ask a node how busy it is, and whether what it said is good for anything."""

from typing import TypeGuard

from smartclient.endpoint import Endpoint
from smartclient.load import LoadReport

WORTH = 20.0  # times what a probe takes, an answer must take for a probe to cost nothing beside it


def worth_asking(endpoint: Endpoint, now: float) -> bool:
    """Whether it can be asked, and what it says may save more than the asking costs."""
    if not endpoint.load_path:
        return False
    # What is under way counts too: a node that hangs is asked even where answers usually come quickly.
    answer, probe = endpoint.expected(now), endpoint.probe_latency.read(now)
    return not answer or not probe or answer >= WORTH * probe


def tells(report: LoadReport | None) -> TypeGuard[LoadReport]:
    """Whether a report says how much work is there."""
    return report is not None and (report.wait is not None or report.in_flight is not None)
