"""Why an instance is in the answer to a question or out of it, and what changed in it: facts as words. Pure.

What the registry passed on from others is made harmless here (see ``wording.printable``).
"""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

import msgspec

from registry.consul.reports import CheckReport
from registry.model import Health, Instance, Snapshot
from registry.query import Query
from registry.wording import escaped, printable

_FIELDS = ("health", "weight", "endpoint", "zone", "version", "node")
# As much of a check's output as helps; Consul itself keeps 4 kB.
_OUTPUT = 300
_NAME = 80


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. ``why``: what is not well with it, and which filters leave it out; empty when there is neither."""

    instance: Instance
    included: bool
    why: tuple[str, ...]
    checks: tuple[CheckReport, ...]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one instance. ``word``: added, removed or changed, as the question sees it."""

    word: str
    instance: Instance
    what: tuple[str, ...] = ()


def explain(
    query: Query, instances: Iterable[Instance], checks: Mapping[str, tuple[CheckReport, ...]]
) -> tuple[Explanation, ...]:
    """Explain each of a service's instances. ``checks``: of those that are known, by instance id."""
    return tuple(
        Explanation(
            instance=each,
            included=query.wants(each),
            why=tuple(_reasons(query, each, checks.get(each.id, ()))),
            checks=checks.get(each.id, ()),
        )
        for each in instances
    )


def changes(query: Query, old: Snapshot | None, new: Snapshot) -> tuple[Change, ...]:
    """Say what the answer to a question gained, lost and changed between two lists of *all* instances."""
    before = {} if old is None else {each.id: each for each in old.instances}
    after = {each.id: each for each in new.instances}
    return tuple(
        change
        for key in sorted(before.keys() | after.keys())
        if (change := _change(query, before.get(key), after.get(key)))
    )


def cells(instance: Instance) -> tuple[str, ...]:
    """Return an instance as columns: id, address, health, zone, version, weight, tags; ``-`` for what it lacks."""
    said = (instance.id, instance.endpoint, instance.health, instance.zone, instance.version)
    return (
        *(escaped(each) or "-" for each in said),
        str(instance.weight),
        escaped(",".join(instance.tags)) or "-",
    )


def differences(old: Instance, new: Instance) -> Iterator[str]:
    """Say what is another in ``new``: ``health passing → critical``."""
    for field in _FIELDS:
        yield from _difference(field, getattr(old, field), getattr(new, field))
    yield from _difference("tags", ",".join(old.tags), ",".join(new.tags))
    for key in sorted((old.meta.keys() | new.meta.keys()) - {"zone", "version"}):
        yield from _difference(f"meta {printable(key, _NAME)}", old.meta.get(key, ""), new.meta.get(key, ""))


def similar(name: str, names: Iterable[str]) -> list[str]:
    """Return the names that may have been meant, the likeliest first, at most three."""
    by_key = {each.casefold(): each for each in names if each != name}
    key = name.casefold()
    near = get_close_matches(key, by_key, n=3)
    near += [each for each in by_key if each not in near and (key in each or (len(each) > 2 and each in key))]
    return [by_key[each] for each in near[:3]]


def _change(query: Query, was: Instance | None, now: Instance | None) -> Change | None:
    what = tuple(differences(was, now)) if was and now else ()
    if now and query.wants(now):
        if not (was and query.wants(was)):
            return Change(word="added", instance=now, what=what)
        return Change(word="changed", instance=now, what=what) if was != now else None
    if was and query.wants(was):
        return Change(word="removed", instance=now or was, what=what or ("gone",))
    return None


def _reasons(query: Query, instance: Instance, checks: tuple[CheckReport, ...]) -> Iterator[str]:
    told = False
    for check in sorted(checks, key=lambda each: not each.maintenance):
        if check.status != "passing":
            told = True
            yield said(check)
    if instance.health is not Health.PASSING and not told:
        yield f"it is {instance.health}"
    # Its health has been told; what else keeps it out has not.
    whatever = msgspec.structs.replace(query, passing_only=False)
    yield from (printable(each, _OUTPUT) for each in whatever.objections(instance))


def said(check: CheckReport) -> str:
    """What a check that is not passing says, on one line and fit for any terminal."""
    of_node = "" if check.service_id else " of its node"
    if check.maintenance:
        reason = printable(check.notes, _OUTPUT)
        return ("in maintenance" if check.service_id else "its node is in maintenance") + (reason and f": {reason}")
    name, full = printable(check.check_id, _NAME), printable(check.name, _NAME)
    if full and full != name and not full.startswith("Service '"):  # the name Consul gives when none is given
        name += f" ({full})"
    output = printable(check.output, _OUTPUT)
    return f"check {name}{of_node} is {printable(check.status, 20)}" + (f": {output}" if output else "")


def _difference(word: str, old: object, new: object) -> Iterator[str]:
    if old != new:
        before, after = (printable(str(each), _NAME) or "none" for each in (old, new))
        yield f"{word} {before} → {after}"
