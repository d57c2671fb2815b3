"""A module of this folder as a process of its own that is asked by lines and answers with lines of JSON.

What is measured must not share a Python with what measures it.
"""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any, cast

from infra.fleet import FleetError
from infra.leash import leashed

# Longer than the slowest step of a child, the joining of thousands of readers.
PATIENCE = 120.0
# Bytes of a line: a quick arm answers tens of thousands of requests in a turn, and tells the time of each.
_LONGEST_LINE = 16 * 1024 * 1024


class Child:
    """A Python module of this folder as a process that answers lines with JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name

    @classmethod
    @asynccontextmanager
    async def start(cls, module: str, *arguments: str) -> AsyncIterator["Child"]:
        """Start it; it is killed at the end."""
        pipe = asyncio.subprocess.PIPE
        command = leashed([sys.executable, "-P", "-m", module, *arguments])
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=_LONGEST_LINE)
        try:
            yield cls(process, module)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def line(self) -> dict[str, Any]:
        """Its next line."""
        async with asyncio.timeout(PATIENCE):
            text = await cast("asyncio.StreamReader", self._process.stdout).readline()
        if not text:
            raise FleetError(f"{self._name} ended with status {await self._process.wait()}")
        return cast("dict[str, Any]", json.loads(text))

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Its next line that is as the condition says."""
        while not condition(line := await self.line()):
            pass
        return line

    def ask(self, text: str) -> None:
        """Send it a line."""
        cast("asyncio.StreamWriter", self._process.stdin).write(text.encode() + b"\n")


@contextmanager
def running(module: str) -> Iterator[str]:
    """Run a module that prints its address and serves there; give the address, end it at the end."""
    command = leashed([sys.executable, "-P", "-m", module])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield cast("IO[str]", process.stdout).readline().strip()
    finally:
        process.kill()
        process.communicate()


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: of few values, the 99th is the largest."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
