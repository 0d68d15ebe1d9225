"""The scheduler against whatever order of events: what must hold after each of them."""

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
    """Let services of one letter exclude each other, and c exclude everything."""
    return frozenset(
        name for name in running - {target} if "c" in (name, target) or name[0] == target[0]
    )


class SchedulerRules(RuleBasedStateMachine):
    """Plays supervisor and lifecycles: carries out decisions late, and in any order it may."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waiting: dict[str, set[QueuedRequest]] = {}  # granted, waiting for the start
        self.served: dict[str, list[QueuedRequest]] = {}
        self.asked: list[QueuedRequest] = []
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

    # ---- what the supervisor does with decisions
    def take(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            match decision:
                case Grant(request=request):
                    self.grant(request)
                case Evict(service=service):
                    self.evict(service)
                case Refuse(request=request):
                    assert request not in self.ended, "answered twice"
                    assert not request.is_queued
                    self.ended.add(request)

    def grant(self, request: QueuedRequest) -> None:
        assert request not in self.ended, "granted after its end"
        assert not request.is_queued
        name = request.service
        request.was_granted = True
        phase = self.scheduler.services[name].phase
        if phase == "ready":
            self.served[name].append(request)
        else:
            assert phase in ("starting", "stopping"), "nobody starts it"
            self.waiting[name].add(request)

    def evict(self, name: str) -> None:
        """A lifecycle without a process is gone at once; one with a process takes its time."""
        entry = self.scheduler.services[name]
        assert not entry.granted, "a busy service was evicted"
        assert not entry.is_pinned, "a pinned service was evicted"
        if entry.phase == "reviving":
            self.phase(name, "failed")
        elif entry.phase != "stopping":
            self.phase(name, "stopping")

    def phase(self, name: str, phase: Phase) -> None:
        self.take(self.scheduler.phase_changed(name, phase, self.now))

    def refuse_waiting(self, name: str) -> None:
        gone, self.waiting[name] = self.waiting[name], set()
        for request in gone:
            self.ended.add(request)
            self.take(self.scheduler.finished(name, self.now))

    def phases(self, *phases: Phase) -> list[str]:
        return [n for n, entry in self.scheduler.services.items() if entry.phase in phases]

    # ---- what happens in the world
    @rule(name=st.sampled_from(NAMES), priority=st.integers(0, 2), client=st.sampled_from("xyz"))
    def ask(self, name: str, priority: int, client: str) -> None:
        if name not in self.scheduler.services:
            self.scheduler.add(name)
        request, decisions = self.scheduler.submit(
            name, PendingRequest(), self.now, priority=priority, client=client
        )
        self.asked.append(request)
        self.take(decisions)

    @rule(data=st.data())
    @precondition(lambda self: self.phases("starting"))
    def started(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("starting")))
        admitted, self.waiting[name] = self.waiting[name], set()
        self.served[name] += admitted
        self.phase(name, "ready")

    @rule(data=st.data(), then=st.sampled_from(["stopped", "failed", "reviving"]))
    @precondition(lambda self: self.phases("starting", "ready"))
    def crashed(self, data: st.DataObject, then: Phase) -> None:
        name = data.draw(st.sampled_from(self.phases("starting", "ready")))
        self.phase(name, "stopping")
        gone, self.waiting[name] = self.waiting[name], set()
        self.phase(name, then)
        for request in gone:  # they hear of it at once, and say so a little later
            self.ended.add(request)
            self.take(self.scheduler.finished(name, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.phases("stopping"))
    def stopped(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("stopping")))
        self.phase(name, "starting" if self.waiting[name] else "stopped")

    @rule(data=st.data())
    @precondition(lambda self: self.phases("ready", "starting"))
    def unloaded(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("ready", "starting")))
        for request in self.scheduler.clear(name):
            self.ended.add(request)
        self.phase(name, "stopping")
        self.refuse_waiting(name)
        self.take(self.scheduler.tick(self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.phases("ready"))
    def dozed(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("ready")))
        if not self.served[name]:
            self.phase(name, "stopping")
            self.phase(name, "starting" if self.waiting[name] else "asleep")

    @rule(data=st.data())
    @precondition(lambda self: self.phases("failed", "reviving"))
    def cooled(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.phases("failed", "reviving")))
        self.phase(
            name, "starting" if self.scheduler.services[name].phase == "reviving" else "stopped"
        )

    @rule(data=st.data())
    @precondition(lambda self: any(self.served.values()))
    def finished(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([n for n in NAMES if self.served[n]]))
        self.ended.add(self.served[name].pop())
        self.take(self.scheduler.finished(name, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.scheduler.queue or any(self.waiting.values()))
    def left(self, data: st.DataObject) -> None:
        granted = [t for n in NAMES for t in sorted(self.waiting[n], key=lambda t: t.number)]
        request = data.draw(st.sampled_from([*self.scheduler.queue, *granted]))
        self.ended.add(request)
        if request.is_queued:
            self.take(self.scheduler.cancel(request, self.now))
        else:
            self.waiting[request.service].discard(request)
            self.take(self.scheduler.finished(request.service, self.now))

    @rule(name=st.sampled_from(NAMES))
    def removed(self, name: str) -> None:
        entry = self.scheduler.services.get(name)
        if entry is not None and entry.phase in ("stopped", "failed") and not entry.granted:
            self.take(self.scheduler.remove(name, self.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        """Go on, ticking as often as the scheduler asked for."""
        end = self.now + seconds
        while (at := self.scheduler.next_tick(self.now)) is not None and at <= end:
            self.now = max(self.now, at)
            before = [request.number for request in self.scheduler.queue]
            self.take(self.scheduler.tick(self.now))
            again = self.scheduler.next_tick(self.now)
            assert (
                again is None
                or again > self.now
                or before != [request.number for request in self.scheduler.queue]
            ), "a tick that does nothing asks for another at once"
        self.now = end

    # ---- what must hold
    @invariant()
    def exclusive_services_never_run_together(self) -> None:
        """Of two that exclude each other, one at most holds anything at a time.

        A sleeper that stops is left out: its process has been there all the time.
        """
        held = [
            name
            for name, entry in self.scheduler.services.items()
            if entry.phase in ("starting", "ready")
        ]
        for name in held:
            others = frozenset(held) - {name}
            assert not self.policy(name, others), f"{name} beside {others}"

    @invariant()
    def nobody_is_counted_twice_or_forgotten(self) -> None:
        """Requests granted are those who wait for a start or are served; none is below zero."""
        for name, entry in self.scheduler.services.items():
            assert entry.granted == len(self.waiting[name]) + len(self.served[name])
            assert entry.limit is None or entry.granted <= entry.limit

    @invariant()
    def every_request_is_in_one_place(self) -> None:
        """Queued, granted or ended."""
        queued = set(self.scheduler.queue)
        granted = {t for n in NAMES for t in [*self.waiting[n], *self.served[n]]}
        assert len(queued) == len(self.scheduler.queue)
        assert not queued & granted
        assert not (queued | granted) & self.ended
        assert queued | granted | self.ended == set(self.asked)
        assert len(queued) <= LENGTH

    @invariant()
    def nobody_waits_past_the_timeout(self) -> None:
        """A request in the queue is not older than its limit."""
        assert all(self.now < request.since + TIMEOUT_S for request in self.scheduler.queue)

    @invariant()
    def whoever_waits_has_a_reason(self) -> None:
        """A queued request can say what it waits for, and somebody will end that."""
        for request in self.scheduler.queue:
            assert request.why

    @invariant()
    def the_queue_is_in_order(self) -> None:
        """Priority first, then arrival: of services, and of a client's requests for one of them."""
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
    def a_swap_is_wanted_and_under_way(self) -> None:
        """No ghosts: its target is waited for, and what it evicts is on its way out."""
        for target, evicted in self.scheduler.swaps.items():
            assert any(request.service == target for request in self.scheduler.queue)
            assert evicted
            phases = {
                self.scheduler.services[n].phase for n in evicted if n in self.scheduler.services
            }
            assert phases & set(ACTIVE)

    @invariant()
    def an_open_entry_is_ready_and_in_nobody_s_way(self) -> None:
        """The hot path never overtakes."""
        going = {name for evicted in self.scheduler.swaps.values() for name in evicted}
        for entry in self.scheduler.services.values():
            if entry.is_open:
                assert entry.phase == "ready"
                assert entry.name not in going

    def teardown(self) -> None:
        """In the end all come to rest: who finishes what it began empties every queue."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(200):
            for name in NAMES:
                while self.served[name]:
                    self.ended.add(self.served[name].pop())
                    self.take(self.scheduler.finished(name, self.now))
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
        assert self.ended == set(self.asked)


TestSchedulerRules = SchedulerRules.TestCase
TestSchedulerRules.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
