"""Route ``/metrics`` for Prometheus: host metrics with llama-swap's names, model metrics with ours.

Unlike llama-swap's, it also counts requests, tokens, swaps, hooks, the queue and crashes,
and it works without the performance monitor. Each counter of a configured model exists from the
start with 0: ``increase()`` of Prometheus does not see the step to a counter's first value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from ....runtime import Node
from ....runtime.scheduling import EVICTION_CAUSES
from ...http1.asgi_types import Send
from ..accounting.metrics import EXITS, HOOK_OUTCOMES, OUTCOMES, TOKENS, UNKNOWN, Metrics
from ..context import ProxyContext
from ..histogram import Histogram
from ..models.catalog import PeerModel
from ..models.public_state import reported_state
from ..monitoring.host import Sample
from ..request import Request
from ..responses import send_bytes
from .nodes import known_nodes, models_on

#: Labels -> value.
Rows: TypeAlias = Mapping[Any, float]

_PLANS = ("start", "evict", "wait", "refuse")
_STATES = ("stopped", "starting", "ready", "sleeping", "stopping", "failed", "shutdown")


async def metrics(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send all metrics."""
    nodes = await known_nodes(proxy)
    registry = CollectorRegistry()
    registry.register(_ProxyCollector(proxy, nodes))
    await send_bytes(send, 200, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4.encode())


class _ProxyCollector(Collector):
    def __init__(self, proxy: ProxyContext, nodes: Sequence[Node]) -> None:
        self._proxy, self._nodes = proxy, nodes

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics at this moment."""
        sample = self._proxy.accounting.samples.latest
        if sample is not None and self._proxy.options.performance_every_s is not None:
            yield from _host(sample)
        yield from _models(self._proxy)
        yield from _nodes(self._proxy, self._nodes)
        yield from _requests(self._proxy)
        yield from _lifecycles(self._proxy)
        yield from _kv(self._proxy)
        yield from _memory(self._proxy)
        yield from _own(self._proxy)


def _gauge(name: str, text: str, values: Rows, *labels: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, values: Rows, *labels: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(
    name: str, text: str, values: Iterable[tuple[Any, Histogram]], *labels: str
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, histogram in values:
        family.add_metric(key, histogram.buckets(), histogram.total)
    return family


# ---- llama-swap's names
def _host(sample: Sample) -> Iterator[Metric]:
    def gauge(name: str, text: str, values: Rows, *labels: str) -> Metric:
        return _gauge(f"llamaswap_{name}", text, values, *labels)

    cores = {(str(core),): busy for core, busy in enumerate(sample.cores)}
    yield gauge("cpu_util_percent", "Utilization of each core.", cores, "core")
    for name, value in (
        ("memory_total", sample.memory_total), ("memory_used", sample.memory_used),
        ("memory_free", sample.memory_available),
        ("swap_total", sample.swap_total), ("swap_used", sample.swap_used),
    ):  # fmt: skip
        yield gauge(f"{name}_bytes", f"{name.replace('_', ' ').capitalize()}.", {(): value})
    load = {(name,): value for name, value in zip(("1m", "5m", "15m"), sample.load, strict=True)}
    yield gauge("load_average", "Load average.", load, "interval")
    transferred: dict[tuple[str, ...], float] = {}
    for item in sample.interfaces:
        transferred[item.name, "recv"], transferred[item.name, "sent"] = item.received, item.sent
    text = "Bytes that each network interface transferred."
    yield _counter("llamaswap_network_bytes", text, transferred, "interface", "direction")
    yield from _gpus(sample)


def _gpus(sample: Sample) -> Iterator[Metric]:
    for name, text, values in (
        ("temperature_celsius", "Temperature of the chip.", [gpu.celsius for gpu in sample.gpus]),
        (
            "vram_temperature_celsius",
            "Temperature of the memory.",
            [gpu.memory_celsius for gpu in sample.gpus],
        ),
        ("util_percent", "Utilization of the chip.", [gpu.busy for gpu in sample.gpus]),
        (
            "memory_util_percent",
            "Utilization of the memory.",
            [gpu.memory_busy for gpu in sample.gpus],
        ),
        ("memory_used_bytes", "Memory in use.", [_bytes(gpu.used_mib) for gpu in sample.gpus]),
        (
            "memory_total_bytes",
            "Size of the memory.",
            [_bytes(gpu.total_mib) for gpu in sample.gpus],
        ),
        ("fan_speed_percent", "Speed of the fan.", [gpu.fan for gpu in sample.gpus]),
        ("power_draw_watts", "Power draw.", [gpu.watts for gpu in sample.gpus]),
    ):
        known = {
            (str(gpu.index), gpu.name, gpu.uuid): value
            for gpu, value in zip(sample.gpus, values, strict=True)
            if value is not None
        }
        if known:
            yield _gauge(f"llamaswap_gpu_{name}", text, known, "id", "name", "uuid")


def _bytes(mib: float | None) -> float | None:
    return None if mib is None else mib * (1 << 20)


# ---- ours
def _models(proxy: ProxyContext) -> Iterator[Metric]:
    states: dict[tuple[str, ...], float] = {}
    busy: dict[tuple[str, ...], float] = {}
    waiting: dict[tuple[str, ...], float] = {}
    failures: dict[tuple[str, ...], float] = {}
    for life in proxy.supervisor.lifecycles():
        name = life.spec.name
        state = reported_state(life)
        for known in _STATES:
            states[name, known] = float(known == state)
        busy[name,], waiting[name,] = life.in_flight, life.waiting
        failures[name,] = life.failures
    for ticket in proxy.supervisor.scheduler.queue:
        waiting[ticket.service,] += 1
    yield _gauge(
        "swapchart_model_state", "1 for the state a model is in.", states, "model", "state"
    )
    yield _gauge("swapchart_in_flight", "Requests that the model is processing.", busy, "model")
    yield _gauge("swapchart_waiting", "Requests that wait for the model.", waiting, "model")
    yield _gauge(
        "swapchart_failures_in_a_row",
        "Failed starts since the model was last stable.",
        failures,
        "model",
    )
    scheduler = proxy.supervisor.scheduler
    yield _gauge("swapchart_queue_length", "Requests in the queue.", {(): len(scheduler.queue)})
    yield _gauge("swapchart_swaps", "Swaps under way.", {(): len(scheduler.swaps)})
    limiter = proxy.supervisor.hook_limiter
    hooks = {("running",): limiter.running, ("waiting",): limiter.waiting}
    yield _gauge(
        "swapchart_hook_commands", "Hook commands of all models, by state.", hooks, "state"
    )
    if limiter.limit is not None:
        yield _gauge(
            "swapchart_hook_limit",
            "Maximum number of hook commands running at once.",
            {(): limiter.limit},
        )


def _nodes(proxy: ProxyContext, nodes: Sequence[Node]) -> Iterator[Metric]:
    up = {(node.name,): float(node.is_alive) for node in nodes}
    yield _gauge("swapchart_node_up", "1 for a node that its engine sees.", up, "node")
    there = {(node.name, life.spec.name): 1.0 for node in nodes for life in models_on(proxy, node)}
    text = "1 for the node on which the server of a model runs."
    yield _gauge("swapchart_model_node", text, there, "node", "model")
    lost = {
        (node.name,): float(len(proxy.supervisor.nodes.lost.get(node.name, ()))) for node in nodes
    }
    text = "Models that may still run on a node that was lost."
    yield _gauge("swapchart_node_lost_models", text, lost, "node")


def _from_zero(keys: Iterable[Any], counts: Rows) -> Rows:
    """Return *counts* with a 0 for each of *keys* that is not in it."""
    return {**dict.fromkeys(keys, 0.0), **counts}


def _requests(proxy: ProxyContext) -> Iterator[Metric]:
    counters: Metrics = proxy.accounting.metrics
    models = [life.spec.name for life in proxy.supervisor.lifecycles()]
    names = [*models, *dict.fromkeys(_names_at_peers(proxy))]
    outcomes = [*product(names, OUTCOMES), UNKNOWN]
    requests = _from_zero(outcomes, counters.requests)
    yield _counter(
        "swapchart_requests", "Finished requests by outcome.", requests, "model", "outcome"
    )
    for name, text, values in (
        ("request_duration", "Time from the arrival to the end.", counters.durations),
        ("request_wait", "Time until the model is ready, or the request ends.", counters.waits),
        ("first_byte", "Time from then to the headers of the response.", counters.first_bytes),
    ):
        rows = [((model,), histogram) for model, histogram in values.items()]
        yield _histogram(f"swapchart_{name}_seconds", text, rows, "model")
    tokens = _from_zero(product(names, TOKENS), counters.tokens)
    yield _counter("swapchart_tokens", "Tokens by kind.", tokens, "model", "kind")
    sent = _by_model(names, counters.sent)
    yield _counter("swapchart_answer_bytes", "Bytes of response bodies.", sent, "model")


def _names_at_peers(proxy: ProxyContext) -> Iterator[str]:
    for target in proxy.catalog.targets.values():
        if isinstance(target, PeerModel):
            yield target.recorded_name


def _by_model(names: Iterable[str], counts: Mapping[str, int]) -> Rows:
    return _from_zero(((name,) for name in names), {(name,): n for name, n in counts.items()})


def _lifecycles(proxy: ProxyContext) -> Iterator[Metric]:
    counters: Metrics = proxy.accounting.metrics
    lifecycles = list(proxy.supervisor.lifecycles())
    models = [life.spec.name for life in lifecycles]
    events = [(life.spec.name, event) for life in lifecycles for event in life.document.events]
    transitions = _from_zero(events, counters.transitions)
    yield _counter("swapchart_transitions", "Transitions by event.", transitions, "model", "event")
    text = "Time in each state of a swap."
    phases = list(counters.phases.items())
    yield _histogram("swapchart_swap_phase_seconds", text, phases, "model", "phase")
    points = [(life.spec.name, point) for life in lifecycles for point in life.spec.hooks]
    outcomes = [(*point, outcome) for point in points for outcome in HOOK_OUTCOMES]
    hooks = _from_zero(outcomes, counters.hooks)
    yield _counter(
        "swapchart_hooks", "Hook actions by outcome.", hooks, "model", "point", "outcome"
    )
    times = list(counters.hook_times.items())
    yield _histogram("swapchart_hook_seconds", "Duration of hook actions.", times, "model", "point")
    exits = _from_zero(product(models, EXITS), counters.exits)
    yield _counter("swapchart_process_exits", "Exits of processes.", exits, "model", "how")
    evictions = _from_zero(product(models, EVICTION_CAUSES), proxy.supervisor.scheduler.evictions)
    yield _counter("swapchart_evictions", "Evictions by cause.", evictions, "model", "cause")
    ledger = proxy.supervisor.scheduler.memory
    shortages = _by_model(models, {} if ledger is None else ledger.failures.counts)
    text = "Ends of models because memory ran out."
    yield _counter("swapchart_out_of_memory", text, shortages, "model")


def _kv(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield metrics of saved prompt caches, if a model has one."""
    kv_facts = proxy.details.get("kv")
    known = {} if kv_facts is None else {name: kv_facts(name) for name in proxy.catalog.models}
    facts = {name: detail for name, detail in known.items() if detail and "verdict" in detail}
    if not facts:
        return
    verdicts = {(name, str(detail["verdict"])): 1.0 for name, detail in facts.items()}
    text = "1 for whether restores help: unknown, works, partial or no-op."
    yield _gauge("swapchart_kv_verdict", text, verdicts, "model", "verdict")

    def rows(key: str) -> Rows:
        return {(name,): float(detail[key]) for name, detail in facts.items()}

    yield _gauge("swapchart_kv_saved_tokens", "Tokens in the store.", rows("saved_tokens"), "model")
    yield _gauge("swapchart_kv_saved_bytes", "Bytes in the store.", rows("saved_bytes"), "model")
    for name, text in (
        ("saves", "Slots saved."), ("restores", "Slots restored."),
        ("failures", "Saves and restores that were aborted or failed."),
    ):  # fmt: skip
        yield _counter(f"swapchart_kv_{name}", text, rows(name), "model")
    tokens = {
        (name, kind): float(detail[f"{kind}_tokens_total"])
        for name, detail in facts.items()
        for kind in ("saved", "restored", "reused")
    }
    text = "Tokens saved, restored, and reused by the first responses after a restore."
    yield _counter("swapchart_kv_tokens", text, tokens, "model", "kind")
    written = rows("saved_bytes_total")
    yield _counter("swapchart_kv_written_bytes", "Bytes of saved slots.", written, "model")


def _memory(proxy: ProxyContext) -> Iterator[Metric]:
    ledger, watch = proxy.supervisor.scheduler.memory, proxy.supervisor.memory_watch
    if ledger is None or not ledger.pools:
        return
    pools: dict[tuple[str, ...], float] = {}
    for name, pool in ledger.pools.items():
        for kind, amount in (
            ("capacity", pool.capacity), ("reserve", pool.reserve), ("foreign", pool.foreign),
            ("held", ledger.held(name)), ("free", ledger.free(name)),
        ):  # fmt: skip
            pools[name, kind] = float(amount)
    text = "Bytes of each memory pool."
    yield _gauge("swapchart_memory_bytes", text, pools, "pool", "kind")
    amounts = {
        (name, pool, kind): float(held)
        for name, entry in proxy.supervisor.scheduler.services.items()
        for kind, by_pool in (("claim", entry.claim), ("seen", entry.seen))
        for pool, held in by_pool.items()
    }
    text = "Bytes that each model was granted, and that it uses."
    yield _gauge("swapchart_model_memory_bytes", text, amounts, "model", "pool", "kind")
    plans = {(kind,): float(ledger.plan_counts[kind]) for kind in _PLANS}
    yield _counter("swapchart_memory_plans", "Plans of memory for a start.", plans, "kind")
    if watch is not None:
        now = proxy.now()
        ages = {
            (name,): now - state.read_at
            for name, state in watch.states.items()
            if state.reading is not None
        }
        text = "Seconds since each pool was read."
        yield _gauge("swapchart_memory_reading_age_seconds", text, ages, "pool")


def _own(proxy: ProxyContext) -> Iterator[Metric]:
    dropped = 0 if proxy.accounting.activity is None else proxy.accounting.activity.dropped
    text = "Requests that were not recorded."
    yield _counter("swapchart_activity_dropped", text, {(): float(dropped)})
    text = "Dropped lines of standard output and standard error."
    yield _counter(
        "swapchart_log_lines_dropped", text, {(): float(proxy.accounting.count_dropped_lines())}
    )
    watch = proxy.loop_watch
    if watch is not None:
        text = "Lag of the event loop, measured twice a second."
        yield _histogram("swapchart_loop_lag_seconds", text, [((), watch.lags)])
        text = "Number of lags of more than a second."
        yield _counter("swapchart_loop_blocked", text, {(): float(watch.blocked)})
