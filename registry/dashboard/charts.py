"""Drawings as inline SVG, made on the server: sparkline, timeline, histogram of latencies, bar of health. Pure.

Every drawing says in ``aria-label`` what is seen on it. Numbers are formatted here; the only text from outside are
labels, which are escaped and cut. There is no ``style`` in them, which the page's security policy would drop: sizes are
attributes, colours are classes. What nobody measured is a gap in a line, never a zero and never bridged.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from markupsafe import Markup, escape

from registry.dashboard.model import SEVERITY, Quantiles
from registry.dashboard.render import ms, number
from registry.wording import length, printable

Points = Sequence[tuple[float, float | None]]

# Seconds that a line covers, up to its newest point.
SPAN = 900.0
# Points come every ten seconds; where several are missing, nobody was looking.
_GAP = 45.0
# Bars of a histogram for each power of ten: two of the buckets of 10 % that clients count in. A number that did not
# divide them evenly would draw a comb that nobody measured.
_BARS_A_DECADE = 12
_LEAST_MS, _MOST_MS = 0.1, 1e6
_BAR_WIDTH, _BAR_HEIGHT = 120.0, 12.0
# Of a bar's width: one critical instance among a thousand must be seen.
_LEAST_SEGMENT = 4.0


def sparkline(points: Points, label: str = "requests/s") -> Markup:
    """Draw the last 15 minutes, 96 by 24, from zero up; points are (seconds, value or None), oldest first."""
    shown = _recent(points)
    top = max((value for _, value in shown if value is not None), default=0.0) or 1.0
    runs = _runs(shown, left=1.0, right=95.0, base=22.0, height=20.0, top=top)
    return _drawing(
        96,
        24,
        f"{label}: {_told(shown, number)}",
        f'<path class="axis" d="M0 23H96"/>{_line(runs)}',
        extra=' class="chart spark"',
    )


def timeline(points: Points, unit: str, label: str) -> Markup:
    """Draw the last 15 minutes as a line with its axes, 480 by 160; the hours are UTC, for the data may be old.

    ``unit`` is written at the axis and decides how values look: ``ms`` becomes seconds where that is shorter.
    """
    shown = _recent(points)
    form = ms if unit == "ms" else number
    name = f"{label}, {unit}" if unit and unit != label else label
    if not any(value is not None for _, value in shown):
        return _nothing(480, 160, f"{name}: nothing measured yet")
    left, right, base, height = 56.0, 472.0, 132.0, 104.0
    top = _ceiling(max(value for _, value in shown if value is not None))
    runs = _runs(shown, left=left, right=right, base=base, height=height, top=top)
    last = shown[-1][0]
    grid = "".join(
        f'<path class="axis" d="M{_at(left)} {_at(base - share * height)}H{_at(right)}"/>'
        + _text(left - 8, base - share * height + 4, form(top * share), "end")
        for share in (0.0, 0.5, 1.0)
    )
    ticks = "".join(
        _text(right - share * (right - left), 152, _time(last - share * SPAN) + ("" if share else " UTC"), anchor)
        for share, anchor in ((1.0, "start"), (2 / 3, "middle"), (1 / 3, "middle"), (0.0, "end"))
    )
    body = f"{_text(0, 12, unit, 'start')}{grid}{_area(runs, base)}{_line(runs)}{ticks}"
    return _drawing(480, 160, f"{name}: {_told(shown, form)}", body)


def histogram(buckets: Iterable[tuple[float, int]], marks: Quantiles) -> Markup:
    """Draw latencies on a logarithmic axis, 640 by 200, with marks at p50, p95 and p99.

    ``buckets`` are (upper edge in milliseconds, count), in any order and of any width.
    """
    bars: dict[int, int] = {}
    for edge, count in buckets:
        if count > 0 and math.isfinite(edge):
            # A hair below the edge: an upper edge belongs to the bar that it ends.
            at = math.floor(math.log10(_clamped(edge)) * _BARS_A_DECADE - 1e-6)
            bars[at] = bars.get(at, 0) + count
    if not bars:
        return _nothing(640, 200, "No latencies have been reported yet")
    quantiles = [
        (name, value)
        for name, value in (("p50", marks.p50), ("p95", marks.p95), ("p99", marks.p99))
        if value is not None and math.isfinite(value)
    ]
    ends = [*bars, *(math.floor(math.log10(_clamped(value)) * _BARS_A_DECADE - 1e-6) for _, value in quantiles)]
    # Never narrower than a power of ten, so that one bar does not fill the chart.
    first, last = min(ends), max(ends) + 1
    spare = max(0, _BARS_A_DECADE - (last - first))
    first, last = first - spare // 2, last + spare - spare // 2
    # Room at the right for the words of a mark there: on the left they would cross the mark before.
    left, right, base, height = 56.0, 560.0, 172.0, 124.0
    step, most = (right - left) / (last - first), max(bars.values())

    def x(value: float) -> float:
        return left + (math.log10(_clamped(value)) * _BARS_A_DECADE - first) * step

    drawn = "".join(
        f'<rect class="bar" x="{_at(left + (at - first) * step + 0.5)}" y="{_at(base - _tall(count, most, height))}" '
        f'width="{_at(max(1.0, step - 1))}" height="{_at(_tall(count, most, height))}"/>'
        for at, count in sorted(bars.items())
    )
    lines = "".join(
        f'<path class="mark" d="M{_at(x(value))} {_at(14.0 * row + 12)}V{_at(base)}"/>'
        + _text(x(value) + 4, 12 + 14 * row, f"{name} {ms(value)}", "start")
        for row, (name, value) in enumerate(quantiles)
    )
    ticks = "".join(_text(x(value), base + 16, ms(value), "middle") for value in _ticks(first, last))
    axis = f'<path class="axis" d="M{_at(left)} {_at(base)}H{_at(right)}"/>'
    scale = _text(left - 8, base - height + 4, number(most), "end") + _text(left - 8, base, "0", "end")
    total, peak = sum(bars.values()), max(bars, key=lambda each: bars[each])
    words = f"Latencies of {_many(total, 'attempt')}, most often {ms(_edge(peak))} to {ms(_edge(peak + 1))}"
    words += "".join(f"; {name} {ms(value)}" for name, value in quantiles)
    return _drawing(640, 200, words, axis + drawn + lines + ticks + scale)


def health_bar(counts: Mapping[str, int]) -> Markup:
    """Draw how many are of each health, worst first, 120 by 12.

    Segments differ in form too: critical is tall, warning striped, draining hollow, passing a flat line.
    """
    held = [(word.value, counts.get(word, 0)) for word in SEVERITY if counts.get(word, 0) > 0]
    words = ", ".join(f"{number(count)} {word}" for word, count in held) or "no instances"
    total = sum(count for _, count in held)
    widths = [max(_LEAST_SEGMENT, _BAR_WIDTH * count / total) for _, count in held]
    if widths:
        widths[widths.index(max(widths))] -= sum(widths) - _BAR_WIDTH
    body, x = "", 0.0
    for (word, _), width in zip(held, widths, strict=True):
        body += f'<g class="{word}">{_segment(word, x, width)}</g>'
        x += width
    body = body or '<path class="axis" d="M0 6H120"/>'
    return _drawing(_BAR_WIDTH, _BAR_HEIGHT, words, body, extra=' width="120" height="12"')


def _segment(word: str, x: float, width: float) -> str:
    inner = max(1.0, width - 1)
    if word == "critical":
        return f'<rect x="{_at(x)}" y="0" width="{_at(inner)}" height="12" fill="currentColor"/>'
    if word == "warning":
        return (
            f'<path d="M{_at(x)} 6h{_at(inner)}" fill="none" stroke="currentColor" stroke-width="10" '
            f'stroke-dasharray="2 1"/>'
        )
    if word == "draining":
        return (
            f'<rect x="{_at(x + 0.75)}" y="2.75" width="{_at(max(0.5, inner - 1.5))}" height="6.5" fill="none" '
            f'stroke="currentColor" stroke-width="1.5"/>'
        )
    return f'<rect x="{_at(x)}" y="3" width="{_at(inner)}" height="6" fill="currentColor"/>'


def _recent(points: Points) -> list[tuple[float, float | None]]:
    if not points:
        return []
    since = points[-1][0] - SPAN
    return [(at, value if value is not None and math.isfinite(value) else None) for at, value in points if at >= since]


def _runs(
    points: Points, *, left: float, right: float, base: float, height: float, top: float
) -> list[list[tuple[float, float]]]:
    """Places of the points, a list for each stretch without a gap."""
    runs: list[list[tuple[float, float]]] = []
    before: float | None = None
    for at, value in points:
        if value is None:
            before = None
            continue
        if before is None or at - before > _GAP:
            runs.append([])
        x = right - (points[-1][0] - at) / SPAN * (right - left)
        runs[-1].append((x, base - max(0.0, value) / top * height))
        before = at
    return runs


def _line(runs: Iterable[Sequence[tuple[float, float]]]) -> str:
    # A round cap, so that a single point between two gaps is a dot.
    path = "".join(
        "M" + "L".join(f"{_at(x)} {_at(y)}" for x, y in run) + ("h0" if len(run) == 1 else "") for run in runs
    )
    return f'<path class="line" stroke-linecap="round" d="{path}"/>' if path else ""


def _area(runs: Iterable[Sequence[tuple[float, float]]], base: float) -> str:
    path = "".join(
        f"M{_at(run[0][0])} {_at(base)}L"
        + "L".join(f"{_at(x)} {_at(y)}" for x, y in run)
        + f"L{_at(run[-1][0])} {_at(base)}Z"
        for run in runs
    )
    return f'<path class="area" d="{path}"/>' if path else ""


def _told(points: Points, written: Callable[[float | None], str]) -> str:
    """A line in words."""
    values = [value for _, value in points if value is not None]
    if not values:
        return "nothing measured yet"
    now = points[-1][1]
    span = length(points[-1][0] - points[0][0])
    words = (
        f"{written(now) if now is not None else 'nothing'} at last, {written(min(values))} to {written(max(values))}"
    )
    return f"{words} within {span}" + (", with gaps" if len(values) < len(points) else "")


def _ceiling(value: float) -> float:
    """The next round number that is not below."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(round_ * power for round_ in (1, 2, 4, 5, 10) if round_ * power >= value * (1 - 1e-9))


def _ticks(first: int, last: int) -> Iterator[float]:
    """Round latencies for the axis; fewer of them on a long one."""
    few = last - first > 2 * _BARS_A_DECADE
    for power in range(math.floor(first / _BARS_A_DECADE), math.ceil(last / _BARS_A_DECADE) + 1):
        for round_ in (1,) if few else (1, 2, 5):
            at = (power + math.log10(round_)) * _BARS_A_DECADE
            if first - 1e-6 <= at <= last + 1e-6:
                yield float(f"{round_}e{power}")


def _edge(bar: int) -> float:
    return float(10 ** (bar / _BARS_A_DECADE))


def _clamped(value: float) -> float:
    return min(_MOST_MS, max(_LEAST_MS, value))


def _tall(count: int, most: int, height: float) -> float:
    # At least a pixel: what happened once is seen beside what happened a million times.
    return max(1.0, count / most * height)


def _time(at: float) -> str:
    minutes = int(at // 60) % (24 * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _many(count: int, what: str) -> str:
    return f"{number(count)} {what}" + ("" if count == 1 else "s")


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{_at(x)}" y="{_at(y)}" text-anchor="{anchor}">{escape(printable(words, 80))}</text>'


def _nothing(width: float, height: float, words: str) -> Markup:
    return _drawing(width, height, words, _text(width / 2, height / 2, words, "middle"))


def _drawing(width: float, height: float, words: str, body: str, extra: str = ' class="chart"') -> Markup:
    label = escape(printable(words, 300))
    return Markup(  # noqa: S704 - numbers, classes of ours, and text that is escaped above
        f'<svg{extra} viewBox="0 0 {_at(width)} {_at(height)}" role="img" aria-label="{label}">{body}</svg>'
    )
