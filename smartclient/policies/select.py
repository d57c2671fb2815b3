"""Policies by name: what ``policy="p2c"``, ``policy="probed?ask=3"`` and ``--policy`` accept."""

from collections.abc import Callable

from smartclient.errors import BadOption
from smartclient.policies.p2c import P2C, LeastRequest
from smartclient.policies.probed import Probed
from smartclient.policies.rotation import Rotation
from smartclient.policies.rotation_p2c import RotationP2C
from smartclient.policy import Policy

DEFAULT = "probed"

_POLICIES: dict[str, Callable[[], Policy]] = {
    each.name: each for each in (Rotation, P2C, LeastRequest, RotationP2C, Probed)
}


def names() -> list[str]:
    """Names that ``named`` knows, in order."""
    return sorted(_POLICIES)


def named(name: str) -> Policy:
    """Return a new policy of that name. Raises ``BadOption`` listing the names there are."""
    try:
        return _POLICIES[name]()
    except KeyError:
        raise BadOption(f"no policy is called {name!r}; choose one of: {', '.join(names())}") from None
