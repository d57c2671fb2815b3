"""What a node counts, in Prometheus' terms: base units, few labels, one collector registry for each server.

Gauges are read from the live objects when somebody asks, so nothing has to remember to update them. Children with
fixed labels are made once; the request path only increments.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
# The reason words of the protocol, in the words of the metric.
REJECTED = {
    "overloaded": "queue_full",
    "deadline": "deadline",
    "too_large": "too_large",
    "bad_image": "bad_image",
    "draining": "draining",
}


class Metrics:
    """Every metric of one node."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model: str, version: str) -> None:
        self._collector = CollectorRegistry()
        self._labels = (model, version)
        self._requests = self._counter(
            "node_requests", "Requests answered, by HTTP status.", "model", "version", "code"
        )
        self._rejected = self._counter("node_rejected", "Requests or images refused, by reason.", "reason")
        for word in REJECTED.values():
            self._rejected.labels(word)
        self.request_seconds = self._histogram("node_request_duration_seconds", "From headers read to answer made.")
        self.queue_seconds = self._histogram("node_queue_wait_seconds", "From decoded to the start of its batch.")
        self.decode_seconds = self._histogram("node_decode_seconds", "Decoding one image.")
        self.inference_seconds = self._histogram("node_inference_seconds", "Running one batch.")
        self.batch_size = Histogram("node_batch_size", "Images in one batch.", registry=self._collector, buckets=SIZES)
        self.sync_failures = self._counter("node_registry_sync_failures", "Failed calls to the registry.")
        self.load_seconds = Gauge("node_model_load_seconds", "Loading the model.", registry=self._collector)
        self._info = Gauge(
            "node_model_info", "The model served; always 1.", ("model", "version", "runtime"), registry=self._collector
        )

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that calls ``read`` whenever the metrics are asked for."""
        Gauge(name, text, registry=self._collector).set_function(read)

    def loaded(self, runtime: str, seconds: float) -> None:
        """Note which runtime serves the model and how long loading took."""
        self._info.labels(*self._labels, runtime).set(1)
        self.load_seconds.set(seconds)

    def answered(self, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(*self._labels, str(status)).inc()
        self.request_seconds.observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a refusal by the protocol's reason word; words the metric does not list are no refusals."""
        if reason in REJECTED:
            self._rejected.labels(REJECTED[reason]).inc()

    def ran(self, size: int, seconds: float) -> None:
        """Count one batch."""
        self.batch_size.observe(size)
        self.inference_seconds.observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._collector)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._collector)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, registry=self._collector, buckets=SECONDS)
