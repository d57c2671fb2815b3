"""Hashes that are the same in every process and on every machine, unlike Python's ``hash()`` of a string.

A text is hashed once (BLAKE2b); pairs of hashes are mixed with two multiplications, since a rendezvous mixes
a key with every node.
"""

import hashlib
import struct
from collections.abc import Iterable
from math import log

from smartclient.endpoint import Endpoint

BITS = 64
MASK = (1 << BITS) - 1
_EIGHT = struct.Struct(">8Q")


def hash_of(*words: object) -> int:
    """A number of 64 bits that is the words' own; ``("ab", "c")`` and ``("a", "bc")`` differ."""
    return int.from_bytes(_digest(words, BITS // 8))


def hashes_of(*words: object) -> tuple[int, ...]:
    """Eight such numbers at once."""
    return _EIGHT.unpack(_digest(words, _EIGHT.size))


def identity(endpoint: Endpoint) -> int:
    """An endpoint's hash."""
    return hash_of(*endpoint.key)


def mix(one: int, other: int) -> int:
    """The hash of a pair of hashes, whichever comes first."""
    mixed = ((one ^ other) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 32)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 32)


def distances(key: int, nodes: Iterable[tuple[int, float]]) -> list[float]:
    """How far a key is from each of ``nodes`` (hash and weight): ``-ln(u) / weight``, ``u`` being the pair's hash.

    The nearest node has the key. Each gets its share by weight exactly: such a distance, with u strictly between 0 and
    1, is exponential with the weight as its rate (weighted rendezvous hashing).
    """
    return [-log(((mix(key, node) >> 11) + 0.5) / (1 << 53)) / weight for node, weight in nodes]


def distance(key: int, node: int, weight: float = 1.0) -> float:
    """How far a key is from one node."""
    return distances(key, ((node, weight),))[0]


def _digest(words: Iterable[object], size: int) -> bytes:
    return hashlib.blake2b("\0".join(map(str, words)).encode(), digest_size=size).digest()
