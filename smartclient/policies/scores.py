"""What endpoints are compared by when this client's own experience is all there is; less is better."""

from smartclient.endpoint import Endpoint
from smartclient.policies.weights import weight_of

UNKNOWN = 1e6  # seconds; above any latency: until its first answer an endpoint gets one trial at a time


def least_request(endpoint: Endpoint, now: float) -> float:
    """Attempts that would be in flight with this one, by weight (Envoy's least request with an active bias of 1)."""
    return (endpoint.in_flight + 1) / weight_of(endpoint, now)


def peak_ewma(endpoint: Endpoint, now: float) -> float:
    """Seconds for an answer times attempts in flight, by weight (Finagle's peak EWMA; see ``Endpoint.expected``).

    Who has never answered is tried at once (0), and then not again before it has.
    """
    if endpoint.latency.value:
        return endpoint.expected(now) * (endpoint.in_flight + 1) / weight_of(endpoint, now)
    return UNKNOWN * (endpoint.in_flight + 1) / weight_of(endpoint, now) if endpoint.in_flight else 0.0
