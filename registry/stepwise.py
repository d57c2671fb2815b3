"""What watches have in common: they work only while somebody awaits them, and lose nothing when that is cancelled."""

import asyncio
from abc import ABC, abstractmethod
from typing import Self

from registry.model import Snapshot
from registry.waiting import cancel


class StepwiseWatch(ABC):
    """The iterator of a ``Watch``: ``anext`` runs ``_next_change`` until there is a snapshot to deliver.

    What a step has found stays in ``_undelivered`` until somebody has it, so a cancelled ``anext`` loses no change.
    """

    def __init__(self) -> None:
        self._undelivered: Snapshot | None = None
        self._closed = False
        self._step: asyncio.Task[None] | None = None

    @abstractmethod
    async def _next_change(self) -> None:
        """Work towards the next snapshot; returning without one is fine, it is called again."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Snapshot:
        if self._step is not None:
            raise RuntimeError("this watch is already being awaited; make another one")
        while self._undelivered is None:
            if self._closed:
                raise StopAsyncIteration
            step = self._step = asyncio.ensure_future(self._next_change())
            try:
                await asyncio.wait({step})
            finally:
                await cancel(step)
                self._step = None
            if not step.cancelled():
                step.result()
        snapshot, self._undelivered = self._undelivered, None
        return snapshot

    async def aclose(self) -> None:
        """End it; twice is fine."""
        self._closed = True
        if self._step is not None:
            await cancel(self._step)
