"""The yardstick: a policy that knows the true work in every queue and sends to where it would be finished first.

No client can know that. It knows which nodes are hung or dead as well, but not the size of the request at hand, for
which it takes the mean. Only the simulator has it; asking it costs a look at every node.
"""

import math
import random
from collections.abc import Mapping, Sequence

from smartclient.endpoint import Endpoint
from smartclient.errors import NoEndpoints
from smartclient.policy import PickInfo
from smartclient.simulation.node import Node

NAME = "oracle"


class Oracle:
    """The policy. ``nodes``: by instance id; ``mean``: seconds of a request at speed 1."""

    name = NAME

    def __init__(self, nodes: Mapping[str, Node], mean: float) -> None:
        self._nodes = nodes
        self._mean = mean

    def build(self, endpoints: Sequence[Endpoint], rng: random.Random) -> "OraclePicker":  # noqa: ARG002 - see Policy
        """See ``Policy``."""
        return OraclePicker([(endpoint, self._nodes[endpoint.instance.id]) for endpoint in endpoints], self._mean)


class OraclePicker:
    """Looks into every node. Leaves out only what the call has tried: it knows more than any breaker."""

    def __init__(self, nodes: Sequence[tuple[Endpoint, Node]], mean: float) -> None:
        self._nodes = nodes
        self._mean = mean

    def pick(self, info: PickInfo, now: float) -> Endpoint:  # noqa: ARG002 - see Picker
        """See ``Picker``."""
        mean, exclude = self._mean, info.exclude
        best: Endpoint | None = None
        least = (math.inf, math.inf)
        for endpoint, node in self._nodes:
            finish = (node.finishes(mean), node.sent)  # of equals the one that has had least
            if endpoint not in exclude and (best is None or finish < least):
                best, least = endpoint, finish
        if best is None:
            raise NoEndpoints("every node has been tried")
        return best

    def score(self, endpoint: Endpoint, now: float) -> float:
        """See ``Picker``: seconds until a request would be finished there."""
        return next(node.finishes(self._mean) for each, node in self._nodes if each is endpoint) - now
