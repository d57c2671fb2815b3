"""A node as a process: started, drained at the first SIGTERM or SIGINT, hurried by a second one.

Signals are handled here, because aiohttp's own handler would close the listener first.
"""

import asyncio
import signal
from collections.abc import Callable

from prometheus_client import disable_created_metrics

from node.config import NodeConfig
from node.machine import bound_heap
from node.server import NodeServer


async def serve(config: NodeConfig, *, announce: Callable[[NodeServer], None] | None = None) -> None:
    """Run a node until SIGTERM or SIGINT, drain it and return; ``announce`` is called once it is ready.

    Raises what ``NodeServer`` and ``NodeServer.start`` raise.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call] # a second series of every counter, for nobody
    bound_heap()
    node = NodeServer(config)
    loop = asyncio.get_running_loop()
    leave = asyncio.Event()

    def signalled() -> None:
        node.hurry() if leave.is_set() else leave.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    starting = asyncio.ensure_future(node.start())
    leaving = asyncio.ensure_future(leave.wait())
    try:
        await asyncio.wait({starting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            if announce is not None:
                announce(node)
            await leaving
            await node.drain()
    finally:
        for task in (starting, leaving):
            task.cancel()
        await asyncio.gather(starting, leaving, return_exceptions=True)
        await node.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
