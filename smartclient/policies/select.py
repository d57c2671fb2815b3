"""Policies by name: what ``policy="rotation"`` and ``--policy`` accept."""

from collections.abc import Callable

from smartclient.errors import BadOption
from smartclient.policies.rotation import Rotation
from smartclient.policy import Policy

DEFAULT = "rotation"

_POLICIES: dict[str, Callable[[], Policy]] = {"rotation": Rotation}


def names() -> list[str]:
    """Names that ``named`` knows, in order."""
    return sorted(_POLICIES)


def named(name: str) -> Policy:
    """Return a new policy of that name. Raises ``BadOption`` listing the names there are."""
    try:
        return _POLICIES[name]()
    except KeyError:
        raise BadOption(f"no policy is called {name!r}; choose one of: {', '.join(names())}") from None
