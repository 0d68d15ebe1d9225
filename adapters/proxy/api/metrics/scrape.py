"""Reads ``/metrics`` of the servers of all ready models, several at once.

A server that has no metrics is left out. One that fails, is too slow or sends too much is reported
as such, and the page has the others. Nothing is started, and no idle time begins anew: the requests
do not count as requests to the model.
"""

from __future__ import annotations

import asyncio
import math
from time import perf_counter

from .....dataclass import dataclass
from ....http1.client.pool import UpstreamError, UpstreamResponse
from ...context import ProxyContext
from ...models.definitions import ModelDefinition
from ...models.public_state import public_state
from ...request import Request
from ...upstreams import Upstream

_AT_ONCE = 8
_LIMIT_S = 5.0
_MARGIN_S = 0.5  # for what is done between the last response and the end of the page
_LEAST_S = 0.1
_MAX_BYTES = 4 << 20  # vLLM sends some 100 KiB
#: Statuses of a server without metrics: llama-server without ``--metrics`` sends 501.
_NO_METRICS = frozenset({404, 405, 501})
_TIMEOUT = b"x-prometheus-scrape-timeout-seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """Metrics of one model's server.

    Attributes:
        model: Name of the model.
        text: The metrics, in Prometheus' text format; None if they could not be read.
        seconds: Time that it took, in seconds.
    """

    model: str
    text: str | None
    seconds: float


class _ScrapeError(Exception):
    """The response of the server cannot be used."""


def timeout_of(request: Request) -> float:
    """Return the time limit for all servers together, in seconds.

    Prometheus sends its own limit, after which it would get nothing at all.
    """
    try:
        given = float(request.header(_TIMEOUT) or b"nan")
    except ValueError:
        return _LIMIT_S
    return max(min(_LIMIT_S, given - _MARGIN_S), _LEAST_S) if math.isfinite(given) else _LIMIT_S


async def scrape_all(proxy: ProxyContext, limit_s: float) -> list[Scrape]:
    """Return the metrics of all ready models that have some, in the order of the configuration.

    Args:
        proxy: Has the models.
        limit_s: Time limit for all of them together, in seconds.
    """
    turns = asyncio.Semaphore(_AT_ONCE)
    ends = perf_counter() + limit_s
    ready = [
        definition for name, definition in proxy.catalog.models.items()
        if name in proxy.supervisor and public_state(proxy.supervisor[name]) == "ready"
    ]  # fmt: skip
    found = await asyncio.gather(*(_scrape(proxy, each, turns, ends) for each in ready))
    return [each for each in found if each is not None]


async def _scrape(
    proxy: ProxyContext, model: ModelDefinition, turns: asyncio.Semaphore, ends: float
) -> Scrape | None:
    began = perf_counter()
    text: str | None = None
    try:
        async with asyncio.timeout(max(ends - began, 0.0)), turns:
            began = perf_counter()
            upstream = proxy.upstreams.of_model(model)
            text = await _metrics_of(upstream)
            if text is None:
                return None
    except (UpstreamError, TimeoutError, _ScrapeError) as error:
        proxy.log.debug("metrics of %s cannot be read: %s", model.id, error)
    return Scrape(model=model.id, text=text, seconds=perf_counter() - began)


async def _metrics_of(upstream: Upstream) -> str | None:
    """Return the metrics of the server; None if it has none.

    Raises:
        UpstreamError: It does not respond.
        _ScrapeError: Its response cannot be used.
    """
    headers = [
        (b"Host", upstream.host),
        (b"Accept", b"text/plain;version=0.0.4"),
        (b"User-Agent", b"swapchart"),
    ]
    response = await upstream.pool.request(b"GET", upstream.prefix + b"/metrics", headers)
    try:
        if response.status in _NO_METRICS:
            await _read(response)
            return None
        kind = next((value for name, value in response.headers if name == b"content-type"), b"")
        if response.status != 200:
            raise _ScrapeError(f"status {response.status}")
        if kind.startswith((b"text/html", b"application/json")):
            return None  # a page for whatever path was requested
        return (await _read(response)).decode("utf-8", "replace")
    finally:
        response.close()


async def _read(response: UpstreamResponse) -> bytes:
    body = bytearray()
    while piece := await response.read():
        body += piece
        if len(body) > _MAX_BYTES:
            raise _ScrapeError(f"more than {_MAX_BYTES} bytes")
    return bytes(body)
