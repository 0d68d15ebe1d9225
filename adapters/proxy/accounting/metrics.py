"""Counters for Prometheus: plain numbers that ``/metrics`` reads.

Labels are names of configured models and constants; no text from a client becomes a label.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from ....runtime import Transition
from ..histogram import Histogram
from .request_record import RequestRecord
from .token_usage import TokenUsage

_DURATIONS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_PHASES_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: Stable states, whose duration says nothing about a swap.
_STABLE = frozenset(
    {"stopped", "ready", "asleep", "backoff", "tripped", "half_open", "stuck", "shut_down"}
)
_STOPPING = frozenset(
    {"aborting", "draining", "before_stop", "terminating", "killing", "sweeping", "stuck"}
)

#: Outcomes of requests: codes of the proxy, and statuses that servers of models often send. A
#: server may send any other status, which is counted from its first response on.
OUTCOMES = (
    "200", "400", "404", "429", "500", "503", "bad_request", "broken", "client_left",
    "concurrency_limit", "exited", "failed", "hook_failed", "internal", "memory_infeasible",
    "model_not_loaded",
    "model_removed", "model_unloaded", "no_room", "out_of_memory", "pinned", "queue_full",
    "queue_timeout", "request_cancelled", "shutting_down", "spawn_failed", "start_stalled",
    "start_timeout", "stopped", "stuck", "unhealthy", "upstream_body", "upstream_connect",
    "upstream_head", "upstream_send",
)  # fmt: skip
#: Model and outcome of requests for a model that does not exist.
UNKNOWN = ("", "model_not_found")
HOOK_OUTCOMES = ("ok", "failed", "timeout", "cancelled")
EXITS = ("asked", "crash")
TOKENS = ("prompt", "generated", "cached", "drafted", "accepted")


def _durations() -> Histogram:
    return Histogram(_DURATIONS_S)


def _phases() -> Histogram:
    return Histogram(_PHASES_S)


class Metrics:
    """All counters of a proxy.

    Attributes:
        requests: (model, status or reason) -> requests.
        durations: Model -> seconds from the arrival to the end.
        waits: Model -> seconds from the arrival until the model is ready, or the request ends.
        first_bytes: Model -> seconds from then to the headers of the response.
        tokens: (model, kind) -> tokens.
        sent: Model -> bytes of response bodies.
        transitions: (model, event) -> transitions.
        phases: (model, state) -> seconds in the state.
        hooks: (model, point, outcome) -> hook actions.
        hook_times: (model, point) -> seconds of a hook action.
        exits: (model, how) -> exits of processes, ``asked`` or ``crash``.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.durations: defaultdict[str, Histogram] = defaultdict(_durations)
        self.waits: defaultdict[str, Histogram] = defaultdict(_durations)
        self.first_bytes: defaultdict[str, Histogram] = defaultdict(_durations)
        self.tokens: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.phases: defaultdict[tuple[str, str], Histogram] = defaultdict(_phases)
        self.hooks: Counter[tuple[str, str, str]] = Counter()
        self.hook_times: defaultdict[tuple[str, str], Histogram] = defaultdict(_phases)
        self.exits: Counter[tuple[str, str]] = Counter()

    def count(self, record: RequestRecord, tokens: TokenUsage) -> None:
        """Count one finished request."""
        model = record.model
        self.requests[model, record.code or str(record.status)] += 1
        self.sent[model] += record.sent_bytes
        self.durations[model].add(record.ended - record.started)
        self.waits[model].add((record.admitted or record.ended) - record.started)
        if record.headers_at:
            self.first_bytes[model].add(record.headers_at - record.admitted)
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

    def count_unknown(self) -> None:
        """Count one request for a model that does not exist, under an empty name."""
        self.requests[UNKNOWN] += 1

    def on_transition(self, record: Transition) -> None:
        """Count one transition; for ``Supervisor.listen``."""
        model = record.service
        self.transitions[model, record.event] += 1
        if record.source not in _STABLE:
            self.phases[model, record.source].add(record.seconds)
        for hook in record.hooks:
            self.hooks[model, hook.point, hook.outcome] += 1
            self.hook_times[model, hook.point].add(hook.seconds)
        if record.event == "proc_exited":
            self.exits[model, "asked" if record.source in _STOPPING else "crash"] += 1
