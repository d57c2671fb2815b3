"""What a server's processes cost, and how busy the whole machine is, from Linux's ``/proc``.

Processor time and resident memory are a session's: a worker counts as much as the process that started it. Memory that
several processes share counts in each.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Usage(NamedTuple):
    """Processor seconds so far, and resident bytes now."""

    cpu: float
    resident: int


class _Status(NamedTuple):
    pid: int
    parent: int
    session: int
    usage: Usage


def usage(session: int) -> Usage:
    """What all processes of a session have used."""
    members = [each.usage for each in _all() if each.session == session]
    return Usage(sum(each.cpu for each in members), sum(each.resident for each in members))


def busy() -> float:
    """Seconds that the machine's cores have been busy, or were kept from running, all together."""
    # See proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    ticks = [int(field) for field in (PROC / "stat").read_text().partition("\n")[0].split()[1:9]]
    return sum(ticks[:3] + ticks[5:]) / _TICKS


def child_of(parent: int) -> int | None:
    """The process ``parent`` has started, if there is one."""
    return next((each.pid for each in _all() if each.parent == parent), None)


def _all() -> Iterator[_Status]:
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:  # it has just ended
                continue
            # See proc(5); the name, in brackets, may hold anything. The first field after it is the third.
            fields = text[text.rindex(")") + 2 :].split()
            cpu = (int(fields[11]) + int(fields[12])) / _TICKS
            yield _Status(int(entry.name), int(fields[1]), int(fields[3]), Usage(cpu, int(fields[21]) * _PAGE))
