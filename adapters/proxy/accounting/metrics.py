"""Counts what happens, for Prometheus: plain numbers, read when somebody asks.

Labels are names of models of the configuration and words of our own; nothing that a client sends
becomes one.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from ....runtime import Transition
from ..histogram import Histogram
from .request_record import RequestRecord
from .token_usage import TokenUsage

_DURATIONS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PHASES_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: States in which a model rests; how long they last says nothing about a swap.
_RESTING = frozenset(
    {"stopped", "ready", "asleep", "backoff", "tripped", "half_open", "stuck", "shut_down"}
)
_STOPPING = frozenset(
    {"aborting", "draining", "before_stop", "terminating", "killing", "sweeping", "stuck"}
)
_STOP_EVENTS = frozenset({"stop", "kill", "give_way"})


def _durations() -> Histogram:
    return Histogram(_DURATIONS_S)


def _phases() -> Histogram:
    return Histogram(_PHASES_S)


class Metrics:
    """All counters of a proxy.

    Attributes:
        requests: (model, status or reason) -> requests.
        durations: Model -> from coming to the end.
        waits: Model -> from coming to the model's being ready.
        heads: Model -> from being ready to the head of the answer.
        tokens: (model, kind) -> tokens.
        sent: Model -> bytes of answers.
        transitions: (model, event) -> transitions.
        phases: (model, state) -> how long it lasted.
        hooks: (model, point, outcome) -> hook actions.
        hook_times: (model, point) -> how long they took.
        exits: (model, how) -> ends of processes; ``crash`` is one that nobody asked for.
        evictions: Model -> stops for the sake of another.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(_durations)
        self.waits: defaultdict[str, Histogram] = defaultdict(_durations)
        self.heads: defaultdict[str, Histogram] = defaultdict(_durations)
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.phases: defaultdict[tuple[str, str], Histogram] = defaultdict(_phases)
        self.hooks: Counter[tuple[str, str, str]] = Counter()
        self.hook_times: defaultdict[tuple[str, str], Histogram] = defaultdict(_phases)
        self.exits: Counter[tuple[str, str]] = Counter()
        self.evictions: Counter[str] = Counter()

    def count(self, exchange: RequestRecord, tokens: TokenUsage) -> None:
        """Count one finished request."""
        model = exchange.model
        self.requests[model, exchange.code or str(exchange.status)] += 1
        self.sent[model] += exchange.sent_bytes
        self.durations[model].add(exchange.ended - exchange.started)
        if exchange.admitted:
            self.waits[model].add(exchange.admitted - exchange.started)
        if exchange.head:
            self.heads[model].add(exchange.head - exchange.admitted)
        if tokens.prompt > 0:
            self.tokens[model, "prompt"] += tokens.prompt
        if tokens.completion > 0:
            self.tokens[model, "generated"] += tokens.completion
        if tokens.cached > 0:
            self.tokens[model, "cached"] += tokens.cached
        if tokens.drafted > 0:
            self.tokens[model, "drafted"] += tokens.drafted
        if tokens.accepted > 0:
            self.tokens[model, "accepted"] += tokens.accepted

    def on_transition(self, record: Transition) -> None:
        """Count one transition; for ``Supervisor.listen``."""
        model = record.service
        self.transitions[model, record.event] += 1
        if record.source not in _RESTING:
            self.phases[model, record.source].add(record.seconds)
        for hook in record.hooks:
            self.hooks[model, hook.point, hook.outcome] += 1
            self.hook_times[model, hook.point].add(hook.seconds)
        if record.event == "proc_exited":
            self.exits[model, "asked" if record.source in _STOPPING else "crash"] += 1
        if record.event in _STOP_EVENTS and record.cause.startswith("evicted for "):
            self.evictions[model] += 1
