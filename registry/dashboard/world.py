"""Everything a page may look at, at one moment. Pages read; whoever keeps these objects up to date is ``state``."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.dashboard.calls import Calls
from registry.dashboard.drains import Drains
from registry.dashboard.journal import Journal
from registry.dashboard.loads import Loads
from registry.dashboard.model import Fleet
from registry.dashboard.series import Series
from registry.dashboard.shelf import Shelf


@dataclass(frozen=True, slots=True)
class World:
    """What there is to see.

    ``now``: seconds since the epoch. ``cluster``: what this fleet is called. ``floor``: passing instances that a drain
    has to leave. ``about``: facts about this dashboard in words, without secrets. ``can_act``: an operator could sign
    in. ``shelf``: what pages work out alike.
    """

    now: float
    fleet: Fleet
    loads: Loads
    calls: Calls
    journal: Journal
    series: Series
    drains: Drains
    cluster: str
    floor: int
    about: Mapping[str, str]
    can_act: bool
    shelf: Shelf = field(default_factory=Shelf)
