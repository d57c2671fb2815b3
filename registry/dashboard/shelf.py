"""What several pages would work out alike, worked out once: as long as the fleet is the same, and bounded.

Fifty people look at five pages of one list, or at one page each of the same; each is drawn once a second. The shelf
belongs to the event loop, like everything that a ``World`` holds.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from registry.model import Instance

T = TypeVar("T")

MOST = 64
# Characters of one member that are searched; tags are anybody's.
_MOST_SEARCHED = 4000


class Shelf:
    """Results by key, for one version of the fleet at a time; and what a search reads of each instance."""

    def __init__(self) -> None:
        self._version: object = None
        self._held: dict[Hashable, Any] = {}
        self._texts: dict[tuple[str, str], tuple[Instance, str]] = {}
        self._read: set[tuple[str, str]] = set()

    def of(self, version: object, key: Hashable, make: Callable[[], T]) -> T:
        """Return what ``make`` made for this key and version, made now if need be."""
        if version != self._version:
            self._version, self._held = version, {}
            self._forget()
        if key in self._held:
            found: T = self._held[key]
            return found
        made = make()
        if len(self._held) < MOST:
            self._held[key] = made
        return made

    def searched(self, instance: Instance) -> str:
        """Return the words of an instance that a search looks through, case-folded."""
        key = (instance.service, instance.id)
        self._read.add(key)
        held = self._texts.get(key)
        if held is not None and held[0] is instance:
            return held[1]
        said = "\n".join((instance.id, instance.endpoint, instance.node, instance.version, *instance.tags))
        text = said[:_MOST_SEARCHED].casefold()
        self._texts[key] = (instance, text)
        return text

    def _forget(self) -> None:
        """Drop the words of what nobody has searched since the fleet was another."""
        if len(self._texts) > len(self._read):
            self._texts = {key: self._texts[key] for key in self._read}
        self._read = set()
