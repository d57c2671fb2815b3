"""How long a request occupies a node of speed 1: four distributions, each with its mean as the first parameter.

A time is drawn once per request, not per node, so that every policy has the same requests to place. All times are
seconds. ``kind`` says in a description which one is meant.
"""

import math
import random
from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[float, Meta(gt=0)]


class _Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all of them have."""

    mean: Positive = 0.05


class Constant(_Distribution, frozen=True, kw_only=True, tag="constant"):
    """Always the mean."""

    def draw(self, rng: random.Random) -> float:  # noqa: ARG002 - the others need it
        """Seconds of one request."""
        return self.mean


class Exponential(_Distribution, frozen=True, kw_only=True, tag="exponential"):
    """Memoryless: what queueing theory has the most formulae for."""

    def draw(self, rng: random.Random) -> float:
        """Seconds of one request."""
        return rng.expovariate(1.0 / self.mean)


class Lognormal(_Distribution, frozen=True, kw_only=True, tag="lognormal"):
    """Inference on inputs of like size: a hump with a tail. ``sigma``: of the logarithm."""

    sigma: Positive = 0.5

    def draw(self, rng: random.Random) -> float:
        """Seconds of one request."""
        return rng.lognormvariate(math.log(self.mean) - self.sigma * self.sigma / 2.0, self.sigma)


class Pareto(_Distribution, frozen=True, kw_only=True, tag="pareto"):
    """Many short ones and a few very long ones: a power law, cut off.

    ``shape``: of the power law, 1 being the heaviest; ``ratio``: of the longest to the shortest.
    """

    shape: Annotated[float, Meta(gt=1)] = 1.5
    ratio: Annotated[float, Meta(gt=1)] = 200.0

    @property
    def shortest(self) -> float:
        """Seconds; what the mean of a bounded Pareto distribution makes it."""
        a, ratio = self.shape, self.ratio
        return self.mean * (a - 1.0) / a * (1.0 - math.pow(ratio, -a)) / (1.0 - math.pow(ratio, 1.0 - a))

    def draw(self, rng: random.Random) -> float:
        """Seconds of one request, by inversion."""
        longest = math.pow(self.ratio, -self.shape)
        return self.shortest * math.pow(1.0 - rng.random() * (1.0 - longest), -1.0 / self.shape)


Service = Constant | Exponential | Lognormal | Pareto
