"""What share of the work an endpoint is to have, as all policies see it.

The registry's weights, with two rules: weight 0 means no work, unless all have it (then all count as 1); and a
newcomer counts for its ``Endpoint.share`` of its weight, but never for nothing: it could not be divided by.
"""

from collections.abc import Iterable

from smartclient.endpoint import Endpoint

LEAST_SHARE = 0.01


def weights_of(endpoints: Iterable[Endpoint]) -> dict[Endpoint, int]:
    """Return those that are to have work with their weights, in order."""
    everybody = tuple(endpoints)
    weights = {endpoint: endpoint.weight for endpoint in everybody if endpoint.weight}
    return weights or dict.fromkeys(everybody, 1)


def share_of(endpoint: Endpoint, now: float) -> float:
    """The share (above 0, up to 1) of its weight that it should have now."""
    return 1.0 if endpoint.joined is None else max(LEAST_SHARE, endpoint.share(now))


def weight_of(endpoint: Endpoint, now: float) -> float:
    """The weight it should have now, for one of those that are to have work."""
    return (endpoint.weight or 1) * share_of(endpoint, now)
