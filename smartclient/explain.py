"""Why a node was chosen: what was known of every node just before the pick, who was chosen, and that in words.

``looking_on`` stands between the sender and the balancer only while somebody wants to know: a look at every node for
each pick has no place on the usual path. The words go by what any policy shows of itself, its name and its scores.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec

from registry.model import Health, Instance
from registry.wording import escaped, length
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint, Lease
from smartclient.policy import ANY, PickInfo

Row = dict[str, Any]

SHOWN = 12  # nodes; the rest of a large fleet is counted
_HEAD = ("  node", "endpoint", "health", "state", "in flight", "latency", "wait", "score", "")
_NUMBERS = range(4, 8)  # columns


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One pick. ``node``, ``endpoint``: id and ``address:port`` of the chosen; ``asked``: ids that told their load.

    ``endpoints``: everybody as ``AsyncSmartClient.explain`` shows them, just before the pick.
    """

    policy: str
    node: str
    endpoint: str
    asked: tuple[str, ...]
    endpoints: Sequence[Row]
    why: str


def looking_on(balancer: Balancer, tell: Callable[[Choice], None]) -> Callable[[PickInfo], Lease]:
    """Return a ``Balancer.pick`` that tells of every choice it makes."""

    def pick(info: PickInfo = ANY) -> Lease:
        rows = balancer.explain(info)
        lease = balancer.pick(info)
        policy, instance = balancer.policy.name, lease.endpoint.instance
        asked = tuple(endpoint.name for endpoint in info.among)
        rows.sort(key=lambda row: (row["endpoint"] != instance.endpoint, row["id"] not in asked, not row["may"]))
        tell(
            Choice(
                policy=policy,
                node=instance.id,
                endpoint=instance.endpoint,
                asked=asked,
                endpoints=rows,
                why=_why(policy, rows, asked),
            )
        )
        return lease

    return pick


def unused(instances: Sequence[Instance], endpoints: Collection[Endpoint]) -> list[Row]:
    """Return those of a list whose health keeps them from having any work, and why."""
    used = {endpoint.instance.health for endpoint in endpoints}
    reasons = {Health.DRAINING: "it takes no new requests", Health.CRITICAL: "its checks fail, those of others do not"}
    return [
        {"id": each.id, "endpoint": each.endpoint, "health": str(each.health), "why": reasons[each.health]}
        for each in instances
        if each.health in reasons and each.health not in used
    ]


def _why(policy: str, rows: Sequence[Row], asked: Collection[str]) -> str:
    """Why the first of ``rows`` was chosen."""
    chosen = rows[0]
    score = chosen["score"]
    scores = [row["score"] for row in rows if row["may"]]
    told = [row["score"] for row in rows if row["may"] and row["id"] in asked]
    if not chosen["may"]:
        return f"{chosen['why']}, but no better one is left, or too few are"
    if len(scores) == 1:
        return "no other stood to choose"
    if score is None:
        return f"{policy} goes by turns or by key and compares no scores"
    if chosen["id"] in asked:
        most = "the lowest score" if score <= min(told) else "and no other is clearly better, among"
        return f"{most} of the {len(told)} that were asked how busy they are"
    if score <= min(scores):
        return f"no score of the {len(scores)} is lower"
    return f"{policy} compares a few nodes at a time, and none of those was clearly better"


def told(explained: Row, choices: Sequence[Choice]) -> Iterator[str]:
    """Tell in lines what ``AsyncSmartClient.explain`` returned and, attempt by attempt, which choices were made."""
    if not choices:
        rows = explained["endpoints"]
        yield f"policy {explained['policy']}: {_standing(rows)}; nothing was sent, so none was chosen"
        yield from _table(rows)
    for number, choice in enumerate(choices, 1):
        attempt = f"attempt {number}: " if number > 1 else ""
        stood, node = _standing(choice.endpoints), escaped(choice.node)
        yield f"{attempt}policy {choice.policy}: {stood}; {node} was chosen: {choice.why}"
        yield from _table(choice.endpoints, choice)
    for row in explained["unused"]:
        yield f"  left out: {escaped(row['id'])} ({row['endpoint']}) is {row['health']}: {row['why']}"


def _standing(rows: Sequence[Row]) -> str:
    return f"{sum(row['may'] for row in rows)} of {len(rows)} nodes stood to choose"


def _table(rows: Sequence[Row], choice: Choice | None = None) -> Iterator[str]:
    lines = [_HEAD, *(_cells(row, choice) for row in rows[:SHOWN])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.rjust(width) if at in _NUMBERS else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more"


def _cells(row: Row, choice: Choice | None) -> tuple[str, ...]:
    chosen = choice is not None and row["endpoint"] == choice.endpoint
    said = "chosen" if chosen else "asked" if choice is not None and row["id"] in choice.asked else ""
    if not row["may"]:
        back = f", to be tried again in {length(row['back_in_s'])}" if row["back_in_s"] else ""
        said = ", ".join(filter(None, (said, row["why"] + back)))
    return (
        f"{'>' if chosen else ' '} {escaped(row['id'])}",
        row["endpoint"],
        row["health"],
        row["state"],
        str(row["in_flight"]),
        f"{row['latency_ms']:.1f} ms" if row["latency_ms"] else "-",
        "-" if row["wait_ms"] is None else f"{row['wait_ms']:.1f} ms",
        "-" if row["score"] is None else f"{row['score']:.4g}",
        said,
    )
