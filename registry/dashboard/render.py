"""HTML from templates: pages, and the live parts of pages that a stream sends again when they have changed.

Everything a node, a check or a client wrote is hostile: besides escaping it for HTML, whatever a template prints is
made fit to be seen (no marks that turn the writing direction, no control characters) and cut to a length. A template
that names what is not there fails at once instead of printing nothing.

A part is one element with an id. Its ``key`` says what it was made of: while that is the same, it is not made again.
"""

import datetime as dt
from collections.abc import Hashable, Mapping
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import quote

from registry.errors import RegistryError

try:
    import jinja2
    from markupsafe import Markup
except ImportError as error:

    class MissingExtra(RegistryError):
        """The dashboard's own dependency is not installed."""

    raise MissingExtra("jinja2 is not installed; run: pip install 'twostep[dashboard]'") from error

from registry.wording import escaped, length

# Characters of one value on a page; a check's output has its own place and bound.
MOST = 300
MOST_OUTPUT = 20_000
MOST_SEGMENT = 1024
DASH = "–"


class Part(NamedTuple):
    """What a live part is made of: a template, its variables, and a key that changes when they do."""

    template: str
    variables: Mapping[str, Any]
    key: Hashable


class Renderer:
    """The templates of this package."""

    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("registry.dashboard"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            finalize=_harmless,
        )
        self._environment.filters.update(
            number=number, ms=ms, percent=percent, clock=clock, ago=ago, output=output, length=length, segment=segment
        )

    def page(self, template: str, **variables: Any) -> str:
        """Return a whole page."""
        return self._environment.get_template(template).render(variables)

    def alone(self, template: str, shell: object, **variables: Any) -> str:
        """Return a page that nothing streams to: a form, a refusal."""
        nothing = {"fresh": Markup(), "notice": Markup()}
        return self.page(template, shell=shell, parts=nothing, **variables)

    def part(self, part: Part) -> Markup:
        """Return one live part."""
        text = self._environment.get_template(part.template).render(part.variables)
        return Markup(text)  # noqa: S704 - the template has escaped it


def static(name: str) -> bytes:
    """Return a file that pages refer to. Raises ``FileNotFoundError``."""
    return resources.files("registry.dashboard").joinpath("static", name).read_bytes()


def number(value: float | None) -> str:
    """``1,234``, ``12.3``, ``0.04``; a dash for what nobody has said."""
    if value is None:
        return DASH
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def ms(value: float | None) -> str:
    """Milliseconds with their unit: ``8.2 ms``, ``1.4 s``."""
    if value is None:
        return DASH
    return f"{number(value / 1000)} s" if value >= 1000 else f"{number(round(value, 1))} ms"


def percent(share: float | None) -> str:
    """A share of 1 in percent: ``99.95 %``, never rounded up to all of it."""
    if share is None:
        return DASH
    shown = int(share * 10_000) / 100 if share < 1 else 100
    return f"{shown:g} %"


def clock(at: float | None) -> str:
    """A moment, seconds since the epoch, as a time of day in UTC, the same for everybody who looks."""
    if at is None:
        return DASH
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def ago(at: float | None, now: float) -> str:
    """How long ago a moment was."""
    return DASH if at is None else f"{length(max(0.0, now - at))} ago"


def output(text: str) -> str:
    """What a check said, with its lines, cut to a length."""
    lines = "\n".join(escaped(line) for line in text[:MOST_OUTPUT].splitlines())
    cut = f"\n… cut here; {len(text):,} characters in all" if len(text) > MOST_OUTPUT else ""
    return Markup.escape(lines + cut)


def segment(text: str) -> str:
    """A name as one segment of an address, whatever is in it; nobody needs to get to one that is longer than that."""
    return Markup(quote(text[:MOST_SEGMENT], safe="", errors="replace"))  # noqa: S704 - nothing but letters and percent signs


def _harmless(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Markup):
        return escaped(value) if len(value) <= MOST else escaped(value[:MOST]) + "…"
    return DASH if value is None else value
