"""Metrics of models: states, swaps, hooks, exits, evictions, and the nodes that they run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from prometheus_client.metrics_core import Metric

from .....runtime import Node
from .....runtime.scheduling import EVICTION_CAUSES
from ...accounting.metrics import EXITS, HOOK_OUTCOMES, Metrics
from ...context import ProxyContext
from ...models.public_state import reported_state
from ..nodes import models_on
from .families import by_model, counter, from_zero, gauge, histogram

_STATES = ("stopped", "starting", "ready", "sleeping", "stopping", "failed", "shutdown")


def models(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield the present state of all models, and of what is shared between them."""
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
    text = "State of each model: 1 for the state that it is in, 0 for the others."
    yield gauge("swapchart_model_state", text, states, "model", "state")
    text = "Requests that each model is processing."
    yield gauge("swapchart_requests_in_flight", text, busy, "model")
    text = "Requests that wait for each model, in the queue or for its start."
    yield gauge("swapchart_requests_waiting", text, waiting, "model")
    text = "Failed starts and crashes of each model since it was last stable."
    yield gauge("swapchart_model_consecutive_failures", text, failures, "model")
    yield from _shared(proxy)


def _shared(proxy: ProxyContext) -> Iterator[Metric]:
    scheduler, limiter = proxy.supervisor.scheduler, proxy.supervisor.hook_limiter
    text = "Requests in the queue, over all models."
    yield gauge("swapchart_queue_length", text, {(): len(scheduler.queue)})
    text = "Swaps in progress: models that wait until others have stopped."
    yield gauge("swapchart_swaps_in_progress", text, {(): len(scheduler.swaps)})
    hooks = {("running",): limiter.running, ("waiting",): limiter.waiting}
    text = "Hook commands of all models that run, and that wait for their turn."
    yield gauge("swapchart_hook_commands", text, hooks, "state")
    if limiter.limit is not None:
        text = "Maximum number of hook commands running at once."
        yield gauge("swapchart_hook_commands_limit", text, {(): limiter.limit})


def nodes(proxy: ProxyContext, known: Sequence[Node]) -> Iterator[Metric]:
    """Yield which of the *known* nodes are up, and what runs there."""
    up = {(node.name,): float(node.is_alive) for node in known}
    text = "Whether the engine of the cluster sees each node: 1 if it does, else 0."
    yield gauge("swapchart_node_up", text, up, "node")
    there = {(node.name, life.spec.name): 1.0 for node in known for life in models_on(proxy, node)}
    text = "Node on which the server of each model runs: always 1."
    yield gauge("swapchart_model_node", text, there, "node", "model")
    lost = {
        (node.name,): float(len(proxy.supervisor.nodes.lost.get(node.name, ()))) for node in known
    }
    text = "Models that may still run on each node that was lost."
    yield gauge("swapchart_node_lost_models", text, lost, "node")


def lifecycles(proxy: ProxyContext) -> Iterator[Metric]:
    """Yield what the lifecycles of all models have done so far."""
    counters: Metrics = proxy.accounting.metrics
    known = list(proxy.supervisor.lifecycles())
    names = [life.spec.name for life in known]
    events = [(life.spec.name, event) for life in known for event in life.document.events]
    transitions = from_zero(events, counters.transitions)
    text = "Transitions of each model's lifecycle, by the event that caused them."
    yield counter("swapchart_transitions", text, transitions, "model", "event")
    text = "Time in seconds that each model spent in a state of a swap, such as health_checking."
    phases = list(counters.phases.items())
    yield histogram("swapchart_swap_phase_seconds", text, phases, "model", "phase")
    points = [(life.spec.name, point) for life in known for point in life.spec.hooks]
    outcomes = [(*point, outcome) for point in points for outcome in HOOK_OUTCOMES]
    hooks = from_zero(outcomes, counters.hooks)
    text = "Hook actions of each model that have ended, by hook point and outcome."
    yield counter("swapchart_hooks", text, hooks, "model", "point", "outcome")
    times = list(counters.hook_times.items())
    text = "Duration in seconds of the hook actions of each model, with all attempts and pauses."
    yield histogram("swapchart_hook_duration_seconds", text, times, "model", "point")
    exits = from_zero(product(names, EXITS), counters.exits)
    text = "Exits of each model's process: asked for by swapchart, or a crash."
    yield counter("swapchart_process_exits", text, exits, "model", "how")
    evictions = from_zero(product(names, EVICTION_CAUSES), proxy.supervisor.scheduler.evictions)
    text = "Evictions of each model, by cause."
    yield counter("swapchart_evictions", text, evictions, "model", "cause")
    ledger = proxy.supervisor.scheduler.memory
    shortages = by_model(names, {} if ledger is None else ledger.failures.counts)
    text = "Ends of each model's process because memory ran out."
    yield counter("swapchart_out_of_memory", text, shortages, "model")
