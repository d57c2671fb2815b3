"""A client that follows one service and tells how it fares, as a process of its own.

``python -m infra.bench.watcher REGISTRY SERVICE`` prints a JSON line for every list it is given: ``at`` (seconds of the
machine's monotonic clock), ``instances`` and ``revision`` (of the first instance). A line on standard input is
answered with ``stall_ms`` and ``stall_wall_ms``, the longest its event loop was held since the line before, and
``rss_mb``. Stalls are taken in processor time of the loop's thread, which does not count what other processes took,
and in wall time, which does.
"""

import asyncio
import json
import os
import sys
import time

from infra.bench.catalog import revision_of
from registry import connect

TICK = 0.001


class Stalls:
    """The longest turns of the event loop."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    async def watch(self) -> None:
        """Look at both clocks every millisecond, for ever."""
        while True:
            cpu, wall = time.thread_time(), time.perf_counter()
            await asyncio.sleep(TICK)
            self.cpu = max(self.cpu, time.thread_time() - cpu)
            self.wall = max(self.wall, time.perf_counter() - wall - TICK)


async def main(address: str, service: str) -> None:
    """Follow, report and answer until standard input ends."""
    stalls = Stalls()
    asking = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asking), sys.stdin)
    tasks = [asyncio.create_task(stalls.watch()), asyncio.create_task(follow(address, service))]
    while await asking.readline():
        report = {"stall_ms": stalls.cpu * 1000, "stall_wall_ms": stalls.wall * 1000, "rss_mb": resident_mb("self")}
        print(json.dumps(report), flush=True)
        stalls.cpu = stalls.wall = 0.0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def follow(address: str, service: str) -> None:
    """Print a line for every list."""
    directory = connect(address)
    try:
        async for snapshot in directory.watch(service, passing_only=False):
            at = time.monotonic()
            revision = revision_of(dict(snapshot.instances[0].meta)) if snapshot.instances else -1
            print(json.dumps({"at": at, "instances": len(snapshot.instances), "revision": revision}), flush=True)
    finally:
        await directory.close()


def resident_mb(process: str) -> float:
    """Resident memory of a process (an id, or ``self``) in MB of 10^6 bytes."""
    with open(f"/proc/{process}/statm") as file:  # noqa: PTH123 - one read of a kernel file
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
