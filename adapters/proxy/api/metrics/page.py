"""Pages ``/metrics`` and ``/metrics/models``.

Unlike llama-swap's, ``/metrics`` also counts requests, tokens, swaps, hooks, the queue and crashes,
and it works without the performance monitor. Each counter of a configured model exists from the
start with 0: ``increase()`` of Prometheus does not see the step to a counter's first value.

Both are in Prometheus' text format 0.0.4, which every version of Prometheus accepts, whatever else
it prefers: servers of models seldom have OpenMetrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .....runtime import Node
from ....http1.asgi_types import Send
from ....system import threads
from ...context import ProxyContext
from ...request import Request
from ...responses import send_bytes
from ..nodes import known_nodes
from .host import host
from .memory import kv, memory
from .models import lifecycles, models, nodes
from .relabel import merged
from .requests import own, requests
from .scrape import scrape_all, timeout_of

_CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()


async def metrics(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send all metrics of the proxy."""
    registry = CollectorRegistry()
    registry.register(_ProxyCollector(proxy, await known_nodes(proxy)))
    await send_bytes(send, 200, generate_latest(registry), _CONTENT_TYPE)


async def metrics_of_models(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send the metrics of the servers of all ready models; starts nothing."""
    request.watch()
    scrapes = await scrape_all(proxy, timeout_of(request))
    registry = CollectorRegistry()
    registry.register(_Families(await threads.run(merged, scrapes)))
    await send_bytes(send, 200, await threads.run(generate_latest, registry), _CONTENT_TYPE)


class _ProxyCollector(Collector):
    def __init__(self, proxy: ProxyContext, known: Sequence[Node]) -> None:
        self._proxy, self._nodes = proxy, known

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics at this moment."""
        sample = self._proxy.accounting.samples.latest
        if sample is not None and self._proxy.options.performance_every_s is not None:
            yield from host(sample)
        yield from models(self._proxy)
        yield from nodes(self._proxy, self._nodes)
        yield from requests(self._proxy)
        yield from lifecycles(self._proxy)
        yield from kv(self._proxy)
        yield from memory(self._proxy)
        yield from own(self._proxy)


class _Families(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        """Return the families."""
        return self._families
