"""Metrics in the default registry of prometheus_client, one set of them for the whole process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import ref

from prometheus_client import REGISTRY, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import CollectorRegistry

from ..application import Application
from ..kvs import Listener, Operation

#: In seconds. A call on a store nearby takes 0.1 ms, and ends after one to three seconds at most.
BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)


def new_listener(application: Application) -> Listener:
    """Return the listener of the process, and have it collect the gauges of an application.

    It is kept on the registry, which takes each name once: a second application, or this module
    when it was loaded again, finds it there.
    """
    kept = vars(REGISTRY)
    if "pyramid_kvs" not in kept:
        kept["pyramid_kvs"] = Metrics(REGISTRY)
    found: Metrics = kept["pyramid_kvs"]
    found.gauges.add(application)
    return found


class Metrics:
    """Counts the operations of all applications in the process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Histogram(
            "kvs_operation_duration_seconds",
            "Duration of operations on stores",
            ["setting", "operation"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._hits = Counter("kvs_hits_total", "Keys read and found", registry=registry)
        self._misses = Counter("kvs_misses_total", "Keys read and not found", registry=registry)
        self._errors = Counter(
            "kvs_errors_total", "Operations that raised", ["error"], registry=registry
        )
        self.gauges = Gauges()
        registry.register(self.gauges)
        #: To look up a label takes as long as to observe.
        self._by_labels: dict[tuple[str, str], Histogram] = {}

    def __call__(self, operation: Operation) -> None:
        labels = (operation.setting, operation.operation)
        duration = self._by_labels.get(labels)
        if duration is None:
            duration = self._by_labels[labels] = self._durations.labels(*labels)
        duration.observe(operation.seconds)
        if operation.hits:
            self._hits.inc(operation.hits)
        if operation.misses:
            self._misses.inc(operation.misses)
        if operation.error is not None:
            self._errors.labels(operation.error).inc()


class Gauges:
    """What is read when Prometheus asks: the pools and the circuit breakers."""

    def __init__(self) -> None:
        self._applications: list[ref[Application]] = []

    def add(self, application: Application) -> None:
        self._applications.append(ref(application, self._applications.remove))

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [_pool_connections(), _breaker_open()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        applications = [found for known in [*self._applications] if (found := known()) is not None]
        pools = _pool_connections()
        for state, count in _connections(applications).items():
            pools.add_metric([state], count)
        yield pools
        breakers = _breaker_open()
        for server, is_open in _breakers(applications).items():
            breakers.add_metric([server], is_open)
        yield breakers


def _pool_connections() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kvs_pool_connections",
        "Connections that are idle and in use, and callers that wait for one",
        labels=["state"],
    )


def _breaker_open() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kvs_breaker_open", "1 while a server is left alone after a timeout", labels=["server"]
    )


def _connections(applications: Iterable[Application]) -> dict[str, int]:
    found = {"idle": 0, "in_use": 0, "waiting": 0}
    for application in applications:
        for store in application.stores:
            for pool in store.driver.connection_pools():
                for state, count in pool.counts()._asdict().items():
                    found[state] += count
    return found


def _breakers(applications: Iterable[Application]) -> dict[str, int]:
    found: dict[str, int] = {}
    for application in applications:
        for breaker in application.breakers.all():
            found[breaker.address] = max(found.get(breaker.address, 0), int(breaker.is_open))
    return found
