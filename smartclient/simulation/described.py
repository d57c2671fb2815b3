"""From what the user names to scenarios and policies: ``all``, one by its name, or a TOML file that describes a fleet.

Whatever is wrong with a name or a file is told in one line (``BadOption``).
"""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from smartclient.errors import BadOption
from smartclient.policies import select
from smartclient.simulation.oracle import NAME as ORACLE
from smartclient.simulation.scenario import Scenario
from smartclient.simulation.scenarios import SCENARIOS

ALL = "all"


def scenarios(wanted: Iterable[str]) -> Sequence[Scenario]:
    """Return those that are ``wanted``, each once, in order. Raises ``BadOption``."""
    found: dict[str, Scenario] = {}
    for name in wanted:
        if name == ALL:
            found |= SCENARIOS
        elif name in SCENARIOS:
            found[name] = SCENARIOS[name]
        elif name.endswith(".toml"):
            described = read(Path(name))
            found[described.name] = described
        else:
            known = ", ".join(SCENARIOS)
            raise BadOption(f"no scenario is called {name!r}; choose one of: {known}, {ALL}, or a file NAME.toml")
    return list(found.values())


def policies(wanted: Iterable[str]) -> Sequence[str]:
    """Return the names that are ``wanted``, each once, in order; the oracle comes last. Raises ``BadOption``."""
    found: dict[str, None] = {}
    for name in wanted:
        if name not in {ALL, ORACLE}:
            select.named(name)  # says what is wrong with it
        found |= dict.fromkeys([*select.names(), ORACLE] if name == ALL else [name])
    return sorted(found, key=ORACLE.__eq__)


def read(path: Path) -> Scenario:
    """Return the scenario that a TOML file describes, called by its file's name unless it says another."""
    try:
        described = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert({"name": path.stem, **described}, Scenario)
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadOption(f"{path}: {error}") from error
