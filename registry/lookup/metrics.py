"""What the look-up service counts, in Prometheus' terms. Gauges are read from the live objects when somebody asks."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from registry.lookup.hub import Hub


class Metrics:
    """Every metric of one look-up service."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, hub: Hub) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "lookup_requests", "Requests answered, by kind and HTTP status.", ("kind", "code"), registry=self._registry
        )
        self._registry.register(_Live(hub))

    def answered(self, kind: str, status: int) -> None:
        """Count one request."""
        self._requests.labels(kind, str(status)).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _Live(Collector):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def describe(self) -> Iterator[Metric]:
        yield from ()

    def collect(self) -> Iterator[Metric]:
        hub, tally = self._hub, self._hub.tally
        yield GaugeMetricFamily("lookup_readers", "Streams and waiting requests now.", hub.readers)
        yield GaugeMetricFamily("lookup_services", "Services followed now.", len(hub.feeds))
        for name, text, value in (
            ("lookup_deltas_sent", "Changes sent to stream readers.", tally.deltas),
            ("lookup_snapshots_sent", "Whole lists sent to stream readers.", tally.snapshots),
            ("lookup_resyncs_sent", "Stream readers that fell behind and began anew.", tally.resyncs),
            ("lookup_readers_cut_off", "Clients dropped because they took nothing.", tally.cut_off),
        ):
            yield CounterMetricFamily(name, text, value)
        instances = GaugeMetricFamily(
            "lookup_instances", "Instances known, whatever their health.", labels=("service",)
        )
        unconfirmed = GaugeMetricFamily(
            "lookup_unconfirmed_seconds", "Since the registry last said what the list is.", labels=("service",)
        )
        for service, feed in hub.feeds.items():
            instances.add_metric((service,), feed.size)
            age = feed.unconfirmed_for()
            if age is not None:
                unconfirmed.add_metric((service,), age)
        yield instances
        yield unconfirmed
