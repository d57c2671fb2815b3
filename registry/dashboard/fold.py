"""From one list of a service to the next: members that go on, come and go, and a sentence for each change. Pure.

A member that did not change stays the same object, so whoever draws it can tell by identity. What a dashboard sees
first was so before it looked: such members are not *witnessed*, make no events, and their times are given as "at
least". A check that only says something else is news of the member, not a change of its health, so ``since`` stands;
every change of the word resets it, also while an instance flaps.
"""

from collections.abc import Mapping

import msgspec

from registry.consul.reports import CheckReport
from registry.dashboard.model import Event, Kind, Member, Service
from registry.model import Health, Instance
from registry.show.explain import said
from registry.wording import length, printable

_NAME = 80
_WORST_FIRST = {"critical": 0, "warning": 1, "passing": 2}


def fold(
    old: Service | None,
    instances: tuple[Instance, ...],
    checks: Mapping[str, tuple[CheckReport, ...]],
    *,
    name: str,
    index: int,
    now: float,
) -> tuple[Service, list[Event]]:
    """Return the service as it is now and what happened since ``old`` (None: this is the first list, nothing did).

    ``instances``: ordered by id. ``checks``: by instance id. ``now``: seconds since the epoch.
    """
    before: Mapping[str, Member] = {} if old is None else old.by_id
    members: list[Member] = []
    events: list[Event] = []
    for each in instances:
        was, reports = before.get(each.id), checks.get(each.id, ())
        if was is None:
            member = Member(instance=each, checks=reports, since=now, witnessed=old is not None, joined=now)
            if old is not None:
                events.append(_registered(member, name, now))
        elif was.instance == each and was.checks == reports:
            member = was
        elif was.health == each.health:
            member = msgspec.structs.replace(was, instance=each, checks=reports)
        else:
            member = msgspec.structs.replace(was, instance=each, checks=reports, since=now, witnessed=True)
            events.append(_changed(was, member, name, now))
        members.append(member)
    fresh = Service(name=name, members=tuple(members), index=index)
    events += (_gone(was, name, now) for key, was in before.items() if key not in fresh.by_id)
    return fresh, events


def cause(member: Member) -> str:
    """Return why a member is not passing, on one line and fit for any terminal; empty when it is passing."""
    if member.health is Health.PASSING:
        return ""
    checks = sorted(member.checks, key=lambda each: (not each.maintenance, _WORST_FIRST.get(each.status, 0)))
    failing = [each for each in checks if each.status != "passing"]
    if not failing:
        return "no check says why"
    more = len(failing) - 1
    return said(failing[0]) + (f" (and {more} more not passing)" if more else "")


def _registered(member: Member, service: str, now: float) -> Event:
    words = f"{_name(member)} registered at {printable(member.instance.endpoint, _NAME)}"
    reason = cause(member)
    words += f", {member.health}: {reason}" if reason else ""
    return _event(Kind.REGISTERED, member, words, service, now)


def _changed(was: Member, member: Member, service: str, now: float) -> Event:
    if member.health is Health.PASSING:
        words = f"{_name(member)} is passing again after {_so_far(was, now)} {was.health}"
    else:
        words = f"{_name(member)} is {member.health}: {cause(member)}"
    return _event(Kind.HEALTH, member, words, service, now)


def _gone(was: Member, service: str, now: float) -> Event:
    words = f"{_name(was)} is gone; it was {was.health} for {_so_far(was, now)}"
    return msgspec.structs.replace(_event(Kind.GONE, was, words, service, now), health="")


def _event(kind: Kind, member: Member, words: str, service: str, now: float) -> Event:
    return Event(at=now, kind=kind, words=words, service=service, instance=member.id, health=str(member.health))


def _name(member: Member) -> str:
    return printable(member.id, _NAME)


def _so_far(member: Member, now: float) -> str:
    """For how long it has been what it is; it may have been so for longer than anybody here has looked."""
    return ("" if member.witnessed else "at least ") + length(now - member.since)
