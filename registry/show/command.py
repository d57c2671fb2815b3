"""What ``twostep lookup`` does once the question is known: show the answer, explain it, or follow it.

Each closes the directory and returns the exit status. In a pipe a line is columns between tabs; nothing that a
registry passes on from others reaches a terminal as it came.
"""

import asyncio
import json
import os
import select
import sys
from collections.abc import Mapping

import click
import msgspec

from registry.coldstart.directory import behind
from registry.consul.directory import ConsulDirectory
from registry.consul.reports import CheckReport
from registry.directory import Directory
from registry.errors import RegistryError
from registry.model import Snapshot
from registry.query import Query
from registry.show.changes import Lines, document, freshness
from registry.show.explain import cells, explain, similar
from registry.timing import SystemClock
from registry.wording import printable

LOOK_EVERY = 1.0  # seconds between two looks at how the registry fares


async def show_once(directory: Directory, query: Query, *, as_json: bool) -> int:
    """Print the answer."""
    try:
        snapshot = await directory.lookup(query.service, **query.filters)
        hint = "" if snapshot.instances else await _hint(directory, query)
    finally:
        await directory.close()
    now, count = SystemClock().time(), len(snapshot.instances)
    if as_json:
        click.echo(json.dumps(document(snapshot, now), indent=2))
    elif count and _on_terminal():
        from registry.show.tables import show_table  # noqa: PLC0415 - rich takes its time, and a pipe has no use for it

        summary = f"{count} instance{'s' * (count != 1)}; index {snapshot.index}, {freshness(snapshot, now)}"
        show_table(printable(f"{query.service} at {directory.source}"), snapshot.instances, summary)
    else:
        for instance in snapshot.instances:
            click.echo("\t".join(cells(instance)))
    return _status(count, directory, query, hint)


async def explain_once(directory: Directory, query: Query, *, as_json: bool) -> int:
    """Print every instance of the service, and why it is in the answer or out of it."""
    try:
        snapshot = await directory.lookup(query.service, passing_only=False)
        checks, lack = await _checks(directory, snapshot)
        explained = explain(query, snapshot.instances, checks)
        count = sum(each.included for each in explained)
        hint = "" if explained else await _hint(directory, query)
    finally:
        await directory.close()
    now = SystemClock().time()
    title = printable(f"{query.service} at {directory.source}") + f": {count} in, {len(explained) - count} out"
    summary = f"index {snapshot.index}, {freshness(snapshot, now)}" + (f"; {lack}" if lack else "")
    if as_json:
        whole = document(snapshot, now) | {"in": count, "out": len(explained) - count, "note": lack}
        for each, said in zip(whole["instances"], explained, strict=True):
            each |= {"in": said.included, "why": said.why, "checks": msgspec.to_builtins(said.checks)}
        click.echo(json.dumps(whole, indent=2))
    elif explained and _on_terminal():
        from registry.show.tables import show_explained  # noqa: PLC0415 - as above

        show_explained(title, explained, summary)
    else:
        for said in explained:
            name, address, health, _, _, weight, _ = cells(said.instance)
            mark = "in" if said.included else "out"
            click.echo("\t".join((mark, name, address, health, weight, "; ".join(said.why))))
        click.echo(f"{title}; {summary}", err=True)
    return _status(count, directory, query, hint)


async def follow(directory: Directory, query: Query, *, as_json: bool) -> int:
    """Print what changes, until the task is cancelled or nobody reads any more."""
    clock, lines = SystemClock(), Lines(query, as_json=as_json)
    # All instances are followed, so that it can be told what became of one that is no longer in the answer.
    watch = directory.watch(query.service, passing_only=False)

    async def changes() -> None:
        async for snapshot in watch:
            for line in (*lines.of_status(watch.status(), clock.time()), *lines.of_list(snapshot, clock.time())):
                click.echo(line)

    async def state() -> None:
        while not _reader_has_left():
            await clock.sleep(LOOK_EVERY)
            for line in lines.of_status(watch.status(), clock.time()):
                click.echo(line)

    tasks: list[asyncio.Task[None]] = []
    try:
        # A watch is quiet while the registry is away; the first answer, or none, is worth a word.
        await directory.lookup(query.service, passing_only=False)
        tasks = [asyncio.create_task(changes()), asyncio.create_task(state())]
        for done in (await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))[0]:
            done.result()
    except BrokenPipeError:
        pass  # nobody reads any more
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await directory.close()
    _discard_output()
    return 0


async def _checks(directory: Directory, snapshot: Snapshot) -> tuple[Mapping[str, tuple[CheckReport, ...]], str]:
    """Return the checks that can be had, and a word on why there are none."""
    registry = behind(directory)
    if snapshot.saved:
        return {}, "checks are not kept on disk"
    if not isinstance(registry, ConsulDirectory):
        return {}, f"{registry.source.partition('://')[0]}:// knows no checks; ask Consul itself"
    try:
        return await registry.checks(snapshot.service), ""
    except RegistryError as error:
        return {}, f"no checks: {printable(str(error))}"


async def _hint(directory: Directory, query: Query) -> str:
    """Say what may help somebody who found nothing."""
    registry = behind(directory)
    try:
        others = len((await directory.lookup(query.service, passing_only=False)).instances)
        if others:
            return f"{others} left out: --explain says why"
        if isinstance(registry, ConsulDirectory):
            names = similar(query.service, await registry.services())
            if names:
                return f"did you mean {' or '.join(printable(each) for each in names)}?"
    except RegistryError:
        pass  # the answer was good; this was about a next step
    return "is the name right, and is a node running?"


def _status(count: int, directory: Directory, query: Query, hint: str) -> int:
    if count:
        return 0
    why = f"; {hint}" if hint else ""
    click.echo(f"error: no instance of {printable(query.service)} at {directory.source}{why}", err=True)
    return 1


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _reader_has_left() -> bool:
    """Whether standard output is a pipe that nobody will read from any more."""
    try:
        output = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(output, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def _discard_output() -> None:
    """Let what is still in the buffer go nowhere, so that the interpreter's end has nothing to complain about."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
