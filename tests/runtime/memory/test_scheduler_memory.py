"""Scheduler with memory: invariants after any sequence of events, and what requests are told."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from swapchart.runtime import EvictionPolicy, MemoryLedger, QueueLimits
from swapchart.runtime.memory import Amounts, MemoryNeed, Pool
from swapchart.runtime.scheduler import Scheduler
from swapchart.runtime.scheduling import Evict, Grant, Phase, QueuedRequest, Refuse, ServiceEntry
from swapchart.runtime.waiter import PendingRequest

from ..test_scheduler_rules import LENGTH, MAX_WAIT_S, NAMES, TIMEOUT_S, SchedulerRules, by_letter
from .cases import GIB

BUDGET = 24
NEEDS = {
    "a1": MemoryNeed(options=({"GPU0": 10},)),
    "a2": MemoryNeed(options=({"GPU0": 12}, {"GPU1": 12})),
    "b1": MemoryNeed(options=({"GPU0": 4},)),
    "b2": MemoryNeed(options=({"GPU0": 8, "GPU1": 3},), asleep={"GPU0": 2, "GPU1": 5}),
    "c": MemoryNeed(options=({"GPU0": 20},)),
}


def no_evictions(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return no service: only memory is a condition."""
    del target, running
    return frozenset()


class CheckedLedger(MemoryLedger):
    """A ledger that fails as soon as a grant gives memory away twice."""

    def grant(self, entry: ServiceEntry, place: Amounts | None) -> None:
        super().grant(entry, place)
        for pool in place or ():
            assert self.free(pool) >= 0, f"{entry.name} overcommits {pool}"


class SchedulerMemoryRules(SchedulerRules):
    """The rules of the scheduler, with five services on two pools."""

    @initialize(
        policy=st.sampled_from([no_evictions, by_letter]), limit=st.sampled_from([None, 2]),
        residency=st.sampled_from([0.0, float("inf")]), pinned=st.booleans(),
    )  # fmt: skip
    def begin(
        self, policy: EvictionPolicy, limit: int | None, residency: float, pinned: bool
    ) -> None:
        limits = QueueLimits(
            length=LENGTH, timeout_s=TIMEOUT_S, max_wait_s=MAX_WAIT_S, min_residency_s=residency
        )
        self.policy, self.limit, self.pinned = policy, limit, pinned
        self.ledger = CheckedLedger(
            [Pool(name="GPU0", capacity=BUDGET + 1, reserve=1), Pool(name="GPU1", capacity=12)]
        )
        self.scheduler = Scheduler(policy=policy, limits=limits, memory=self.ledger)
        for name in NAMES:
            self.add(name)
            self.waiting[name], self.served[name] = set(), []

    def add(self, name: str) -> None:
        is_pinned = self.pinned and name == "a1"
        self.scheduler.add(name, limit=self.limit, is_pinned=is_pinned, need=NEEDS[name])

    @rule(amount=st.sampled_from([0, 0, 3, 15]))
    def other_programs_allocate(self, amount: int) -> None:
        self.ledger.pools["GPU0"] = Pool(
            name="GPU0", capacity=BUDGET + 1, reserve=1, foreign=amount
        )
        self.apply(self.scheduler.tick(self.now))

    @rule(data=st.data(), amount=st.integers(0, 24))
    @precondition(lambda self: self.phases("ready"))
    def measure(self, data: st.DataObject, amount: int) -> None:
        name = data.draw(st.sampled_from(self.phases("ready")))
        self.scheduler.services[name].seen = {"GPU0": amount}
        self.apply(self.scheduler.tick(self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.phases("ready"))
    def begin_sleep(self, data: st.DataObject) -> None:
        """Go to sleep slowly, if there is room; a rule of the base class ends that in a stop."""
        name = data.draw(st.sampled_from(self.phases("ready")))
        if self.served[name] or self.ledger.missing_for_sleep(name):
            return
        before = self.ledger.free("GPU1")
        self.apply(self.scheduler.phase_changed(name, "stopping", self.now, "sleep"))
        assert self.ledger.free("GPU1") >= min(before, 0), f"the sleep of {name} overcommits"

    @rule(data=st.data())
    @precondition(lambda self: self.ending("sleep"))
    def complete_sleep(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.ending("sleep")))
        self.phase(name, "starting" if self.waiting[name] else "asleep")

    @rule(data=st.data())
    @precondition(lambda self: self.phases("stopping"))
    def get_stuck(self, data: st.DataObject) -> None:
        """Wait in vain for the end of a process that was killed; `complete_stop` ends it."""
        name = data.draw(st.sampled_from(self.phases("stopping")))
        self.refuse_waiting(name)
        self.apply(self.scheduler.phase_changed(name, "stopping", self.now, "stuck"))

    def ending(self, ending: str) -> list[str]:
        entries = self.scheduler.services
        return [name for name in self.phases("stopping") if entries[name].ending == ending]

    @invariant()
    def claims_follow_the_phase(self) -> None:
        """A service holds its claim from the grant until it has stopped."""
        if not hasattr(self, "scheduler"):
            return
        for entry in self.scheduler.services.values():
            if entry.phase in ("starting", "ready", "stopping", "reviving"):
                assert entry.claim
            elif entry.phase == "asleep":
                assert entry.claim == NEEDS[entry.name].asleep
            else:
                assert not entry.claim
                assert not entry.seen

    def teardown(self) -> None:
        """Let other programs and the growth of services go, and check that the queue ends."""
        if hasattr(self, "scheduler"):
            for entry in self.scheduler.services.values():
                entry.seen = {}
            self.other_programs_allocate(0)
        super().teardown()


TestSchedulerMemoryRules = SchedulerMemoryRules.TestCase
TestSchedulerMemoryRules.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)


class Harness:
    """A scheduler with one pool of 24 GiB, 1 GiB of which is reserved."""

    def __init__(self, needs: dict[str, float], *, pinned: str = "", foreign: float = 0) -> None:
        self.ledger = MemoryLedger()
        self.other_programs(foreign)
        self.scheduler = Scheduler(policy=no_evictions, memory=self.ledger)
        self.now = 0.0
        for name, gib in needs.items():
            need = MemoryNeed(options=({"GPU0": int(gib * GIB)},))
            self.scheduler.add(name, need=need, is_pinned=name == pinned)

    def other_programs(self, gib: float) -> list[str]:
        pool = Pool(name="GPU0", capacity=24 * GIB, reserve=GIB, foreign=int(gib * GIB))
        self.ledger.pools["GPU0"] = pool
        return self.tick(0) if hasattr(self, "scheduler") else []

    def submit(self, name: str) -> tuple[QueuedRequest, list[str]]:
        request, decisions = self.scheduler.submit(name, PendingRequest(), self.now)
        return request, self.words(decisions)

    def words(self, decisions: list[Grant | Evict | Refuse]) -> list[str]:
        words = []
        for decision in decisions:
            match decision:
                case Grant(request=request):
                    words.append(f"grant {request.service}")
                case Evict(service=service, target=target):
                    words.append(f"evict {service} for {target}")
                case Refuse(request=request, error=error):
                    assert error is not None
                    words.append(f"refuse {request.service}: {error.code}: {error}")
        return words

    def phase(self, name: str, *phases: Phase) -> list[str]:
        words = []
        for phase in phases:
            words += self.words(self.scheduler.phase_changed(name, phase, self.now))
        return words

    def finish(self, name: str) -> list[str]:
        return self.words(self.scheduler.finished(name, self.now))

    def tick(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.words(self.scheduler.tick(self.now))

    def run(self, *names: str) -> None:
        """Start each service by one request, which ends."""
        for name in names:
            assert self.submit(name)[1] == [f"grant {name}"]
            self.phase(name, "ready")
            self.finish(name)


def test_scheduler_with_room_starts_beside_others() -> None:
    harness = Harness({"a": 12, "b": 8, "c": 6})
    harness.run("a", "b")

    assert harness.scheduler.running() == {"a", "b"}
    assert harness.ledger.free("GPU0") == 3 * GIB


def test_scheduler_without_room_evicts_and_grants_once_the_memory_is_free() -> None:
    harness = Harness({"a": 12, "b": 8, "c": 6})
    harness.run("a", "b")
    harness.now = 60.0
    harness.submit("a")
    harness.finish("a")
    request, words = harness.submit("c")

    assert words == ["evict b for c"]
    assert request.why == "evicting b"
    assert harness.phase("b", "stopping") == []
    assert harness.phase("b", "stopped") == ["grant c"]
    assert harness.ledger.free("GPU0") == 5 * GIB


def test_scheduler_busy_services_make_a_request_wait_with_the_sum() -> None:
    harness = Harness({"a": 12, "b": 14})
    harness.submit("a")
    harness.phase("a", "ready")
    request, words = harness.submit("b")

    assert words == []
    assert request.why == (
        "GPU0: 24.0 GiB - 1.0 GiB reserve - 12.0 GiB held = 11.0 GiB free, 14.0 GiB needed"
        " (declared): a (12.0 GiB) must go; a has 1 request in flight"
    )
    assert harness.finish("a") == ["evict a for b"]


def test_scheduler_service_that_can_never_fit_is_refused() -> None:
    harness = Harness({"embed": 2, "big": 22}, pinned="embed")
    harness.run("embed")

    assert harness.submit("big")[1] == [
        "refuse big: memory_infeasible: big does not fit: GPU0: 24.0 GiB - 1.0 GiB reserve"
        " - 2.0 GiB held = 21.0 GiB free, 22.0 GiB needed (declared): at most 21.0 GiB of GPU0"
        " can ever be free"
    ]


def test_scheduler_request_waits_for_other_programs_until_a_reading_shows_room() -> None:
    harness = Harness({"b": 6}, foreign=20)
    request, words = harness.submit("b")

    assert words == []
    assert "other programs must free memory" in request.why
    assert harness.other_programs(17) == ["grant b"]


def test_scheduler_overdue_request_keeps_its_memory_from_later_ones() -> None:
    """Small services fill the gap that a large one waits for only until it is overdue."""
    harness = Harness({"s1": 4, "s2": 4, "s3": 4, "s4": 4, "large": 20, "s6": 4, "s7": 2})
    for name in ("s1", "s2", "s3", "s4"):
        harness.submit(name)
        harness.phase(name, "ready")
    large, words = harness.submit("large")
    assert words == []
    assert harness.submit("s7")[1] == ["grant s7"]
    harness.phase("s7", "ready")
    harness.finish("s7")
    harness.tick(31.0)

    late, words = harness.submit("s6")
    assert words == []
    assert "for overdue requests" in late.why or "has waited too long" in late.why
    words = [word for name in ("s1", "s2", "s3", "s4") for word in harness.finish(name)]
    assert "grant s6" not in words
    assert [word for word in words if word.endswith("for large")]
    assert large.why.startswith("evicting")


def test_scheduler_ready_service_is_granted_without_a_plan() -> None:
    harness = Harness({"a": 12, "b": 8})
    harness.run("a", "b")
    before = harness.ledger.plan_counts.total()
    for _ in range(100):
        harness.submit("a")
        harness.finish("a")

    assert harness.ledger.plan_counts.total() == before


def test_scheduler_sleeping_service_holds_less_and_wakes_only_with_room() -> None:
    harness = Harness({"b": 8})
    need = MemoryNeed(options=({"GPU0": 20 * GIB},), asleep={"GPU0": GIB})
    harness.scheduler.add("v", need=need)
    harness.run("v")
    harness.phase("v", "stopping", "asleep")
    assert harness.ledger.free("GPU0") == 22 * GIB
    harness.submit("b")
    harness.phase("b", "ready")
    request, words = harness.submit("v")

    assert words == []
    assert "b has 1 request in flight" in request.why
    assert harness.finish("b") == ["evict b for v"]
    assert harness.phase("b", "stopping", "stopped") == ["grant v"]
    assert harness.ledger.free("GPU0") == 3 * GIB


def test_scheduler_changed_need_applies_to_a_running_service() -> None:
    harness = Harness({"a": 12})
    harness.run("a")
    harness.scheduler.add("a", need=MemoryNeed(options=({"GPU0": 5 * GIB},)))
    assert harness.ledger.free("GPU0") == 18 * GIB
    harness.scheduler.add("a", need=None)
    assert harness.ledger.free("GPU0") == 23 * GIB


def test_explain_with_memory_names_evictions_reasons_and_refusals() -> None:
    harness = Harness({"embed": 2, "a": 12, "b": 10, "c": 11, "big": 22}, pinned="embed")
    harness.run("embed", "a")

    assert harness.scheduler.explain("c", harness.now)[0] == {"a"}
    assert harness.scheduler.explain("big", harness.now)[2] is not None
    assert harness.submit("a")[1] == ["grant a"]
    assert "a has 1 request in flight" in harness.scheduler.explain("b", harness.now)[1]


def test_scheduler_waking_service_keeps_the_place_of_its_plan() -> None:
    """The preferred place is taken meanwhile, so the service wakes on the other one."""
    harness = Harness({"b": 20})
    harness.ledger.pools["GPU1"] = Pool(name="GPU1", capacity=24 * GIB)
    places = ({"GPU0": 12 * GIB}, {"GPU1": 12 * GIB})
    harness.scheduler.add("v", need=MemoryNeed(options=places))
    harness.run("v")
    harness.phase("v", "stopping", "asleep")
    harness.submit("b")
    harness.phase("b", "ready")

    assert harness.submit("v")[1] == ["grant v"]
    assert harness.scheduler.services["v"].claim == places[1]


def test_scheduler_that_observes_makes_no_plan_but_explains_the_sum() -> None:
    harness = Harness({"a": 12, "b": 14})
    harness.ledger.decides = False
    harness.run("a", "b")

    assert harness.scheduler.running() == {"a", "b"}
    assert harness.ledger.plan_counts.total() == 0
    entry = harness.scheduler.services["b"]
    assert "- 12.0 GiB a (declared, ready, last used 0 s ago)" in harness.ledger.explain(
        entry, harness.now, 0.0
    )


def test_scheduler_waking_service_forgets_what_was_measured_while_it_slept() -> None:
    """The reading of a sleeping service is no measure of the woken one, which gets its claim."""
    harness = Harness({"a": 12})
    harness.scheduler.add("v", need=MemoryNeed(options=({"GPU0": 10 * GIB},)))
    harness.run("v")
    harness.scheduler.services["v"].seen = {"GPU0": 22 * GIB}
    harness.phase("v", "stopping", "asleep")

    assert harness.submit("v")[1] == ["grant v"]
    assert harness.ledger.free("GPU0") == 13 * GIB


def test_scheduler_need_that_ends_during_a_swap_drops_the_reservation() -> None:
    harness = Harness({"a": 12, "b": 14, "c": 2})
    harness.run("a")
    harness.submit("b")
    harness.scheduler.add("b", need=None)

    assert harness.submit("c")[1] == ["grant c"]
    assert harness.ledger.free("GPU0") == 9 * GIB


def test_scheduler_running_unknown_service_keeps_its_claim_when_its_need_is_read_again() -> None:
    harness = Harness({"a": 4})
    need = MemoryNeed(options=({"GPU0": 0},), source="unknown")
    harness.scheduler.add("u", need=need)
    harness.submit("u")
    harness.scheduler.add("u", need=need)

    assert harness.ledger.free("GPU0") == 0
    assert harness.submit("a")[1] == []


def test_scheduler_service_that_stops_while_it_sleeps_starts_only_with_room() -> None:
    """Its claim while asleep is not enough for a start, so the request waits for the stop."""
    harness = Harness({"b": 8})
    need = MemoryNeed(options=({"GPU0": 20 * GIB},), asleep={"GPU0": GIB})
    harness.scheduler.add("v", need=need)
    harness.run("v")
    harness.phase("v", "stopping", "asleep")
    harness.submit("b")
    harness.phase("b", "ready")
    harness.phase("v", "stopping")
    request, words = harness.submit("v")

    assert (words, request.why) == ([], "v must have stopped")
    assert harness.phase("v", "stopped") == []
    assert "b has 1 request in flight" in request.why
    assert harness.finish("b") == ["evict b for v"]


def test_scheduler_renamed_pool_moves_the_claim_of_a_running_service() -> None:
    harness = Harness({"a": 12})
    harness.run("a")
    harness.ledger.pools["big"] = harness.ledger.pools.pop("GPU0")
    harness.scheduler.add("a", need=MemoryNeed(options=({"big": 12 * GIB},)))

    assert harness.scheduler.services["a"].claim == {"big": 12 * GIB}


def test_scheduler_estimated_request_does_not_pass_an_overdue_one() -> None:
    harness = Harness({"busy": 12, "large": 20})
    estimated = MemoryNeed(options=({"GPU0": 12 * GIB},), source="estimated")
    harness.scheduler.add("x", need=estimated)
    harness.submit("busy")
    harness.phase("busy", "ready")
    harness.submit("large")
    harness.tick(31.0)
    request, words = harness.submit("x")

    assert words == []
    assert request.why


def test_scheduler_pinned_service_that_stops_frees_its_memory() -> None:
    harness = Harness({"p": 10, "b": 20}, pinned="p", foreign=4)
    harness.run("p")
    harness.phase("p", "stopping")
    assert harness.submit("b")[1] == []


def test_scheduler_makes_one_plan_for_each_waiting_service_and_decision() -> None:
    """A drain with many overdue requests plans once for each service, not for each request."""
    names = {f"m{number}": 12.0 for number in range(4)}
    harness = Harness({"busy": 12, **names})
    harness.submit("busy")
    harness.phase("busy", "ready")
    for number in range(100):
        harness.submit(f"m{number % 4}")
    harness.tick(31.0)
    before = harness.ledger.plan_counts.total()
    harness.tick(1.0)

    assert harness.ledger.plan_counts.total() - before <= 40


def test_scheduler_counts_evictions_by_cause() -> None:
    """The policy names one service, memory needs another, and one that stops anyway is neither."""
    harness = Harness({"rival": 1, "big": 12, "gone": 6, "x": 15})
    harness.scheduler.policy = lambda target, running: frozenset({"rival"} if target == "x" else ())
    for name in ("rival", "big", "gone"):
        harness.run(name)
    harness.phase("gone", "stopping")
    _, words = harness.submit("x")

    assert words == ["evict big for x", "evict rival for x"]
    assert dict(harness.scheduler.evictions) == {("rival", "rule"): 1, ("big", "memory"): 1}


def test_scheduler_request_waits_for_a_stuck_service_as_for_other_programs() -> None:
    """A service that cannot be stopped gives nothing back, but may end one day."""
    harness = Harness({"s": 12, "a": 8, "c": 14})
    harness.run("s", "a")
    harness.submit("a")
    request, words = harness.submit("c")
    assert words == ["evict s for c"]
    harness.phase("s", "stopping")
    harness.scheduler.phase_changed("s", "stopping", harness.now, "stuck")

    assert "s, which cannot be stopped" in request.why
    assert request.is_queued
    assert harness.phase("s", "stopped") == ["grant c"]


def test_scheduler_swap_is_planned_anew_when_an_evicted_service_is_stuck() -> None:
    harness = Harness({"s": 8, "a": 12, "c": 6})
    harness.run("s", "a")
    assert harness.submit("c")[1] == ["evict s for c"]
    harness.phase("s", "stopping")
    decisions = harness.scheduler.phase_changed("s", "stopping", harness.now, "stuck")

    assert harness.words(decisions) == ["evict a for c"]
    assert harness.phase("a", "stopping", "stopped") == ["grant c"]


def test_scheduler_sleep_holds_both_amounts_until_it_has_begun() -> None:
    harness = Harness({"r": 0})
    harness.ledger.pools["RAM"] = Pool(name="RAM", capacity=20 * GIB)
    need = MemoryNeed(options=({"GPU0": 20 * GIB},), asleep={"GPU0": GIB, "RAM": 18 * GIB})
    harness.scheduler.add("v", need=need)
    harness.scheduler.add("r", need=MemoryNeed(options=({"RAM": 4 * GIB},)))
    harness.run("v")
    assert harness.ledger.missing_for_sleep("v") == {}
    harness.scheduler.phase_changed("v", "stopping", harness.now, "sleep")

    assert harness.ledger.free("RAM") == 2 * GIB
    assert harness.ledger.free("GPU0") == 3 * GIB
    request, words = harness.submit("r")
    assert words == []
    assert "v is going to sleep" in request.why
    assert harness.phase("v", "asleep") == ["evict v for r"]
    harness.phase("v", "stopping", "stopped")
    harness.phase("r", "ready")
    harness.finish("r")
    harness.submit("v")
    harness.phase("v", "ready")
    assert harness.ledger.missing_for_sleep("v") == {"RAM": 2 * GIB}
