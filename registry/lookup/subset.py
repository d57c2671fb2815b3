"""A client's own stable part of a large list, by rendezvous hashing. Pure.

Every client scores every instance with a hash of both names and takes the best ``limit`` (D. Thaler and C. Ravishankar,
"Using name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998). So every service
chooses the same for a client, clients spread evenly over instances, and an instance that comes or goes changes one
member at most. As ten thousand instances are scored for each of thousands of clients, a name is hashed well but once,
and each client has a function of its own over those hashes, from a universal class (J. L. Carter and M. N. Wegman,
"Universal classes of hash functions", Journal of Computer and System Sciences 18(2), 1979).
"""

import heapq
from bisect import insort
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

# Runners-up kept, so that a lost member is replaced without scoring the whole list again.
SPARE = 16
# Ids scored between two yields of ``scan``: about a millisecond.
STEP = 2000
# The largest one that CPython holds in one digit, which makes it several times as quick as the next.
_PRIME = 2**30 - 35


class Subset:
    """The best ``limit`` ids for a client, and the next ``SPARE``."""

    __slots__ = ("_best", "_complete", "_factor", "_limit", "_names", "_shift")

    def __init__(self, client: str, limit: int) -> None:
        self._limit = limit
        hashed = _hash(client)
        self._factor = 1 + hashed % (_PRIME - 1)
        self._shift = hashed // _PRIME % _PRIME
        # Ordered, the best last. Whatever is not in it scores less than all that is.
        self._best: list[tuple[int, str]] = []
        self._names: set[str] = set()  # in it
        self._complete = True  # nothing is left outside

    @property
    def members(self) -> frozenset[str]:
        """The ids chosen."""
        return frozenset(each for _, each in self._best[-self._limit :])

    @property
    def thin(self) -> bool:
        """Whether the runners-up are used up: ``scan`` again before the next member is lost."""
        return not self._complete and len(self._best) <= self._limit

    def scan(self, ids: Iterable[str]) -> Iterator[None]:
        """Choose afresh from all ``ids``; it stops at a ``yield`` from time to time, and is done when exhausted."""
        keep, waiting = self._limit + SPARE, iter(ids)
        factor, shift = self._factor, self._shift
        best: list[tuple[int, str]] = []
        seen, least = 0, 0
        while batch := list(islice(waiting, STEP)):
            seen += len(batch)
            scores = [(factor * point + shift) % _PRIME for point in map(_point, batch)]
            found = [each for each in zip(scores, batch, strict=True) if each[0] >= least]
            best = heapq.nlargest(keep, best + found)
            least = best[-1][0] if len(best) == keep else 0
            yield
        self._best, self._complete = best[::-1], seen <= keep
        self._names = {name for _, name in best}

    def update(self, added: Iterable[str], removed: Collection[str]) -> bool:
        """Take in ids that are new and ids that are gone; whether the members may be others now."""
        before = self._best[-self._limit :]
        if not self._names.isdisjoint(removed):
            self._names.difference_update(removed)
            self._best = [each for each in self._best if each[1] in self._names]
        for each in added:
            self._add(each)
        return before != self._best[-self._limit :]

    def _add(self, name: str) -> None:
        entry = (self._score(name), name)
        if name in self._names or (not self._complete and (not self._best or entry < self._best[0])):
            return
        insort(self._best, entry)
        self._names.add(name)
        if len(self._best) > self._limit + SPARE:
            self._names.discard(self._best.pop(0)[1])
            self._complete = False

    def _score(self, name: str) -> int:
        return (self._factor * _point(name) + self._shift) % _PRIME


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest(), "big")


@lru_cache(maxsize=2**17)
def _point(name: str) -> int:
    return _hash(name) % _PRIME
