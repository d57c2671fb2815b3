"""Rotation first, two choices second: the rotation's next stands, unless a random other is clearly better.

Equal nodes get a rotation, the most even spread there is; of unequal ones the better get more, as with ``p2c``, whose
score it compares by. ``margin`` is by how much the other's score must be lower, 25 %: enough that noise alone does not
undo the rotation (docs/policies.md compares them). A turn that goes to another is lost.
"""

import random
from collections.abc import Sequence

from smartclient.endpoint import Endpoint
from smartclient.errors import BadOption
from smartclient.policies.draw import Draw
from smartclient.policies.rotation import Rotation, RotationPicker
from smartclient.policies.scores import peak_ewma
from smartclient.policy import PickInfo

MARGIN = 0.25


class RotationP2C:
    """The policy."""

    name = "rotation_p2c"

    def __init__(self, *, margin: float = MARGIN) -> None:
        if not 0 <= margin < 1:
            raise BadOption(f"margin={margin}: a share of the score from 0 up to 1")
        self._margin = margin
        self._rotation = Rotation()

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "RotationP2CPicker":
        """See ``Policy``."""
        return RotationP2CPicker(self._rotation.build(endpoints, rng), Draw(endpoints, rng), self._margin)


class RotationP2CPicker:
    """The picker; ``rotation`` is where it stands."""

    __slots__ = ("_below", "_draw", "rotation")

    def __init__(self, rotation: RotationPicker, draw: Draw, margin: float = MARGIN) -> None:
        self.rotation = rotation
        self._draw = draw
        self._below = 1.0 - margin

    def pick(self, info: PickInfo, now: float) -> Endpoint:
        """See ``Picker``."""
        return self.judge(self.rotation.pick(info, now), info, now)

    def judge(self, following: Endpoint, info: PickInfo, now: float) -> Endpoint:
        """Return ``following``, the rotation's next, or a random other that is clearly better."""
        other = self._draw.other(following, info, now)
        if other is not None and peak_ewma(other, now) < peak_ewma(following, now) * self._below:
            return other
        return following

    def score(self, endpoint: Endpoint, now: float) -> float:
        """See ``Picker``."""
        return peak_ewma(endpoint, now)
