"""A simulated day of requests for twelve models that share one card.

The scheduler and the memory ledger are those of the proxy; loads, stops and requests are entries of
an event list, so no process runs and no time passes. Clients are a closed loop: each session waits
for a response, thinks, and requests again.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

from swapchart.runtime import MemoryLedger, QueueLimits
from swapchart.runtime.eviction import AllOf, ServiceRef, matrix_policy, no_evictions
from swapchart.runtime.memory import CostFunction, MemoryNeed, Pool, Rules, lru_cost, reload_cost
from swapchart.runtime.scheduler import Scheduler
from swapchart.runtime.scheduling import Decision, Evict, Grant, one_at_a_time
from swapchart.runtime.waiter import PendingRequest

GIB = 1 << 30
#: Model -> memory that it needs, in GiB.
MODELS: Mapping[str, int] = {
    "embed": 2, "rerank": 2, "whisper": 3, "tiny4b": 4, "coder8b": 7, "vision8b": 8,
    "chat14b": 11, "flux": 14, "coder30b": 19, "chat32b": 21, "gptoss": 30, "reason70b": 40,
}  # fmt: skip
RESERVE_GIB = 1
STOP_S = 1.2
MAX_WAIT_S = 30.0
SESSIONS_PER_HOUR = 9
_READ_GIB_PER_S = 1.2
_COMPILE_S = {"flux": 18.0, "chat14b": 55.0, "coder30b": 70.0}  # engines that compile at start
_REQUEST_S = {"embed": 0.15, "rerank": 0.15, "whisper": 1.2}
_HELPERS = ("embed", "rerank", "whisper", "tiny4b")
_MIDDLE = ("coder8b", "vision8b", "chat14b", "flux")
_LARGE = ("coder30b", "chat32b", "gptoss", "reason70b")


def load_s(model: str) -> float:
    """Return the time that a start of *model* takes, in seconds."""
    return 1.5 + MODELS[model] / _READ_GIB_PER_S + _COMPILE_S.get(model, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the models to evict are chosen.

    Attributes:
        name: Name in the table.
        kind: Base of the decision.
        count: Models that may run together, for kind ``count``.
        cost: Cost of an eviction, for kind ``memory``.
        min_residency_s: As `QueueLimits` has it; infinity is ``minResidency: auto``.
    """

    name: str
    kind: Literal["one", "count", "matrix", "memory"]
    count: int = 1
    cost: CostFunction = reload_cost
    min_residency_s: float = 0.0


ONE = Policy(name="one at a time", kind="one")
COST = Policy(name="memory, cost", kind="memory")
POLICIES = (
    ONE,
    Policy(name="LRU by count, 1", kind="count", count=1),
    Policy(name="LRU by count, 3", kind="count", count=3),
    Policy(name="matrix by hand", kind="matrix"),
    Policy(name="memory, LRU", kind="memory", cost=lru_cost),
    COST,
    Policy(name="memory, cost, residency auto", kind="memory", min_residency_s=math.inf),
)


class Turn(NamedTuple):
    """One request of a session: its model, and the seconds of the response and before the next."""

    model: str
    request_s: float
    think_s: float


class Session(NamedTuple):
    """A session that goes on with its turn at *index*."""

    turns: Sequence[Turn]
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """Result of one simulated day.

    Attributes:
        waits_s: Wait of each request for its model, ascending, in seconds.
        loads: Number of starts.
        swap_s: Time in which models started or stopped, in seconds.
        over: Starts that found less memory than they needed, so would have crashed.
    """

    waits_s: Sequence[float]
    loads: int
    swap_s: float
    over: int

    @property
    def mean_s(self) -> float:
        """Mean wait in seconds."""
        return sum(self.waits_s) / len(self.waits_s)

    def quantile_s(self, part: float) -> float:
        """Return the wait that *part* of the requests do not exceed; seconds."""
        return self.waits_s[min(int(part * len(self.waits_s)), len(self.waits_s) - 1)]


def sessions(seed: int, hours: float, models: Sequence[str]) -> list[tuple[float, Session]]:
    """Return the sessions of a day with the second in which each begins.

    A session uses one to three models in turns, more often the popular ones (Zipf, 0.9).
    """
    rng = random.Random(seed)
    order = rng.sample(models, len(models))
    weights = [1 / rank**0.9 for rank in range(1, len(order) + 1)]
    found: list[tuple[float, Session]] = []
    at = 0.0
    while True:
        at += rng.expovariate(SESSIONS_PER_HOUR / 3600)
        if at > hours * 3600:
            return found
        count = rng.choices([1, 2, 3], [5, 4, 2])[0]
        used: dict[str, None] = {}
        while len(used) < count:
            used[rng.choices(order, weights)[0]] = None
        found.append((at, Session(list(_turns(rng, list(used))), 0)))


def _turns(rng: random.Random, used: Sequence[str]) -> Iterable[Turn]:
    for index in range(max(1, int(rng.expovariate(1 / 16)))):
        model = used[index % len(used)] if rng.random() < 0.8 else rng.choice(used)
        request_s = _REQUEST_S.get(model, 3.0 + MODELS[model] / 6)
        yield Turn(model, rng.expovariate(1 / request_s), rng.expovariate(1 / 8.0))


def sets_by_hand(card_gib: int) -> dict[str, AllOf]:
    """Return the sets that a careful user would write for a card: helpers beside larger models."""
    cores: list[tuple[str, ...]] = [(name,) for name in _LARGE]
    cores += itertools.combinations(_MIDDLE, 2)
    cores += itertools.product(_LARGE, _MIDDLE)
    if card_gib >= 48:
        cores += [*itertools.combinations(_LARGE, 2), _MIDDLE]
    cores += [*((name,) for name in _MIDDLE), ("tiny4b",)]
    sets: dict[str, AllOf] = {}
    for core in cores:
        left = card_gib - RESERVE_GIB - sum(MODELS[name] for name in core)
        members = list(core)
        if left < 0:
            continue
        for name in _HELPERS:
            if name not in core and MODELS[name] <= left:
                members.append(name)
                left -= MODELS[name]
        sets["+".join(core)] = AllOf(tuple(map(ServiceRef, members)))
    return sets


_Action: TypeAlias = Callable[[], None]


class Simulation:
    """One day on a card of *card_gib* GiB under *policy*."""

    def __init__(self, seed: int, hours: float, card_gib: int, policy: Policy) -> None:
        self._budget = card_gib - RESERVE_GIB
        models = [name for name, need in MODELS.items() if need <= self._budget]
        self._policy = policy
        self._now = 0.0
        self._events: list[tuple[float, int, _Action]] = []
        self._order = itertools.count()
        self._tick_at = math.inf
        self._waiting: dict[int, tuple[float, Session]] = {}  # request -> arrival, session
        self._starting: defaultdict[str, list[tuple[float, Session]]] = defaultdict(list)
        self._up: dict[str, str] = {}  # model that holds memory -> starting, ready or stopping
        self._waits_s: list[float] = []
        self._loads = self._over = 0
        self._swap_s = 0.0
        self._scheduler = self._make_scheduler(card_gib)
        for name in models:
            need = MemoryNeed(options=({"GPU0": MODELS[name] * GIB},))
            self._scheduler.add(name, need=need if policy.kind == "memory" else None)
        for at, session in sessions(seed, hours, models):
            self._at(at, partial(self._arrive, session))

    def _make_scheduler(self, card_gib: int) -> Scheduler:
        policy = self._policy
        limits = QueueLimits(
            length=10**9, timeout_s=None, max_wait_s=MAX_WAIT_S,
            min_residency_s=policy.min_residency_s,
        )  # fmt: skip
        if policy.kind == "memory":
            pool = Pool(name="GPU0", capacity=card_gib * GIB, reserve=RESERVE_GIB * GIB)
            ledger = MemoryLedger([pool], Rules(cost=policy.cost))
            return Scheduler(policy=no_evictions, limits=limits, memory=ledger)
        if policy.kind == "matrix":
            return Scheduler(policy=matrix_policy(sets_by_hand(card_gib)), limits=limits)
        return Scheduler(policy=one_at_a_time, limits=limits)

    def run(self) -> Day:
        """Return the result of the day; every request has been served."""
        scheduler = self._scheduler
        while self._events:
            self._now, _, act = heapq.heappop(self._events)
            if self._policy.kind == "count":
                scheduler.policy = partial(self._beyond_count)  # a new one: its results change
            act()
            if (at := scheduler.next_tick(self._now)) is not None and at < self._tick_at:
                self._tick_at = at
                self._at(at, self._tick)
        assert not self._waiting, "requests were not served"
        return Day(
            waits_s=sorted(self._waits_s), loads=self._loads, swap_s=self._swap_s, over=self._over
        )

    def _beyond_count(self, target: str, running: frozenset[str]) -> frozenset[str]:
        """Return the least recently used models beyond the count, those with requests last."""
        if target in running and self._up.get(target) != "stopping":
            return frozenset()
        entries = self._scheduler.services
        others = sorted(
            running - {target},
            key=lambda name: (entries[name].granted > 0, entries[name].used_at, name),
        )
        return frozenset(others[: max(len(others) + 1 - self._policy.count, 0)])

    # ---- events
    def _at(self, at: float, act: _Action) -> None:
        heapq.heappush(self._events, (at, next(self._order), act))

    def _tick(self) -> None:
        self._tick_at = math.inf
        self._perform(self._scheduler.tick(self._now))

    def _arrive(self, session: Session) -> None:
        model = session.turns[session.index].model
        request, decisions = self._scheduler.submit(model, PendingRequest(), self._now)
        self._waiting[request.number] = self._now, session
        self._perform(decisions)

    def _ready(self, model: str) -> None:
        self._up[model] = "ready"
        decisions = self._scheduler.phase_changed(model, "ready", self._now)
        for since, session in self._starting.pop(model):
            self._serve(since, session)
        self._perform(decisions)

    def _stopped(self, model: str) -> None:
        del self._up[model]
        self._perform(self._scheduler.phase_changed(model, "stopped", self._now))

    def _serve(self, since: float, session: Session) -> None:
        self._waits_s.append(self._now - since)
        self._at(self._now + session.turns[session.index].request_s, partial(self._end, session))

    def _end(self, session: Session) -> None:
        turn, index = session.turns[session.index], session.index + 1
        if index < len(session.turns):
            following = Session(session.turns, index)
            self._at(self._now + turn.think_s, partial(self._arrive, following))
        self._perform(self._scheduler.finished(turn.model, self._now))

    # ---- decisions
    def _perform(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Grant(request):
                    self._grant(request.service, *self._waiting.pop(request.number))
                case Evict(service):
                    self._stop(service)
                case _:
                    raise AssertionError(f"no request is ever refused here: {decision}")

    def _grant(self, model: str, since: float, session: Session) -> None:
        if self._up.get(model) == "ready":
            self._serve(since, session)
            return
        self._starting[model].append((since, session))
        if model in self._up:
            return
        self._up[model] = "starting"
        self._loads += 1
        self._swap_s += load_s(model)
        self._over += sum(MODELS[name] for name in self._up) > self._budget
        self._at(self._now + load_s(model), partial(self._ready, model))
        self._perform(self._scheduler.phase_changed(model, "starting", self._now))

    def _stop(self, model: str) -> None:
        assert self._up[model] == "ready", f"{model} is evicted while it is {self._up[model]}"
        self._up[model] = "stopping"
        self._swap_s += STOP_S
        self._at(self._now + STOP_S, partial(self._stopped, model))
        self._perform(self._scheduler.phase_changed(model, "stopping", self._now))
