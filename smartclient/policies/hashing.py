"""Hashes that are the same in every process and on every machine, unlike Python's ``hash()`` of a string.

A text is hashed once (BLAKE2b); pairs of hashes are mixed with integer arithmetic (the finalizer of SplitMix64), since
a rendezvous mixes a key with every node.
"""

import hashlib
import math

from smartclient.endpoint import Endpoint

BITS = 64
MASK = (1 << BITS) - 1


def hash_of(*words: object) -> int:
    """A number of 64 bits that is the words' own; ``("ab", "c")`` and ``("a", "bc")`` differ."""
    text = "\0".join(map(str, words))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=BITS // 8).digest())


def identity(endpoint: Endpoint) -> int:
    """An endpoint's hash."""
    return hash_of(*endpoint.key)


def mix(one: int, other: int) -> int:
    """The hash of a pair of hashes."""
    mixed = (one ^ (other * 0x9E3779B97F4A7C15)) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


def distance(one: int, other: int, weight: float = 1.0) -> float:
    """How far a key is from a node: ``-ln(u) / weight`` with u the pair's hash, strictly between 0 and 1.

    The node with the least distance has the key. Each gets its share by weight exactly, since such times are
    exponential with the weight as their rate (weighted rendezvous hashing).
    """
    return -math.log(((mix(one, other) >> 11) + 0.5) / (1 << 53)) / weight
