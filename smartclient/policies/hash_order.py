"""In which order a key tries the endpoints: its own, and stable when the list changes.

Up to ``FEW`` endpoints by weighted rendezvous hashing, whose shares are exact for any weights but which looks at
everybody. Above by multi-probe consistent hashing (Appleton and O'Reilly, 2015): every endpoint has a point on a circle
for each unit of its weight, a key has 21 places on it, and the point that follows one of them most closely has the key.
21 places keep shares within some 10 %, with one point for most endpoints where a common ring needs hundreds.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import chain

from smartclient.endpoint import Endpoint
from smartclient.policies.hashing import MASK, distances, identity, mix

FEW = 64  # a rendezvous of so many takes some 30 µs, as long as an order on the circle takes with thousands
PLACES = 21
POINTS = 16  # of an endpoint at most, or nearly: larger weights are counted in units of a power of two


class Rendezvous:
    """The nearest first, by a distance of key and endpoint."""

    __slots__ = ("_endpoints", "_nodes")

    def __init__(self, weights: Mapping[Endpoint, int]) -> None:
        self._endpoints = tuple(weights)
        self._nodes = [(identity(endpoint), float(weight)) for endpoint, weight in weights.items()]

    def walk(self, key: int) -> Iterator[Endpoint]:
        """Yield everybody in the order of ``key``."""
        ranked = [(far, at) for at, far in enumerate(distances(key, self._nodes))]
        heapq.heapify(ranked)
        while ranked:
            yield self._endpoints[heapq.heappop(ranked)[1]]


class Circle:
    """Points in their order and whose each is."""

    __slots__ = ("_owners", "_points")

    def __init__(self, weights: Mapping[Endpoint, int]) -> None:
        unit = 1 << max(0, (max(weights.values()) // POINTS).bit_length() - 1)
        points = []
        for endpoint, weight in weights.items():
            node = identity(endpoint)
            points += [(mix(node, number), node, endpoint) for number in range(max(1, round(weight / unit)))]
        points.sort(key=lambda point: point[:2])
        self._points = [point for point, _, _ in points]
        self._owners = [endpoint for _, _, endpoint in points]

    def walk(self, key: int) -> Iterator[Endpoint]:
        """Yield everybody in the order of ``key``: the owners at its places, then those that follow on the circle."""
        points, owners = self._points, self._owners
        size = len(points)
        near = []
        for number in range(PLACES):
            place = mix(key, number)
            at = bisect_left(points, place) % size
            near.append(((points[at] - place) & MASK, at))
        near.sort()
        first = near[0][1]
        yield owners[first]
        seen = {owners[first]}
        for at in chain((at for _, at in near), range(first, first + size)):
            owner = owners[at % size]
            if owner not in seen:
                seen.add(owner)
                yield owner
