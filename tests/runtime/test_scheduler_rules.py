"""Scheduler: invariants after each event of any sequence of events."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swapchart.runtime import EvictionPolicy, QueueLimits
from swapchart.runtime.scheduler import Scheduler
from swapchart.runtime.scheduling import (
    Decision,
    Evict,
    Grant,
    Phase,
    QueuedRequest,
    Refuse,
    one_at_a_time,
)
from swapchart.runtime.waiter import PendingRequest

NAMES = ("a1", "a2", "b1", "b2", "c")
MAX_WAIT_S, TIMEOUT_S, LENGTH = 30.0, 300.0, 12
ACTIVE = ("starting", "ready", "stopping")


def by_letter(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return the services with the letter of *target*; c excludes all others."""
    return frozenset(
        name for name in running - {target} if "c" in (name, target) or name[0] == target[0]
    )


class SchedulerRules(RuleBasedStateMachine):
    """Acts as supervisor and lifecycles; decisions are carried out late and in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waiting: dict[str, set[QueuedRequest]] = {}  # granted, waiting for the start
        self.served: dict[str, list[QueuedRequest]] = {}
        self.submitted: list[QueuedRequest] = []
        self.queued_at: dict[QueuedRequest, float] = {}
        self.ended: set[QueuedRequest] = set()

    @initialize(
        policy=st.sampled_from([one_at_a_time, by_letter]), limit=st.sampled_from([None, 2]),
        residency=st.sampled_from([0.0, 10.0]), pinned=st.booleans(),
    )  # fmt: skip
    def begin(
        self, policy: EvictionPolicy, limit: int | None, residency: float, pinned: bool
    ) -> None:
        limits = QueueLimits(
            length=LENGTH, timeout_s=TIMEOUT_S, max_wait_s=MAX_WAIT_S, min_residency_s=residency
        )
        self.policy = policy
        self.scheduler = Scheduler(policy=policy, limits=limits)
        for name in NAMES:
            self.scheduler.add(name, limit=limit, is_pinned=pinned and name == "a1")
            self.waiting[name], self.served[name] = set(), []

    def add(self, name: str) -> None:
        self.scheduler.add(name)

    # ---- the supervisor
    def apply(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Grant(request=request):
                    self.grant(request)
                case Evict(service=service):
                    self.evict(service)
                case Refuse(request=request):
                    assert request not in self.ended, "decided twice"
                    assert not request.is_queued
                    self.ended.add(request)

    def grant(self, request: QueuedRequest) -> None:
        assert request not in self.ended, "granted after its end"
        assert not request.is_queued
        name = request.service
        request.was_granted = True
        phase = self.scheduler.services[name].phase
        assert phase == "ready" or request.may_start, "started by a request that may not"
        if phase == "ready":
            self.served[name].append(request)
        else:
            assert phase in ("starting", "stopping"), "no start is under way"
            self.waiting[name].add(request)

    def evict(self, name: str) -> None:
        """Stop a lifecycle: at once without a process, else later."""
        entry = self.scheduler.services[name]
        assert not entry.granted, "a busy service was evicted"
        assert not entry.is_pinned, "a pinned service was evicted"
        if entry.phase == "reviving":
            self.phase(name, "failed")
        elif entry.phase != "stopping":
            self.phase(name, "stopping")

    def phase(self, name: str, phase: Phase) -> None:
        self.apply(self.scheduler.phase_changed(name, phase, self.now))

    def refuse_waiting(self, name: str) -> None:
        refused, self.waiting[name] = self.waiting[name], set()
        for request in refused:
            self.ended.add(request)
            self.apply(self.scheduler.finished(name, self.now))

    def phases(self, *phases: Phase) -> list[str]:
        return [n for n, entry in self.scheduler.services.items() if entry.phase in phases]

    # ---- events
    @rule(
        name=st.sampled_from(NAMES), priority=st.integers(0, 2), client=st.sampled_from("xyz"),
        may_start=st.sampled_from([True, True, False]),
    )  # fmt: skip
    def submit(self, name: str, priority: int, client: str, may_start: bool) -> None:
        if name not in self.scheduler.services:
            self.add(name)
        request, decisions = self.scheduler.submit(
            name, PendingRequest(), self.now, priority=priority, client=client,
            may_start=may_start,
        )  # fmt: skip
        self.submitted.append(request)
        self.apply(decisions)

    @rule(data=st.data())
    @precondition(lambda self: self.phases("starting"))
    def become_ready(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("starting")))
        admitted, self.waiting[name] = self.waiting[name], set()
        self.served[name] += admitted
        self.phase(name, "ready")

    @rule(data=st.data(), then=st.sampled_from(["stopped", "failed", "reviving"]))
    @precondition(lambda self: self.phases("starting", "ready"))
    def crash(self, data: st.DataObject, then: Phase) -> None:
        name = data.draw(st.sampled_from(self.phases("starting", "ready")))
        self.phase(name, "stopping")
        refused, self.waiting[name] = self.waiting[name], set()
        self.phase(name, then)
        for request in refused:  # refused at once, and reported after that
            self.ended.add(request)
            self.apply(self.scheduler.finished(name, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.phases("stopping"))
    def complete_stop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("stopping")))
        self.phase(name, "starting" if self.waiting[name] else "stopped")

    @rule(data=st.data())
    @precondition(lambda self: self.phases("ready", "starting"))
    def unload(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("ready", "starting")))
        for request in self.scheduler.clear(name):
            self.ended.add(request)
        self.phase(name, "stopping")
        self.refuse_waiting(name)
        self.apply(self.scheduler.tick(self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.phases("ready"))
    def fall_asleep(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("ready")))
        if not self.served[name]:
            self.phase(name, "stopping")
            self.phase(name, "starting" if self.waiting[name] else "asleep")

    @rule(data=st.data())
    @precondition(lambda self: self.phases("failed", "reviving"))
    def cool_down(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("failed", "reviving")))
        self.phase(
            name, "starting" if self.scheduler.services[name].phase == "reviving" else "stopped"
        )

    @rule(data=st.data())
    @precondition(lambda self: any(self.served.values()))
    def finish(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([n for n in NAMES if self.served[n]]))
        self.ended.add(self.served[name].pop())
        self.apply(self.scheduler.finished(name, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.scheduler.queue or any(self.waiting.values()))
    def cancel(self, data: st.DataObject) -> None:
        granted = [t for n in NAMES for t in sorted(self.waiting[n], key=lambda t: t.number)]
        request = data.draw(st.sampled_from([*self.scheduler.queue, *granted]))
        self.ended.add(request)
        if request.is_queued:
            self.apply(self.scheduler.cancel(request, self.now))
        else:
            self.waiting[request.service].discard(request)
            self.apply(self.scheduler.finished(request.service, self.now))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name: str) -> None:
        entry = self.scheduler.services.get(name)
        if entry is not None and entry.phase in ("stopped", "failed") and not entry.granted:
            self.apply(self.scheduler.remove(name, self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """Advance the time with all ticks that the scheduler requests."""
        end = self.now + seconds
        while (at := self.scheduler.next_tick(self.now)) is not None and at <= end:
            self.now = max(self.now, at)
            before = [request.number for request in self.scheduler.queue]
            self.apply(self.scheduler.tick(self.now))
            again = self.scheduler.next_tick(self.now)
            assert (
                again is None
                or again > self.now
                or before != [request.number for request in self.scheduler.queue]
            ), "a tick without effect requests another at once"
        self.now = end

    # ---- invariants
    @invariant()
    def exclusive_services_never_run_together(self) -> None:
        """Of two services that exclude each other, at most one holds resources at a time.

        A stopping service does not count, since it may have been asleep beside the other.
        """
        active = [
            name
            for name, entry in self.scheduler.services.items()
            if entry.phase in ("starting", "ready")
        ]
        for name in active:
            others = frozenset(active) - {name}
            assert not self.policy(name, others), f"{name} beside {others}"

    @invariant()
    def grants_are_counted_once(self) -> None:
        """Granted requests are those that wait for a start or are in flight."""
        for name, entry in self.scheduler.services.items():
            assert entry.granted == len(self.waiting[name]) + len(self.served[name])
            assert entry.limit is None or entry.granted <= entry.limit

    @invariant()
    def every_request_is_in_one_place(self) -> None:
        """A request is queued, granted or ended."""
        queued = set(self.scheduler.queue)
        granted = {t for n in NAMES for t in [*self.waiting[n], *self.served[n]]}
        assert len(queued) == len(self.scheduler.queue)
        assert not queued & granted
        assert not (queued | granted) & self.ended
        assert queued | granted | self.ended == set(self.submitted)
        assert len(queued) <= LENGTH

    @invariant()
    def no_request_waits_past_the_timeout(self) -> None:
        """No queued request is older than the timeout."""
        assert all(self.now < request.since + TIMEOUT_S for request in self.scheduler.queue)

    @invariant()
    def queued_requests_have_a_reason(self) -> None:
        """Each queued request has a reason why it waits."""
        for request in self.scheduler.queue:
            assert request.why

    @invariant()
    def the_queue_is_in_order(self) -> None:
        """The order is by priority, then by arrival within a service and within a client."""
        queue = self.scheduler.queue
        arrivals: dict[tuple[str, int], list[int]] = {}
        clients: dict[tuple[str, int, str], list[int]] = {}
        for request in queue:
            arrivals.setdefault((request.service, request.priority), []).append(request.number)
            key = request.service, request.priority, request.client
            clients.setdefault(key, []).append(request.number)
        places = {key: iter(sorted(numbers)) for key, numbers in arrivals.items()}
        ranks = [(-each.priority, next(places[each.service, each.priority])) for each in queue]
        assert ranks == sorted(ranks)
        assert all(numbers == sorted(numbers) for numbers in clients.values())
        for (name, _), numbers in arrivals.items():
            if self.scheduler.services[name].limit is None:
                assert numbers == sorted(numbers)

    @invariant()
    def swaps_have_a_request_and_an_active_service(self) -> None:
        """A request waits for the target of each swap, and an evicted service is still active."""
        for target, evicted in self.scheduler.swaps.items():
            assert any(request.service == target for request in self.scheduler.queue)
            assert evicted
            phases = {
                self.scheduler.services[n].phase for n in evicted if n in self.scheduler.services
            }
            assert phases & set(ACTIVE)

    @invariant()
    def open_entries_are_ready_and_not_evicted(self) -> None:
        """The hot path takes no place from a queued request."""
        leaving = {name for evicted in self.scheduler.swaps.values() for name in evicted}
        for entry in self.scheduler.services.values():
            if entry.is_open:
                assert entry.phase == "ready"
                assert entry.name not in leaving

    def teardown(self) -> None:
        """Finish all requests and starts, and check that the queue becomes empty."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(200):
            for name in NAMES:
                while self.served[name]:
                    self.ended.add(self.served[name].pop())
                    self.apply(self.scheduler.finished(name, self.now))
            for name in self.phases("starting", "reviving"):
                admitted, self.waiting[name] = self.waiting[name], set()
                self.served[name] += admitted
                self.phase(name, "ready")
            for name in self.phases("stopping"):
                self.phase(name, "starting" if self.waiting[name] else "stopped")
            self.time_passes(10.0)
            if not self.scheduler.queue and not any(
                [*self.served.values(), *self.waiting.values()]
            ):
                break
        assert self.scheduler.queue == []
        assert self.scheduler.swaps == {}
        assert all(entry.granted == 0 for entry in self.scheduler.services.values())
        assert self.ended == set(self.submitted)


TestSchedulerRules = SchedulerRules.TestCase
TestSchedulerRules.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
