"""Out of service and back, without ending: what an operator does before working on a machine.

Stepping aside says so on ``/readyz`` and in the registry, goes on answering for a grace while clients hear of it, then
refuses new work. Coming back undoes that. A node that is ending cannot be called back.
"""

import asyncio

from node.errors import Draining, Overloaded
from node.intake import Intake
from node.lifecycle import Lifecycle, State
from node.membership import Membership
from registry.timing import Clock


class Aside:
    """Steps a node aside. ``ending`` is set when the node is told to stop; ``grace`` in seconds."""

    def __init__(
        self, node: str, lifecycle: Lifecycle, intake: Intake, membership: Membership, *, clock: Clock, grace: float
    ) -> None:
        self.ending = False
        self._node = node
        self._lifecycle = lifecycle
        self._intake = intake
        self._membership = membership
        self._clock = clock
        self._grace = grace
        self._refusing: asyncio.Task[None] | None = None

    async def step(self, reason: str) -> None:
        """Step aside; twice is once. Raises ``Overloaded`` while the node is still loading."""
        if self._lifecycle.leaving:
            return
        if not self._lifecycle.ready:
            raise Overloaded(f"{self._node} is still {self._lifecycle.state}; drain it when it serves")
        self._lifecycle.to(State.DRAINING)
        await self._membership.out_of_service(reason or "drained by an operator")
        self._refusing = asyncio.ensure_future(self._refuse_later())

    async def back(self) -> None:
        """Undo ``step``. Raises ``Draining`` when the node is ending."""
        if self.ending:
            raise Draining(f"{self._node} is stopping and cannot be called back; start another")
        self.close()  # the next time it is drained it has the whole grace again
        self._lifecycle.back()
        if self._lifecycle.ready:
            self._intake.refusing = False
            await self._membership.in_service()

    def close(self) -> None:
        """Forget what was to come."""
        if self._refusing is not None:
            self._refusing.cancel()

    async def _refuse_later(self) -> None:
        await self._clock.sleep(self._grace)
        self._intake.refusing = True
