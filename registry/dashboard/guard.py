"""May these members be drained, and what would that do? Pure.

A fleet has been emptied by one click before, so the effect is said in words first, and what would leave too few
passing, or take too large a share of a service out at once, takes the service's name, typed. Members that drain already
count towards that share: two small orders do what one large one does. The dashboard's picture may be a second old, so a
set chosen as "all that match" goes by the fingerprint of what was on screen.
"""

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from registry.dashboard.model import Member, Service
from registry.model import Health
from registry.wording import printable

# The share of a service that may be draining without further ado.
SHARE = 0.2
LONGEST_REASON = 500
# How many ids a sentence names.
_NAMED = 3


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """``effect``: what it would do. ``refusal``: why it may not be done as asked, empty when it may.

    ``needs_name``: it takes the service's name, typed, whether or not that has been done. ``ids``: each once.
    """

    ids: tuple[str, ...]
    effect: str
    refusal: str = ""
    needs_name: bool = False

    @property
    def allowed(self) -> bool:
        """Whether it may be done."""
        return not self.refusal


def steerable(member: Member) -> bool:
    """Whether it takes orders: it says in its registration where its load is, as a Twostep node does."""
    return "load" in member.instance.meta


def judge(service: Service, ids: Sequence[str], *, reason: str, typed: str = "", floor: int = 1) -> Ruling:
    """Rule on draining ``ids`` of ``service``; ``floor``: how many have to go on passing."""
    chosen = tuple(dict.fromkeys(ids))
    members = [service.by_id[each] for each in chosen if each in service.by_id]
    fresh = [each for each in members if each.health is not Health.DRAINING]
    passing = service.counts[Health.PASSING]
    left = passing - sum(each.health is Health.PASSING for each in members)
    out = service.counts[Health.DRAINING] + len(fresh)
    too_few = left < min(floor, passing)
    too_many = bool(fresh) and out > SHARE * len(service.members)
    refusal = _unfit(service, chosen) or _wrong(
        [each.id for each in members if each.health is Health.DRAINING], "is draining already", "are draining already"
    )
    refusal = refusal or _reasonless(reason)
    if not refusal and (too_few or too_many) and typed.strip() != service.name:
        harm = (
            f"it would leave {left} of {len(service.members)} passing, fewer than {floor}"
            if too_few
            else f"{out} of {len(service.members)} would be draining at once, more than {SHARE:.0%}"
        )
        refusal = f"{harm}: type the service's name, {printable(service.name, 80)}, to do it all the same"
    effect = f"leaves {left} of {len(service.members)} passing"
    return Ruling(ids=chosen, effect=effect, refusal=refusal, needs_name=too_few or too_many)


def judge_undrain(service: Service, ids: Sequence[str], *, reason: str) -> Ruling:
    """Rule on calling ``ids`` of ``service`` back: more capacity harms nobody, so only the reason is asked for."""
    chosen = tuple(dict.fromkeys(ids))
    members = [service.by_id[each] for each in chosen if each in service.by_id]
    idle = [each.id for each in members if each.health is not Health.DRAINING]
    refusal = _unfit(service, chosen) or _wrong(idle, "is not draining", "are not draining") or _reasonless(reason)
    back = len(members) - len(idle)
    return Ruling(ids=chosen, effect=f"brings {back} of {len(service.members)} back", refusal=refusal)


def fingerprint(ids: Iterable[str]) -> str:
    """Return a short mark of a set of ids, the same in whatever order they come."""
    digest = hashlib.sha256()
    for each in sorted(set(ids)):
        text = each.encode(errors="surrogatepass")
        digest.update(b"%d:%b" % (len(text), text))
    return digest.hexdigest()[:16]


def changed(ids: Sequence[str], shown: str) -> str:
    """Why an action on "all that match" is refused: they are not those that the page ``shown``; empty when they are."""
    if fingerprint(ids) == shown:
        return ""
    return f"the set has changed: it is now {len(set(ids))}; look again"


def _unfit(service: Service, ids: Sequence[str]) -> str:
    """What is wrong with the choice itself."""
    if not ids:
        return "nothing is selected: choose the instances first"
    gone = [each for each in ids if each not in service.by_id]
    others = [each for each in ids if each in service.by_id and not steerable(service.by_id[each])]
    name = printable(service.name, 80)
    return _wrong(
        gone, f"is no instance of {name} any more: look again", f"are not in {name} any more: look again"
    ) or (
        _wrong(
            others,
            "cannot be drained from here: it is no Twostep node",
            "cannot be drained from here: they are no Twostep nodes",
        )
    )


def _wrong(ids: Sequence[str], one: str, several: str) -> str:
    """A sentence about some ids, empty when there are none."""
    if not ids:
        return ""
    named = ", ".join(printable(each, 80) for each in ids[:_NAMED])
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{named}{more} {one if len(ids) == 1 else several}"


def _reasonless(reason: str) -> str:
    if not reason.strip():
        return "say why: a reason is required, others will read it"
    if len(reason) > LONGEST_REASON:
        return f"the reason is {len(reason)} characters long: {LONGEST_REASON} at most"
    return ""
