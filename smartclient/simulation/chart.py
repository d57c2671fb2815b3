"""The p99 of every policy in every scenario as an SVG: a panel for each scenario, a bar for each policy.

All panels share one logarithmic axis, so that bars compare across them. Written by hand to be small and to need
nothing; colours follow the reader's light or dark screen, and the background is the page's own.
"""

import math
from collections.abc import Iterator, Mapping
from html import escape

from smartclient.simulation.oracle import NAME as ORACLE
from smartclient.simulation.result import Result

COLUMNS = 3
PANEL = 348  # width of a panel, in pixels
NAMES = 104  # of which its policies' names take
VALUES = 108  # and the figures at the right
BAR, GAP = 10, 5
HEAD, FOOT = 30, 34
MARGIN = 12
TITLE = 34
STYLE = """
  text { font: 11px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-size: 14px; font-weight: 600 } .name { font-weight: 600 } .end { text-anchor: end }
  .tick { font-size: 9px; text-anchor: middle; fill: #6e7781 } .grid { stroke: #d0d7de; stroke-width: 1 }
  .bar { fill: #8c959f } .default { fill: #0969da } .oracle { fill: #1a7f37 } .failed { fill: #cf222e }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .tick { fill: #8d96a0 } .grid { stroke: #30363d }
    .bar { fill: #6e7681 } .default { fill: #4493f8 } .oracle { fill: #3fb950 } .failed { fill: #f85149 }
  }
"""


def draw(results: Mapping[str, Mapping[str, Result]], default: str) -> str:
    """Return the SVG. ``results``: by scenario and policy; ``default``: the policy to stand out."""
    axis = Axis([each.p99_ms for policies in results.values() for each in policies.values()])
    columns = min(COLUMNS, len(results))
    tallest = max(len(policies) for policies in results.values())
    height = HEAD + tallest * (BAR + GAP) + FOOT
    rows = math.ceil(len(results) / columns)
    size = (2 * MARGIN + columns * PANEL, TITLE + rows * height + MARGIN)
    shown = f'viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" height="{size[1]}" role="img"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {shown} aria-label="p99 of each policy in each scenario">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{MARGIN}" y="22">99th percentile in milliseconds, logarithmic: less is better</text>',
    ]
    for number, (scenario, policies) in enumerate(results.items()):
        row, column = divmod(number, columns)
        lines.append(f'<g transform="translate({MARGIN + column * PANEL} {TITLE + row * height})">')
        lines += _panel(scenario, policies, default, axis)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


class Axis:
    """Milliseconds to pixels, logarithmic, from the whole power of ten or half of one below the least."""

    def __init__(self, values: list[float]) -> None:
        least, most = max(min(values), 1e-3), max(*values, 1e-2)
        self.ticks = [tick for power in range(-3, 9) for tick in (10.0**power, 3 * 10.0**power)]
        low = max(tick for tick in self.ticks if tick <= least * 0.999)
        high = min(tick for tick in self.ticks if tick >= most)
        self.ticks = [tick for tick in self.ticks if low <= tick <= high]
        self._low, self._span = math.log(low), math.log(high / low)

    def at(self, value: float) -> float:
        """Pixels from the axis's beginning."""
        return (math.log(max(value, 1e-3)) - self._low) / self._span * (PANEL - NAMES - VALUES)


def _panel(scenario: str, policies: Mapping[str, Result], default: str, axis: Axis) -> Iterator[str]:
    bottom = HEAD + len(policies) * (BAR + GAP)
    yield f'<text class="name" x="{NAMES}" y="18">{escape(scenario)}</text>'
    for tick in axis.ticks:
        x = NAMES + axis.at(tick)
        yield f'<line class="grid" x1="{x:.1f}" y1="{HEAD - 4}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{bottom + 12}">{_short(tick)}</text>'
    for number, (policy, each) in enumerate(policies.items()):
        y = HEAD + number * (BAR + GAP)
        kind = {ORACLE: "oracle", default: "default"}.get(policy, "bar")
        width = axis.at(each.p99_ms)
        failed = f' <tspan class="failed">{each.errors:,} failed</tspan>' if each.errors else ""
        yield f'<text class="end" x="{NAMES - 6}" y="{y + BAR - 1}">{escape(policy)}</text>'
        yield f'<rect class="{kind}" x="{NAMES}" y="{y}" width="{width:.1f}" height="{BAR}" rx="1.5"/>'
        yield f'<text x="{NAMES + width + 5:.1f}" y="{y + BAR - 1}">{each.p99_ms:,.0f}{failed}</text>'


def _short(milliseconds: float) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g}"
