"""Why a node was chosen: what was known of every node just before the pick, who was chosen, and that in words.

``looking_on`` stands between the sender and the balancer only while somebody wants to know: a look at every node for
each pick has no place on the usual path. The words go by what any policy shows of itself, its name and its scores.
Everything is a plain dict, as ``AsyncSmartClient.explain`` returns it, ready to become JSON.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from registry.model import Health, Instance
from registry.wording import escaped, length
from smartclient.balancer import Balancer
from smartclient.endpoint import Endpoint, Lease
from smartclient.policy import ANY, PickInfo

Row = dict[str, Any]
Explanation = dict[str, Any]

SHOWN = 12  # nodes; the rest of a large fleet is counted
_HEAD = ("  node", "endpoint", "health", "state", "in flight", "latency", "wait", "score", "")
_NUMBERS = range(4, 8)  # columns
_NO_WORK = {
    Health.DRAINING: "it takes no new requests",
    Health.CRITICAL: "it fails the registry's checks, and others pass theirs",
}


def looking_on(balancer: Balancer, tell: Callable[[Explanation], None]) -> Callable[[PickInfo], Lease]:
    """Return a ``Balancer.pick`` that tells of every choice it makes.

    Told are ``policy``, ``node`` (the chosen one's id), ``why``, and ``endpoints`` as ``Balancer.explain`` shows them,
    each with ``chosen`` and ``asked`` (it had just told its load), the chosen one first.
    """

    def pick(info: PickInfo = ANY) -> Lease:
        rows = balancer.explain(info)
        lease = balancer.pick(info)
        chosen, asked = lease.endpoint.instance, {endpoint.instance.endpoint for endpoint in info.among}
        for row in rows:
            row["asked"], row["chosen"] = row["endpoint"] in asked, row["endpoint"] == chosen.endpoint
        rows.sort(key=lambda row: (not row["chosen"], not row["asked"], not row["may"]))
        policy = balancer.policy.name
        tell({"policy": policy, "node": chosen.id, "why": _why(policy, rows), "endpoints": rows})
        return lease

    return pick


def unused(instances: Sequence[Instance], endpoints: Collection[Endpoint]) -> list[Row]:
    """Return those of a list whose health keeps them from having any work, and why."""
    used = {endpoint.instance.health for endpoint in endpoints}
    return [
        {"id": each.id, "endpoint": each.endpoint, "health": str(each.health), "why": _NO_WORK[each.health]}
        for each in instances
        if each.health in _NO_WORK and each.health not in used
    ]


def told(explanation: Explanation) -> Iterator[str]:
    """Tell in lines what ``AsyncSmartClient.explain`` returned, and the ``choices`` that were made after it."""
    if not explanation["choices"]:
        rows = explanation["endpoints"]
        yield f"policy {explanation['policy']}: {_standing(rows)}; nothing was sent, so none was chosen"
        yield from _table(rows)
    for number, choice in enumerate(explanation["choices"], 1):
        rows, node = choice["endpoints"], escaped(choice["node"])
        again = f"attempt {number}: " if number > 1 else ""
        yield f"{again}policy {choice['policy']}: {_standing(rows)}; {node} was chosen: {choice['why']}"
        yield from _table(rows)
    for row in explanation["unused"]:
        yield f"  left out: {escaped(row['id'])} ({row['endpoint']}) is {row['health']}: {row['why']}"


def _why(policy: str, rows: Sequence[Row]) -> str:
    """Why the first of ``rows`` was chosen, in words."""
    chosen, score = rows[0], rows[0]["score"]
    scores = [row["score"] for row in rows if row["may"]]
    asked = [row["score"] for row in rows if row["may"] and row["asked"]]
    if not chosen["may"]:
        return f"{chosen['why']}, but no better one is left, or too few are"
    if len(scores) == 1:
        return "no other one stood to choose"
    if score is None:
        return f"{policy} goes by turns or by key and compares no scores"
    if chosen["asked"]:
        what = "the lowest score" if score <= min(asked) else "no other is clearly better"
        return f"{what} of the {len(asked)} that were asked how busy they are"
    if score <= min(scores):
        return f"no score of the {len(scores)} is lower"
    return f"{policy} compares a few nodes at a time, and of those no other is clearly better"


def _standing(rows: Sequence[Row]) -> str:
    panic = any(row["may"] and row["state"] in {"cooling", "ejected"} for row in rows)
    why = ", for too few are well (panic)" if panic else ""
    return f"{sum(row['may'] for row in rows)} of {len(rows)} nodes stood to choose{why}"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    lines = [_HEAD, *map(_cells, rows[:SHOWN])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        aligned = (cell.rjust if at in _NUMBERS else cell.ljust for at, cell in enumerate(line))
        yield "  ".join(align(width) for align, width in zip(aligned, widths, strict=True)).rstrip()
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more"


def _cells(row: Row) -> tuple[str, ...]:
    said = "chosen" if row.get("chosen") else "asked" if row.get("asked") else ""
    back = f", to be tried again in {length(row['back_in_s'])}" if row["back_in_s"] else ""
    return (
        f"{'>' if row.get('chosen') else ' '} {escaped(row['id'])}",
        row["endpoint"],
        row["health"],
        row["state"],
        str(row["in_flight"]),
        f"{row['latency_ms']:.1f} ms" if row["latency_ms"] else "-",
        "-" if row["wait_ms"] is None else f"{row['wait_ms']:.1f} ms",
        "-" if row["score"] is None else f"{row['score']:.4g}",
        said if row["may"] else ", ".join(filter(None, (said, row["why"] + back))),
    )
