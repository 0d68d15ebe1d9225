"""Set-up of the OpenTelemetry SDK by its standard environment variables.

Sampler, resource and limits of spans are read by the SDK, and so is the address of the collector by
its exporter. Only the choice of the exporter is made here, since the SDK makes it in a private
module. Spans are exported in batches by a thread; a full queue drops spans, and no request waits.

Source: OpenTelemetry, Environment Variable Specification. Unlike there, an OTLP exporter without
``OTEL_EXPORTER_OTLP_PROTOCOL`` takes http/protobuf, for which the extra has the package.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from threading import Thread

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from .... import __version__
from .missing import TracingMissingError
from .requests import OtelTracing

_CLOSE_LIMIT_S = 2.0
_GROUP = "opentelemetry_traces_exporter"
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


@asynccontextmanager
async def tracing() -> AsyncIterator[OtelTracing | None]:
    """Trace for as long as the block lasts; None if ``OTEL_SDK_DISABLED`` is true.

    At the end the spans that are left are exported, for at most 2 s.

    Raises:
        TracingMissingError: The package of the chosen exporter is not installed.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield None
        return
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    for exporter in _exporters():
        provider.add_span_processor(BatchSpanProcessor(exporter))
    found = OtelTracing(provider.get_tracer("swapchart", __version__))
    try:
        yield found
    finally:
        found.close()
        # A collector that does not respond must not delay the shutdown; the thread is a daemon.
        closing = Thread(target=provider.shutdown, name="tracing-shutdown", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSE_LIMIT_S)


def _resource() -> Resource:
    given = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    names = {pair.partition("=")[0].strip() for pair in given.split(",")}
    attributes: dict[str, str] = {}
    if SERVICE_NAME not in names and not os.environ.get("OTEL_SERVICE_NAME"):
        attributes[SERVICE_NAME] = "swapchart"
    if SERVICE_VERSION not in names:
        attributes[SERVICE_VERSION] = __version__
    return Resource.create(attributes)


def _exporters() -> Iterator[SpanExporter]:
    for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
        wanted = name.strip() or "otlp"
        if wanted == "none":
            continue
        if wanted == "otlp":
            wanted = _otlp()
        known = entry_points(group=_GROUP)
        if wanted not in known.names:
            raise TracingMissingError(
                f"the exporter {wanted!r} of `OTEL_TRACES_EXPORTER` is not installed; there are: "
                f"{', '.join(sorted(known.names))}, none"
            )
        exporter: type[SpanExporter] = known[wanted].load()
        yield exporter()


def _otlp() -> str:
    """Return the name of the exporter for the protocol that the environment asks for."""
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    given = (os.environ.get(name, "").strip() for name in variables)
    protocol = next((value for value in given if value), "http/protobuf")
    return _OTLP.get(protocol, protocol)
