"""The body of an answer that is read by whoever asked for it, piece by piece as aiohttp receives it."""

import asyncio
from typing import Self

import aiohttp

from smartclient.wire.progress import FAILURES, Progress


class BodyStream:
    """See ``Stream``. ``within``: seconds for each piece. A read that is cancelled may be repeated."""

    def __init__(self, response: aiohttp.ClientResponse, progress: Progress, *, within: float) -> None:
        self._response = response
        self._progress = progress
        self._within = within
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._closed:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._within):
                piece = await self._response.content.readany()
        except FAILURES as error:
            await self.close()
            raise self._progress.failure(error, within=self._within, connect_within=0.0) from error
        if not piece:
            await self.close()
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        """See ``Stream``."""
        if not self._closed:
            self._closed = True
            self._response.release()  # a connection with something left unread is dropped by this
            await self._response.wait_for_close()
