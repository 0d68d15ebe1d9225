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


def _phases() -> Histogram:
    return Histogram(_PHASES_S)


class ModelCounters:
    """Counters of the requests for one model.

    Attributes:
        outcomes: Status or reason -> requests.
        durations: Seconds from the arrival to the end.
        waits: Seconds from the arrival until the model is ready, or the request ends.
        first_bytes: Seconds from then to the headers of the response.
        sent: Bytes of response bodies.
        prompt: Tokens of prompts.
        generated: Tokens of responses.
        cached: Tokens of prompts that were in the server's cache.
        drafted: Tokens that a draft model proposed.
        accepted: Proposed tokens that were accepted.
    """

    __slots__ = (
        "accepted", "cached", "drafted", "durations", "first_bytes", "generated", "outcomes",
        "prompt", "sent", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.outcomes: dict[int | str, int] = {}
        self.durations, self.waits = Histogram(_DURATIONS_S), Histogram(_DURATIONS_S)
        self.first_bytes = Histogram(_DURATIONS_S)
        self.sent = self.prompt = self.generated = self.cached = self.drafted = self.accepted = 0

    def count(self, record: RequestRecord, tokens: TokenUsage) -> None:
        """Count one finished request."""
        outcome: int | str = record.code or record.status
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.sent += record.sent_bytes
        started, admitted, headers_at = record.started, record.admitted, record.headers_at
        self.durations.add(record.ended - started)
        self.waits.add((admitted or record.ended) - started)
        if headers_at:
            self.first_bytes.add(headers_at - admitted)
        if tokens.prompt > 0:
            self.prompt += tokens.prompt
        if tokens.completion > 0:
            self.generated += tokens.completion
        if tokens.cached > 0:
            self.cached += tokens.cached
        if tokens.drafted > 0:
            self.drafted += tokens.drafted
        if tokens.accepted > 0:
            self.accepted += tokens.accepted


class Metrics:
    """All counters of a proxy.

    Attributes:
        models: Model -> counters of its requests.
        unknown: Requests for models that do not exist.
        transitions: (model, event) -> transitions.
        phases: (model, state) -> seconds in the state.
        hooks: (model, point, outcome) -> hook actions.
        hook_times: (model, point) -> seconds of a hook action.
        exits: (model, how) -> exits of processes, ``asked`` or ``crash``.
    """

    def __init__(self) -> None:
        self.models: dict[str, ModelCounters] = {}
        self.unknown = 0
        self.transitions: Counter[tuple[str, str]] = Counter()
        self.phases: defaultdict[tuple[str, str], Histogram] = defaultdict(_phases)
        self.hooks: Counter[tuple[str, str, str]] = Counter()
        self.hook_times: defaultdict[tuple[str, str], Histogram] = defaultdict(_phases)
        self.exits: Counter[tuple[str, str]] = Counter()

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """Number of requests by model and status or reason."""
        found = Counter({UNKNOWN: self.unknown} if self.unknown else {})
        for model, counters in self.models.items():
            for outcome, number in counters.outcomes.items():
                found[model, str(outcome)] += number
        return found

    @property
    def tokens(self) -> Counter[tuple[str, str]]:
        """Number of tokens by model and kind."""
        found: Counter[tuple[str, str]] = Counter()
        for model, counters in self.models.items():
            for kind in TOKENS:
                if number := getattr(counters, kind):
                    found[model, kind] = number
        return found

    def count(self, record: RequestRecord, tokens: TokenUsage) -> None:
        """Count one finished request."""
        counters = self.models.get(record.model)
        if counters is None:
            counters = self.models[record.model] = ModelCounters()
        counters.count(record, tokens)

    def count_unknown(self) -> None:
        """Count one request for a model that does not exist, under an empty name."""
        self.unknown += 1

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
