"""Orders to drain, or to call back, and how far each has come: an order holds one step for each instance.

``waiting`` for its turn, ``asked``, ``draining`` with so many requests inside, and one of four ends: ``done``,
``refused`` with the reason, ``gone`` (not registered, or it answers no more), ``overdue`` with requests still inside.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

Verb = Literal["drain", "undrain"]


class Stage(StrEnum):
    """How far one instance has come."""

    WAITING = "waiting"
    ASKED = "asked"
    DRAINING = "draining"
    DONE = "done"
    REFUSED = "refused"
    GONE = "gone"
    OVERDUE = "overdue"


ENDS = frozenset({Stage.DONE, Stage.REFUSED, Stage.GONE, Stage.OVERDUE})


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of an order: ``at`` (seconds since the epoch) it came to this.

    ``inflight``: requests that were inside when it last said; ``reason``: why it went no further.
    """

    stage: Stage
    at: float
    inflight: int | None = None
    reason: str = ""

    @property
    def words(self) -> str:
        """All of it in a few words."""
        if self.stage is Stage.DRAINING and self.inflight is not None:
            return f"draining, {inside(self.inflight)}"
        return f"{self.stage}: {self.reason}" if self.reason else str(self.stage)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has asked for, as far as it is now; ``steps`` by instance id. ``begun_at``: since the epoch."""

    id: str
    kind: Verb
    service: str
    who: str
    why: str
    begun_at: float
    steps: Mapping[str, Step]

    @property
    def ended(self) -> bool:
        """Whether every instance has come to an end, good or bad."""
        return all(each.stage in ENDS for each in self.steps.values())


def inside(requests: int) -> str:
    """Return the number of requests inside, as words."""
    return "1 request is still inside" if requests == 1 else f"{requests} requests are still inside"
