"""What a node counts, in Prometheus' terms: base units, few labels, one collector registry for each server.

Gauges are read from the live objects when somebody asks, so nothing has to remember to update them. Children with
fixed labels are made once; the request path only increments.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

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


class ModelMetrics:
    """The metrics of one model, with its label filled in."""

    def __init__(
        self, model: str, queue_seconds: Histogram, inference_seconds: Histogram, batch_size: Histogram
    ) -> None:
        self.queue_seconds = queue_seconds.labels(model)
        self._inference_seconds = inference_seconds.labels(model)
        self._batch_size = batch_size.labels(model)

    def ran(self, size: int, seconds: float) -> None:
        """Count one batch."""
        self._batch_size.observe(size)
        self._inference_seconds.observe(seconds)


class Metrics:
    """Every metric of one node."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._collector = CollectorRegistry()
        self._models: dict[str, ModelMetrics] = {}
        self._answered: dict[tuple[str, str, int], Counter] = {}
        self._requests = self._counter(
            "node_requests", "Requests answered, by HTTP status.", "model", "version", "code"
        )
        self._rejected = self._counter("node_rejected", "Requests or images refused, by reason.", "reason")
        for word in REJECTED.values():
            self._rejected.labels(word)
        self.request_seconds = self._histogram("node_request_duration_seconds", "From headers read to answer made.")
        self.decode_seconds = self._histogram("node_decode_seconds", "Decoding one image.")
        self._queue_seconds = self._histogram(
            "node_queue_wait_seconds", "From decoded to the start of its batch.", "model"
        )
        self._inference_seconds = self._histogram("node_inference_seconds", "Running one batch.", "model")
        self._batch_size = Histogram(
            "node_batch_size", "Rows in one batch.", ("model",), registry=self._collector, buckets=SIZES
        )
        self.sync_failures = self._counter("node_registry_sync_failures", "Failed calls to the registry.")
        self._load_seconds = self._labelled("node_model_load_seconds", "Loading and warming a version.")
        self._info = self._labelled("node_model_info", "The versions served; always 1.", "runtime")
        self._load_failures = self._counter("node_model_load_failures", "Versions that could not be loaded.", "model")

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a gauge that calls ``read`` whenever the metrics are asked for."""
        Gauge(name, text, registry=self._collector).set_function(read)

    def counter(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Add a counter whose values, by ``label``, are kept elsewhere and read when the metrics are asked for."""
        self._collector.register(_Read(name, text, label, read))

    def model(self, name: str) -> ModelMetrics:
        """Return the metrics of one model; all its versions share them."""
        if name not in self._models:
            made = ModelMetrics(name, self._queue_seconds, self._inference_seconds, self._batch_size)
            self._models[name] = made
        return self._models[name]

    def loaded(self, model: str, version: str, runtime: str, seconds: float) -> None:
        """Note which runtime serves a version, and how long loading and warming took."""
        self._info.labels(model, version, runtime).set(1)
        self._load_seconds.labels(model, version).set(seconds)

    def unloaded(self, model: str, version: str, runtime: str) -> None:
        """Note that a version is served no more."""
        self._info.remove(model, version, runtime)
        self._load_seconds.remove(model, version)

    def load_failed(self, model: str) -> None:
        """Count a version that could not be loaded."""
        self._load_failures.labels(model).inc()

    def answered(self, model: str, version: str, status: int, seconds: float) -> None:
        """Count one answered request; ``model`` and ``version`` are empty where it got to none."""
        key = (model, version, status)
        child = self._answered.get(key)
        if child is None:
            child = self._answered[key] = self._requests.labels(model, version, str(status))
        child.inc()
        self.request_seconds.observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a refusal by the protocol's reason word; words the metric does not list are no refusals."""
        if reason in REJECTED:
            self._rejected.labels(REJECTED[reason]).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._collector)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._collector)

    def _labelled(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, ("model", "version", *labels), registry=self._collector)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self._collector, buckets=SECONDS)


class _Read(Collector):
    """A counter that lives elsewhere."""

    def __init__(self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._text, self._label, self._read = name, text, label, read

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._text, labels=(self._label,))
        for value, count in self._read().items():
            family.add_metric((value,), count)
        yield family
