"""Whether to ask a node how busy it is, and whether what it said is good for anything."""

from typing import TypeGuard

from smartclient.endpoint import Endpoint
from smartclient.load import LoadReport

WORTH = 10.0  # times what a probe takes, an answer must take for a few probes to cost little beside it
AGAIN = 10.0  # seconds after which a node is asked once all the same: what a probe takes may have changed


def worth_asking(endpoint: Endpoint, now: float) -> bool:
    """Whether it can be asked, and what it says may save more than the asking costs.

    Compared are typical times: on a busy machine peaks say more of the machine than of what is asked. An attempt under
    way that is overdue counts with its age, so that a node that hangs is asked however quick it is else.
    """
    if not endpoint.load_path:
        return False
    probe, answer = endpoint.probe_latency.typical, endpoint.latency.typical
    if not probe or not answer or answer >= WORTH * probe or endpoint.probe_latency.silence(now) >= AGAIN:
        return True
    expected = endpoint.expected(now)
    return expected > endpoint.latency.value and expected >= WORTH * probe


def tells(report: LoadReport | None) -> TypeGuard[LoadReport]:
    """Whether a report says how much work is there."""
    return report is not None and (report.wait is not None or report.in_flight is not None)
