"""Keys and values, as small as Consul's are used: get, list, put, compare-and-set, delete. Pure."""

from collections.abc import Iterable

import msgspec

from registry.embedded.catalog import Index

# Consul's own limit.
LARGEST_VALUE = 512 * 1024


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One key and its value."""

    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0


class KeyValues:
    """All pairs, by key."""

    def __init__(self, index: Index, pairs: Iterable[Pair] = ()) -> None:
        self._index = index
        self._pairs = {pair.key: pair for pair in pairs}
        self._changed_at = self._deleted_at = index.value

    def __len__(self) -> int:
        return len(self._pairs)

    def get(self, key: str) -> Pair | None:
        """One pair, or None."""
        return self._pairs.get(key)

    def under(self, prefix: str) -> list[Pair]:
        """All pairs whose key starts with ``prefix``, by key."""
        return [self._pairs[key] for key in sorted(self._pairs) if key.startswith(prefix)]

    def keys(self, prefix: str, separator: str) -> list[str]:
        """Keys under a prefix, cut after the first ``separator`` that follows it."""
        found: dict[str, None] = {}
        for pair in self.under(prefix):
            end = pair.key.find(separator, len(prefix)) if separator else -1
            found[pair.key if end < 0 else pair.key[: end + len(separator)]] = None
        return list(found)

    def all(self) -> list[Pair]:
        """All pairs, in no order."""
        return list(self._pairs.values())

    def index_of(self, key: str) -> int:
        """The index of the last change to a key; of one that is not there, of the last change to any."""
        pair = self._pairs.get(key)
        return pair.modify_index if pair else self._changed_at

    def index_under(self, prefix: str) -> int:
        """The index of the last change under a prefix; a deletion counts for all."""
        under = (pair.modify_index for pair in self._pairs.values() if pair.key.startswith(prefix))
        return max(self._deleted_at, *under, 0)

    def put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> bool:
        """Set a value; with ``cas`` only if the key still has that index (0: does not exist). Whether it was done."""
        old = self._pairs.get(key)
        if cas is not None and cas != (old.modify_index if old else 0):
            return False
        index = self._changed_at = self._index.bump()
        created = old.create_index if old else index
        self._pairs[key] = Pair(key=key, value=value, flags=flags, create_index=created, modify_index=index)
        return True

    def delete(self, key: str, *, recurse: bool = False, cas: int | None = None) -> bool:
        """Delete a key, or all that start with it. Whether it was done; deleting nothing is done."""
        doomed = [pair.key for pair in self.under(key)] if recurse else [key] if key in self._pairs else []
        if cas is not None and any(self._pairs[each].modify_index != cas for each in doomed):
            return False
        for each in doomed:
            del self._pairs[each]
        if doomed:
            self._changed_at = self._deleted_at = self._index.bump()
        return True
