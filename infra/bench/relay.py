"""A TCP relay on loopback that counts what a server sends: how many bytes a client received, whatever it is."""

import asyncio
from typing import Self

_CHUNK = 1 << 18


class Relay:
    """Passes connections on to ``host:port``; ``async with`` starts and ends it. ``received`` counts bytes back."""

    def __init__(self, target: str) -> None:
        self.received = 0
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where to connect to instead."""
        if self._server is None:
            raise RuntimeError("the relay has not been started")
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection(self._host, self._port)
            try:
                await asyncio.gather(self._pass(reader, downstream), self._pass(upstream, writer, count=True))
            finally:
                downstream.close()
        except OSError:
            pass  # either end went away
        finally:
            writer.close()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, count: bool = False) -> None:
        while data := await source.read(_CHUNK):
            self.received += len(data) if count else 0
            sink.write(data)
            await sink.drain()
        sink.write_eof()
