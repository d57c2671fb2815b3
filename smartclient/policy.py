"""The seam between "who may be picked" and "who is picked next".

The control side calls ``Policy.build`` whenever the list changes; the data side calls ``Picker.pick`` for every
attempt: synchronous, no I/O. A policy belongs to one balancer and may carry its position from one picker to the next.
Availability is not the policy's business beyond asking: ``info.admits`` says who may be had. What is known of an
endpoint (latency, load report, attempts in flight) stands on the ``Endpoint``, outside pickers, and survives them.
"""

import random
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from smartclient.breaker import Reach
from smartclient.endpoint import Endpoint


class PickInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one pick asks for.

    ``exclude``: endpoints this call has tried; ``reach``: how ill one may be; ``key``: what the call is about (a user,
    a session), for policies that send the same key to the same endpoint; ``among``: those of the picker's
    ``candidates`` that have just said how busy they are (they have a fresh ``report``), in the order they were given;
    ``sound``: nobody is ill and nobody excluded, so that there is nothing to ask of anybody.
    """

    exclude: Collection[Endpoint] = ()
    reach: Reach = Reach.WELL
    key: str = ""
    among: Sequence[Endpoint] = ()
    sound: bool = False

    def admits(self, endpoint: Endpoint, now: float) -> bool:
        """Whether ``endpoint`` may be picked for this."""
        if self.sound:
            return True
        breaker = endpoint.breaker
        return (breaker.calm or breaker.available(now, self.reach)) and endpoint not in self.exclude


ANY = PickInfo()
SOUND = PickInfo(sound=True)


class Picker(Protocol):
    """Chooses among the endpoints it was built for."""

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """Return the next endpoint that ``info`` admits. ``now``: monotonic seconds. Raises ``NoEndpoints``."""
        ...

    def score(self, endpoint: Endpoint, now: float) -> float | None:
        """Return what it would judge ``endpoint`` by, less being better; None when it does not compare."""
        ...


@runtime_checkable
class AskingPicker(Picker, Protocol):
    """A picker that wants the load of some endpoints before it chooses among them."""

    def candidates(self, info: PickInfo, now: float) -> Sequence[Endpoint]:
        """Return the endpoints to ask for their load before the next ``pick``; none: pick at once.

        Consumes no turn: a call that is cancelled while it asks has changed nothing.
        """
        ...


class Policy(Protocol):
    """Builds pickers."""

    @property
    def name(self) -> str:
        """The word it is chosen by."""
        ...

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> Picker:
        """Return a picker over ``endpoints``, going on from where the one before stood."""
        ...
