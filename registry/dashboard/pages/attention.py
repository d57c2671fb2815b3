"""What needs a look, worst first, and the one sentence about the whole fleet. Pure.

First what takes a whole service away, then lists that may no longer be true, then single instances, then what only
clients see: an instance they leave out though its checks pass, and requests that they have under way and no node knows
of. The other way round is no concern, for not every caller reports. Draining is on purpose, so it is counted and not
complained of. Looking at a thousand instances costs one pass; sentences are made only for those that are shown.
"""

from collections import Counter
from heapq import nsmallest
from itertools import islice

import msgspec

from registry.dashboard.figures import inside, many, rank
from registry.dashboard.fold import cause
from registry.dashboard.model import Fleet, Member, Service
from registry.dashboard.world import World
from registry.model import Health
from registry.wording import printable

MOST = 12
# Seconds after which a client's word no longer counts.
_SILENT = 60.0
# Names that clients leave out, looked at for one page at most.
_MOST_LEFT_OUT = 2000
# Clients and nodes are asked seconds apart: so many requests, and half of all of them, may be told of by one side only.
_GAP = 5


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence. ``since``: when it came to be so, ``at_least``: it was so already when first seen."""

    health: str
    words: str
    service: str = ""
    instance: str = ""
    since: float | None = None
    at_least: bool = False


class Status(msgspec.Struct, frozen=True):
    """The one sentence; ``health`` is the worst there is, empty when there is nothing to say."""

    health: str
    words: str


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """The first concerns, how many ``more`` there are, and the sentence about all of it."""

    status: Status
    concerns: tuple[Concern, ...]
    more: int


def attention(world: World) -> Attention:
    """Look at everything."""
    fleet = world.fleet
    dead = [_dead(each) for each in fleet.services.values() if not each.counts[Health.PASSING]]
    lists = [_untrue(each) for each in fleet.services.values() if not each.live or each.suspect]
    if not fleet.registry.live:
        lists = []  # none of them is, and for the one reason that is told already
    ill = [
        (rank(member), name, member)
        for name, service in fleet.services.items()
        if service.counts[Health.CRITICAL] or service.counts[Health.WARNING]
        for member in service.members
        if member.instance.health in (Health.CRITICAL, Health.WARNING)
    ]
    left_out, gaps = _left_out(world), _gaps(world)
    shown = [*_registry(fleet), *dead, *lists]
    room = max(0, MOST - len(shown))
    shown += (_ill(name, member) for _, name, member in nsmallest(room, ill, key=lambda each: each[:2]))
    shown += [*left_out, *gaps]
    total = len(dead) + len(lists) + len(ill) + len(left_out) + len(gaps) + (not fleet.registry.live)
    return Attention(
        status=_status(fleet, len(dead), len(lists) + len(left_out) + len(gaps)),
        concerns=tuple(shown[:MOST]),
        more=total - len(shown[:MOST]),
    )


def sentence(service: Service) -> Status:
    """Say how one service fares."""
    counts, total = service.counts, len(service.members)
    if not total:
        return Status("critical", f"{_name(service)} has no instance left.")
    told = ", ".join(f"{counts[each]:,} {each}" for each in (Health.CRITICAL, Health.WARNING) if counts[each])
    if not counts[Health.PASSING]:
        others = ", ".join(f"{count:,} {each}" for each, count in counts.items() if count)
        return Status("critical", f"No instance of {_name(service)} is passing: {others}.")
    if told:
        ill = counts[Health.CRITICAL] + counts[Health.WARNING]
        need = "needs" if ill == 1 else "need"
        word = "critical" if counts[Health.CRITICAL] else "warning"
        return Status(word, f"{ill:,} of {many(total, 'instance')} of {_name(service)} {need} attention: {told}.")
    return Status("passing", f"{_well(total, counts[Health.DRAINING], f'of {_name(service)} ')}.")


def _status(fleet: Fleet, dead: int, others: int) -> Status:
    registry = fleet.registry
    if registry.heard_at is None:
        why = f": {printable(registry.error, 300)}" if registry.error else ""
        return Status("", f"The registry has not answered yet{why}.")
    health, words = _fleet(fleet, dead, others)
    if not registry.live:
        return Status(
            health if health == "critical" else "warning",
            f"The registry does not answer. Last known: {words[0].lower()}{words[1:]}.",
        )
    return Status(health, f"{words}.")


def _fleet(fleet: Fleet, dead: int, others: int) -> tuple[str, str]:
    services = len(fleet.services)
    if not services:
        return "", "No service is registered yet"
    counts = Counter[Health]()
    for each in fleet.services.values():
        counts.update(each.counts)
    total = counts.total()
    ill = {each: counts[each] for each in (Health.CRITICAL, Health.WARNING) if counts[each]}
    if ill:
        told = ", ".join(f"{count:,} {each}" for each, count in ill.items())
        need = "needs" if sum(ill.values()) == 1 else "need"
        words = f"{sum(ill.values()):,} of {many(total, 'instance')} {need} attention: {told}"
    elif not total:
        words = "There is no instance of any service"
    else:
        words = _well(total, counts[Health.DRAINING], f"of {many(services, 'service')} ")
    if dead and total:
        words += f"; {dead:,} of {many(services, 'service')} {'has' if dead == 1 else 'have'} no passing instance"
    if others:
        words += f"; {many(others, 'other thing')} to look at"
    health = "critical" if dead or Health.CRITICAL in ill else "warning" if ill or others else "passing"
    return health, words


def _well(total: int, draining: int, of: str) -> str:
    if draining:
        rest = f"{draining:,} {'is' if draining == 1 else 'are'} draining, on purpose"
        return f"{total - draining:,} of {many(total, 'instance')} {of}are passing; {rest}"
    return f"The one instance {of}is passing" if total == 1 else f"All {total:,} instances {of}are passing"


def _registry(fleet: Fleet) -> list[Concern]:
    registry = fleet.registry
    if registry.live:
        return []
    why = printable(registry.error, 300) or "no answer"
    return [Concern(health="warning", words=f"The registry does not answer: {why}", since=registry.heard_at)]


def _dead(service: Service) -> Concern:
    last = max(service.members, key=lambda each: each.since, default=None)
    return Concern(
        health="critical",
        service=service.name,
        words=sentence(service).words,
        since=None if last is None else last.since,
        at_least=last is not None and not last.witnessed,
    )


def _untrue(service: Service) -> Concern:
    if service.live:
        words = "More than half of it is missing from the registry's last list; asking again before that is believed"
    else:
        words = f"Its list is not followed now: {printable(service.error, 300) or 'no answer'}"
    return Concern(health="warning", service=service.name, words=words, since=service.last_good_at)


def _ill(service: str, member: Member) -> Concern:
    return Concern(
        health=member.health.value,
        service=service,
        instance=member.id,
        words=cause(member),
        since=member.since,
        at_least=not member.witnessed,
    )


def _left_out(world: World) -> list[Concern]:
    """Instances that pass their checks, and that clients leave out."""
    said = (
        (each.service, instance)
        for each in world.calls.callers()
        if world.now - each.heard_at <= _SILENT
        for instance in each.ejected
    )
    found = []
    for (service, instance), clients in Counter(islice(said, _MOST_LEFT_OUT)).most_common():
        member = world.fleet.member(service, instance)
        if member is None or member.health is not Health.PASSING:
            continue
        words = f"{many(clients, 'client')} {'leaves' if clients == 1 else 'leave'} it out though its checks pass"
        found.append(Concern(health="warning", service=service, instance=instance, words=words))
    return found


def _gaps(world: World) -> list[Concern]:
    found = []
    for name, service in world.fleet.services.items():
        theirs = world.calls.service(name).in_flight
        if theirs is None or theirs <= _GAP:
            continue
        ours, heard = inside(service, world.loads)
        if heard == len(service.members) and theirs - ours > max(_GAP, theirs / 2):
            words = f"Clients have {many(theirs, 'request')} under way, its nodes know of {ours:,.0f}"
            found.append(Concern(health="warning", service=name, words=words))
    return found


def _name(service: Service) -> str:
    return printable(service.name, 80)
