"""From what the user names to scenarios and policies: ``all``, a name (of a policy with its options), a TOML file.

Whatever is wrong with a name or a file is told in one line (``BadOption``).
"""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from smartclient.errors import BadOption
from smartclient.policies import select
from smartclient.simulation.oracle import NAME as ORACLE
from smartclient.simulation.scenario import Scenario
from smartclient.simulation.scenarios import SCENARIOS

ALL = "all"
TOLD = ("split", "zone")
"""Policies that must be told something, which ``told`` does where the user has not."""


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
        if name not in {ALL, ORACLE, *TOLD}:
            select.named(name)  # says what is wrong with it
        found |= dict.fromkeys([*select.names(), ORACLE] if name == ALL else [name])
    return sorted(found, key=ORACLE.__eq__)


def told(policy: str, scenario: Scenario, client: int) -> str:
    """Return ``policy`` with what a real client would have told it; ``client`` is its number, from 0.

    ``zone``: clients are spread over the zones as the nodes are. ``split``: by the weights that the versions have.
    """
    if policy == "zone":
        zones = [each.zone for each in scenario.nodes for _ in range(each.count)]
        return "zone?" + urlencode({"zone": zones[client % len(zones)] or "-"})
    if policy == "split":
        versions: Counter[str] = Counter()
        for each in scenario.nodes:
            versions[each.version or "-"] += each.count * each.weight
        return "split?" + urlencode(versions)
    return policy


def read(path: Path) -> Scenario:
    """Return the scenario that a TOML file describes, called by its file's name unless it says another."""
    try:
        described = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert({"name": path.stem, **described}, Scenario)
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadOption(f"{path}: {error}") from error
