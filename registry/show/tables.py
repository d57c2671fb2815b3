"""Look-ups on a terminal: a line for each instance, and below it an explanation; never wider than there is room.

What does not fit is cut and ends in ``…``; in a pipe everything is whole.
"""

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from registry.model import Instance
from registry.show.explain import Explanation, cells

COLUMNS = ("id", "address", "health", "zone", "version", "weight", "tags")
COLOURS = {"passing": "green", "warning": "yellow", "critical": "red", "draining": "blue"}
_ALWAYS = 3  # of the columns; the others are left out when there is nothing in them
_INDENT = 5  # what "out" takes, and the two spaces after it
_NARROWEST = 8


def show_table(title: str, instances: Sequence[Instance], summary: str) -> None:
    """Print a line for each instance below the columns' names."""
    console = Console(highlight=False)
    rows = [cells(each) for each in instances]
    head, *lines = _aligned([COLUMNS, *rows], _used(rows), console.width)
    console.print(Text(title, style="bold"))
    console.print(Text(head, style="dim"), no_wrap=True, overflow="ellipsis")
    for row, line in zip(rows, lines, strict=True):
        console.print(Text(line, style=COLOURS[row[2]]), no_wrap=True, overflow="ellipsis")
    console.print(Text(summary, style="dim"))


def show_explained(title: str, explained: Sequence[Explanation], summary: str) -> None:
    """Print a line for each instance that says whether it is in or out, and below it why."""
    console = Console(highlight=False)
    rows = [cells(each.instance) for each in explained]
    named = [(*row[:-2], f"weight {row[-2]}", row[-1]) for row in rows]
    lines = _aligned(named, _used(rows), console.width - _INDENT)
    console.print(Text(title, style="bold"))
    for each, line in zip(explained, lines, strict=True):
        mark = "in " if each.included else "out"
        said = Text.assemble((mark, "bold"), "  ", (line, COLOURS[each.instance.health]))
        console.print(said, no_wrap=True, overflow="ellipsis")
        for reason in each.why:
            console.print(Padding(Text(reason), (0, 0, 0, _INDENT)))
    console.print(Text(summary, style="dim"))


def _used(rows: Sequence[tuple[str, ...]]) -> list[int]:
    """Which columns have something to say."""
    return [at for at in range(len(COLUMNS)) if at < _ALWAYS or any(row[at] != "-" for row in rows)]


def _aligned(rows: Sequence[tuple[str, ...]], shown: list[int], room: int) -> list[str]:
    """Lay the columns ``shown`` out, two spaces apart, taking from the widest until ``room`` is enough."""
    widths = [min(room, max((cell_len(row[at]) for row in rows), default=0)) for at in shown]
    while sum(widths) + 2 * (len(widths) - 1) > room and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    return ["  ".join(_cut(row[at], width) for at, width in zip(shown, widths, strict=True)).rstrip() for row in rows]


def _cut(text: str, width: int) -> str:
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
