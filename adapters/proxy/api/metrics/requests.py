"""Metrics of requests, and of the proxy itself."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from itertools import product

from prometheus_client.metrics_core import Metric

from ..... import __version__
from ....http1.server import connection
from ...accounting.metrics import OUTCOMES, TOKENS, UNKNOWN, Metrics
from ...context import ProxyContext
from ...models.catalog import PeerModel
from .families import by_model, counter, from_zero, gauge, histogram


def requests(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield what was counted about finished requests."""
    counters: Metrics = proxy.accounting.metrics
    models = [life.spec.name for life in proxy.supervisor.lifecycles()]
    names = [*models, *dict.fromkeys(_names_at_peers(proxy))]
    outcomes = [*product(names, OUTCOMES), UNKNOWN]
    finished = from_zero(outcomes, counters.requests)
    text = "Finished requests by model and outcome: an HTTP status, or why the proxy ended them."
    yield counter("swapchart_requests", text, finished, "model", "outcome")
    counted = [((model,), each) for model, each in counters.models.items()]
    text = "Time in seconds from the arrival of a request to its end."
    durations = [(key, each.durations) for key, each in counted]
    yield histogram("swapchart_request_duration_seconds", text, durations, "model")
    text = (
        "Time in seconds from the arrival of a request until its model is ready for it, or until "
        "it ends without that."
    )
    waits = [(key, each.waits) for key, each in counted]
    yield histogram("swapchart_request_wait_seconds", text, waits, "model")
    text = (
        "Time in seconds from when the model is ready until the headers of its response arrive; "
        "most servers send them with the first token."
    )
    first_bytes = [(key, each.first_bytes) for key, each in counted if any(each.first_bytes.counts)]
    yield histogram("swapchart_request_first_byte_seconds", text, first_bytes, "model")
    tokens = from_zero(product(names, TOKENS), counters.tokens)
    text = "Tokens that responses report, by model and kind; cached ones are prompt tokens too."
    yield counter("swapchart_tokens", text, tokens, "model", "kind")
    sent = by_model(names, {model: each.sent for model, each in counters.models.items()})
    text = "Bytes of response bodies that were sent to clients."
    yield counter("swapchart_response_bytes", text, sent, "model")


def _names_at_peers(proxy: ProxyContext) -> Iterator[str]:
    for target in proxy.catalog.targets.values():
        if isinstance(target, PeerModel):
            yield target.recorded_name


def own(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield metrics of the proxy itself."""
    is_compiled = not str(connection.__file__).endswith(".py")
    build = {
        (__version__, platform.python_version(), str(is_compiled).lower(), proxy.server): 1.0
    }  # fmt: skip
    text = (
        "Version of swapchart and of Python, whether its modules are compiled, and the server in "
        "front: always 1."
    )
    yield gauge("swapchart_build_info", text, build, "version", "python", "compiled", "server")
    dropped = 0 if proxy.accounting.activity is None else proxy.accounting.activity.dropped
    text = "Finished requests that were not recorded in the activity, since its store was too slow."
    yield counter("swapchart_activity_dropped", text, {(): float(dropped)})
    lines = float(proxy.accounting.count_dropped_lines())
    text = "Lines of standard output and standard error that were dropped, since nothing read them."
    yield counter("swapchart_log_lines_dropped", text, {(): lines})
    watch = proxy.loop_watch
    if watch is not None:
        text = "Delay of the event loop in seconds, measured twice a second."
        yield histogram("swapchart_loop_lag_seconds", text, [((), watch.lags)])
        text = "Delays of the event loop of more than a second."
        yield counter("swapchart_loop_blocked", text, {(): float(watch.blocked)})
