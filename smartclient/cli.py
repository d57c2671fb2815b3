"""``twostep infer``: classify files, folders, or paths read from standard input.

Everything is lazy: paths are found as they are needed and results printed as they come, so a million images need no
more memory than a handful. Results go to standard output; failures, progress and the summary to standard error.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

import click

from registry.timing import Clock, SystemClock
from smartclient.client import AsyncSmartClient
from smartclient.errors import AccessDenied, BadInput, ClientError
from smartclient.explain import Explanation, told
from smartclient.inference import Classification, Classified
from smartclient.many import from_blocking
from smartclient.paths import EXTENSIONS, find_images, read_lines, shown
from smartclient.policies.select import DEFAULT, names

LOOKUP_WITHIN = 10.0  # seconds for the first look-up; a registry that is there needs a hundredth of one
ROW = "{:<44} {:<20} {:>6} {:<22} {:>9}"
NODES_SHOWN = 12
Ask = Callable[[Any], AsyncGenerator[Classified, None]]


@click.command()
@click.argument("service")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("--stdin", "from_stdin", is_flag=True, help="Read paths from standard input, one a line.")
@click.option(
    "--registry",
    metavar="URL",
    help="consul://HOST:PORT or static://HOST:PORT,HOST:PORT; default: TWOSTEP_REGISTRY, else this machine's agent.",
)
@click.option(
    "--cache",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Keep the list of nodes here, and start with it while the registry is away; default: TWOSTEP_CACHE_DIR.",
)
@click.option(
    "--policy",
    default=DEFAULT,
    show_default=True,
    help=f"How the next node is chosen: {', '.join(names())}. docs/policies.md says which to take when.",
)
@click.option("--hedge", is_flag=True, help="Ask a second node when the first is slow for once.")
@click.option(
    "--explain",
    is_flag=True,
    help="Tell for the first image, sent before the others, which nodes stood to choose with what scores, which one was"
    " chosen and why; on standard error, or with --json as `explanation` in that image's object.",
)
@click.option("--model", default="", metavar="NAME", help="Model of nodes that serve several.  [default: the first]")
@click.option("--version", default="", metavar="V", help="Version of the model.  [default: the newest]")
@click.option("--top", default=5, show_default=True, type=click.IntRange(1, 100), help="Classes per image in --json.")
@click.option("--concurrency", default=16, show_default=True, type=click.IntRange(1, 4096), help="Images at a time.")
@click.option(
    "--timeout",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds for one image, tries on other nodes included.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as results come.")
def infer(
    *,
    service: str,
    paths: tuple[Path, ...],
    from_stdin: bool,
    registry: str | None,
    cache: str | None,
    policy: str,
    hedge: bool,
    explain: bool,
    model: str,
    version: str,
    top: int,
    concurrency: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Classify images with the nodes of SERVICE: files, folders (searched through), or paths from --stdin.

    Exit status 1 when an image failed; each failure is told with its reason, and the others go on. Nodes that demand a
    bearer token get the one in the file TWOSTEP_NODE_TOKEN_FILE, or in TWOSTEP_NODE_TOKEN; those that speak https are
    trusted by the authority in TWOSTEP_CACERT, and shown TWOSTEP_CLIENT_CERT with TWOSTEP_CLIENT_KEY.

    \b
    Example:
      twostep infer digits photo.jpg models/digits/samples
      find . -name '*.jpg' | twostep infer photos --stdin --json > results.jsonl
      twostep infer photos holiday/ --model cats --version 3
    """
    if not paths and not from_stdin:
        raise click.UsageError("nothing to classify: give files or folders, or --stdin")
    if from_stdin and sys.stdin is None:
        raise click.UsageError("--stdin, but standard input is closed")
    images = chain(find_images(paths), read_lines(sys.stdin.fileno()) if from_stdin else ())
    first = next(images, None)
    if first is None:
        raise click.UsageError(f"no images there; folders are searched for {' '.join(sorted(EXTENSIONS))}")
    total = sum(1 for _ in find_images(paths)) if sys.stderr.isatty() and not from_stdin else None
    tally = Tally(SystemClock())
    client = AsyncSmartClient(service, registry, policy=policy, hedge=hedge, timeout=timeout, cache_dir=cache)
    with Screen(tally, total) as screen:
        ask = partial(client.classify_many, top=top, model=model, version=version, concurrency=concurrency)
        work = _run(client, ask, chain([first], images), screen, explain=explain, as_json=as_json)
        try:
            asyncio.run(work)
        finally:
            if tally.images:
                screen.error(tally.summary())
    if tally.failed:
        raise SystemExit(1)


async def _run(
    client: AsyncSmartClient, ask: Ask, images: Iterator[Path], screen: "Screen", *, explain: bool, as_json: bool
) -> None:
    async with (
        client,
        aclosing(from_blocking(images)) as paths,
        aclosing(ask(paths)) as results,
    ):
        await client.ready(timeout=LOOKUP_WITHIN)
        first, explanation = await _explained(client, ask, next(images)) if explain else (None, None)
        if not as_json:
            for line in told(explanation) if explanation else ():
                screen.error(line)
            screen.output(ROW.format("image", "label", "score", "node", "ms"))
        if first:
            _show(first, screen, as_json=as_json, explanation=explanation)
        async for each in results:
            _show(each, screen, as_json=as_json)


async def _explained(client: AsyncSmartClient, ask: Ask, path: Path) -> tuple[Classified, Explanation]:
    explanation = client.explain()
    with client.choices() as choices:
        async with aclosing(ask([path])) as results:
            each = await anext(results)
    return each, explanation | {"choices": choices}


def _show(each: Classified, screen: "Screen", *, as_json: bool, explanation: Explanation | None = None) -> None:
    screen.tally.count(each)
    if as_json:
        screen.output(json.dumps(_as_json(each) | ({"explanation": explanation} if explanation else {})))
    elif each.result is not None:
        screen.output(_as_row(each.image, each.result))
    else:
        screen.error(f"failed: {shown(each.image)}: {each.error}")
    screen.advance()


def _as_row(image: object, result: Classification) -> str:
    score, took = f"{result.score:.3f}", f"{result.milliseconds:.1f}"
    return ROW.format(shown(image), result.label, score, result.node, took)


def _as_json(each: Classified) -> dict[str, Any]:
    image = shown(each.image)
    if each.result is None:
        return {"image": image, "error": str(each.error), "reason": _reason(each.error)}
    result = each.result
    return {
        "image": image,
        "label": result.label,
        "score": result.score,
        "predictions": [{"label": one.label, "index": one.index, "score": one.score} for one in result.predictions],
        "node": result.node,
        "model": result.model,
        "version": result.version,
        "milliseconds": round(result.milliseconds, 3),
        "attempts": result.attempts,
    }


def _reason(error: ClientError | None) -> str:
    given = error.reason if isinstance(error, BadInput | AccessDenied) else ""
    return given or type(error).__name__


@dataclass
class Tally:
    """What came of the images so far, and since when."""

    clock: Clock
    images: int = 0
    failed: int = 0
    by_node: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._began = self.clock.monotonic()

    def count(self, each: Classified) -> None:
        """Add one image."""
        self.images += 1
        if each.result is None:
            self.failed += 1
        else:
            self.by_node[each.result.node] += 1

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / max(self.clock.monotonic() - self._began, 1e-9)

    def summary(self) -> str:
        """Return all of it in one line."""
        nodes = [f"{node}: {count}" for node, count in sorted(self.by_node.most_common(NODES_SHOWN))]
        if len(self.by_node) > NODES_SHOWN:
            nodes.append(f"and {len(self.by_node) - NODES_SHOWN} more nodes")
        line = f"{self.images} image{'s' * (self.images != 1)}, {self.failed} failed, {self.rate:.1f} images/s"
        return f"{line}; {', '.join(nodes)}" if nodes else line


class Screen:
    """Lines for people and programs; with a terminal on standard error, a progress bar below them."""

    def __init__(self, tally: Tally, total: int | None) -> None:
        self.tally = tally
        self._total = total
        self._progress: Any = None
        self._above_bar = False

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("Classifying"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._task = self._progress.add_task("images", total=self._total, rate="")
            self._progress.start()
            self._above_bar = sys.stdout.isatty()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def output(self, line: str) -> None:
        """Print a result."""
        if self._above_bar:
            self._print(line)
        else:
            click.echo(line)

    def error(self, line: str) -> None:
        """Print a failure or the summary."""
        if self._progress is not None:
            self._print(line)
        else:
            click.echo(line, err=True)

    def advance(self) -> None:
        """Move the bar to the tally."""
        if self._progress is not None:
            self._progress.update(self._task, completed=self.tally.images, rate=f"{self.tally.rate:.0f} images/s")

    def _print(self, line: str) -> None:
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
