"""Spans and a metric for OpenTelemetry, by its stable conventions for database clients.

A listener is called when the operation is over. Its span is therefore created with the time at
which the operation began. Its parent is the span that is current, for example the request's.
"""

from __future__ import annotations

import re
import time

from opentelemetry import metrics, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from ..application import Application
from ..kvs import Listener, Operation

METRIC = "db.client.operation.duration"

#: The boundaries that the convention advises, in seconds.
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

#: The name of a system in the convention, where it is not the driver's name.
_SYSTEMS = {"memcache": "memcached"}

_PLACE = re.compile(r"\[?(?P<host>[^\]]*?)\]?(:(?P<port>[0-9]+))?", re.DOTALL)

Attributes = dict[str, str | int]


def new_listener(application: Application) -> Listener:
    """Return a listener that creates spans with the tracer provider of the process."""
    return _Telemetry()


class _Telemetry:
    def __init__(self) -> None:
        self._tracer = trace.get_tracer("pyramid_kvs")
        self._duration = metrics.get_meter("pyramid_kvs").create_histogram(
            METRIC,
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        #: The name of the span and its attributes, by what they depend on.
        self._known: dict[tuple[str, str, str, str | None], tuple[str, Attributes]] = {}

    def __call__(self, operation: Operation) -> None:
        ended = time.time_ns()
        name, attributes = self._described(operation)
        began = ended - int(operation.seconds * 1e9)
        span = self._tracer.start_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, start_time=began
        )
        if operation.error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
        self._duration.record(operation.seconds, attributes)

    def _described(self, operation: Operation) -> tuple[str, Attributes]:
        key = (operation.operation, operation.driver, operation.server, operation.error)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = describe(operation)
        return found


def describe(operation: Operation) -> tuple[str, Attributes]:
    """Return the name of the span and its attributes. Several servers have no address."""
    attributes: Attributes = {
        "db.system.name": _SYSTEMS.get(operation.driver, operation.driver),
        "db.operation.name": operation.operation,
    }
    if operation.error is not None:
        attributes["error.type"] = operation.error
    if not operation.server or "," in operation.server:
        return operation.operation, attributes
    place = _PLACE.fullmatch(operation.server)
    if place is not None:
        attributes["server.address"] = place["host"]
        if place["port"]:
            attributes["server.port"] = int(place["port"])
    return f"{operation.operation} {operation.server}", attributes
