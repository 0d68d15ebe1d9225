"""Handlers of ``/metrics`` and ``/metrics/models``.

They import `page` with the first request: prometheus-client takes 2.5 MB of memory and 20 ms of
CPU time, and many proxies are never asked for metrics.
"""

from __future__ import annotations

from importlib.util import find_spec

from ....http1.asgi_types import Send
from ....system.background_import import import_in_thread
from ...context import ProxyContext
from ...request import Request

if find_spec("prometheus_client") is None:  # said when the proxy starts, not by its metrics
    raise ModuleNotFoundError("No module named 'prometheus_client'", name="prometheus_client")


async def metrics(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send all metrics of the proxy."""
    await import_in_thread(".page", __package__)
    from . import page

    await page.metrics(proxy, request, send)


async def metrics_of_models(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send the metrics of the servers of all ready models; starts nothing."""
    request.watch()
    await import_in_thread(".page", __package__)
    from . import page

    await page.metrics_of_models(proxy, request, send)
