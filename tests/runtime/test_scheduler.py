"""Scheduler: which request is granted next; without a lifecycle or a clock."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tools.rows import row

from swapchart.runtime import EvictionPolicy, QueueLimits
from swapchart.runtime.scheduler import Scheduler
from swapchart.runtime.scheduling import (
    Decision,
    Evict,
    Grant,
    Phase,
    QueuedRequest,
    Refuse,
    ServiceEntry,
    one_at_a_time,
)
from swapchart.runtime.waiter import PendingRequest


class SchedulerHarness:
    """A scheduler whose decisions are carried out at once."""

    def __init__(self, *names: str, policy: EvictionPolicy = one_at_a_time,
                 limit: int | None = None, **limits: float) -> None:  # fmt: skip
        self.now = 0.0
        self.scheduler = Scheduler(policy=policy, limits=QueueLimits(**limits))  # type: ignore[arg-type]
        for name in names:
            self.scheduler.add(name, limit=limit)
        self.log: list[str] = []

    def apply(self, decisions: list[Decision]) -> list[str]:
        log = []
        for decision in decisions:
            match decision:
                case Grant(request=request):
                    log.append(f"grant {request.service}{request.number}")
                case Evict(service=service, target=target):
                    log.append(f"evict {service} for {target}")
                case Refuse(request=request, error=error):
                    code = "as its lifecycle" if error is None else error.code
                    log.append(f"refuse {request.service}{request.number}: {code}")
        self.log += log
        return log

    def submit(
        self, name: str, priority: int = 0, client: str = ""
    ) -> tuple[QueuedRequest, list[str]]:
        request, decisions = self.scheduler.submit(
            name, PendingRequest(), self.now, priority=priority, client=client
        )
        return request, self.apply(decisions)

    def phase(self, name: str, phase: Phase) -> list[str]:
        return self.apply(self.scheduler.phase_changed(name, phase, self.now))

    def finish(self, name: str) -> list[str]:
        return self.apply(self.scheduler.finished(name, self.now))

    def tick(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.apply(self.scheduler.tick(self.now))

    def start_and_finish(self, name: str) -> None:
        """Start *name* by one request, which ends."""
        self.submit(name)
        self.phase(name, "starting")
        self.phase(name, "ready")
        self.finish(name)


def test_request_for_a_stopped_service_is_granted_at_once_if_nothing_runs() -> None:
    """Without an eviction the request goes to its lifecycle, and so does the next."""
    harness = SchedulerHarness("a", "b")

    assert harness.submit("a")[1] == ["grant a0"]
    assert harness.submit("a")[1] == ["grant a1"]
    assert harness.scheduler.queue == []


@pytest.mark.parametrize("phase", ["stopped", "asleep", "starting", "stopping", "failed"])
def test_request_that_may_not_start_is_refused_unless_the_service_is_ready(phase: Phase) -> None:
    """It waits for no start, not even one that is under way; a ready service grants it."""
    harness = SchedulerHarness("a", "b", policy=lambda target, running: frozenset())
    harness.start_and_finish("b")
    if phase != "stopped":
        harness.phase("a", phase)
    request, decisions = harness.scheduler.submit("a", PendingRequest(), 0.0, may_start=False)

    assert harness.apply(decisions) == [f"refuse a{request.number}: model_not_loaded"]
    assert isinstance(decisions[0], Refuse)
    assert str(decisions[0].error) == f"a is not loaded ({phase})"
    request, decisions = harness.scheduler.submit("b", PendingRequest(), 0.0, may_start=False)
    assert harness.apply(decisions) == [f"grant b{request.number}"]


def test_request_that_may_not_start_and_waits_is_refused_when_the_service_stops() -> None:
    """It waits for a ready service as others do, and does not start it again when that stops."""
    blocked = SchedulerHarness("a")
    blocked.start_and_finish("a")
    blocked.scheduler.services["a"].closed_reason = "a changes"
    request, decisions = blocked.scheduler.submit("a", PendingRequest(), 0.0, may_start=False)

    assert (decisions, request.why) == ([], "a changes")
    assert blocked.phase("a", "stopping") == [f"refuse a{request.number}: model_not_loaded"]
    assert blocked.phase("a", "stopped") == []
    assert blocked.scheduler.queue == []


def test_idle_service_is_evicted_and_the_request_granted_when_it_is_gone() -> None:
    """A swap evicts, waits until the resources are free, and grants."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    request, log = harness.submit("b")

    assert log == ["evict a for b"]
    assert request.why == "evicting a"
    assert harness.phase("a", "stopping") == []
    assert harness.phase("a", "stopped") == ["grant b1"]
    assert harness.scheduler.swaps == {}


@row("D13")
def test_busy_service_is_never_evicted() -> None:
    """The eviction begins when the last in-flight request ends."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("a")
    request, log = harness.submit("b")

    assert log == []
    assert request.why == "a has 2 requests in flight"
    assert harness.finish("a") == []
    assert harness.finish("a") == ["evict a for b"]


def test_requests_for_three_services_are_collated() -> None:
    """ABCABC is granted as AABBCC: requests for one service go together."""
    harness = SchedulerHarness("a", "b", "c")
    order: list[str] = []
    for name in "abcabc":
        harness.submit(name)
    for name in "abc":
        harness.phase(name, "ready")
        order += [name] * harness.scheduler.services[name].granted
        while harness.scheduler.services[name].granted:
            harness.finish(name)
        harness.phase(name, "stopping")
        harness.phase(name, "stopped")

    assert "".join(order) == "aabbcc"
    assert [log for log in harness.log if "evict" in log] == ["evict a for b", "evict b for c"]


def test_higher_priority_goes_first_and_equals_go_in_order() -> None:
    """The queue is ordered by priority, then by arrival."""
    harness = SchedulerHarness("a", "b", "c", "d")
    harness.start_and_finish("a")
    harness.submit("a")
    for name, priority in (("b", 0), ("c", 5), ("d", 5)):
        harness.submit(name, priority)

    assert [request.service for request in harness.scheduler.queue] == ["c", "d", "b"]
    assert harness.finish("a") == ["evict a for c"]


def pairs(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return the neighbor of *target*: a1 and a2 exclude each other, and so do b1 and b2."""
    return frozenset(name for name in running if name != target and name[0] == target[0])


def test_swaps_without_common_services_run_in_parallel() -> None:
    """Two disjoint swaps are under way at the same time."""
    harness = SchedulerHarness("a1", "a2", "b1", "b2", policy=pairs)
    harness.start_and_finish("a1")
    harness.start_and_finish("b1")

    assert harness.submit("a2")[1] == ["evict a1 for a2"]
    assert harness.submit("b2")[1] == ["evict b1 for b2"]
    assert set(harness.scheduler.swaps) == {"a2", "b2"}
    assert harness.phase("b1", "stopped") == ["grant b23"]
    assert harness.phase("a1", "stopped") == ["grant a22"]


def test_swaps_that_share_a_service_run_in_sequence() -> None:
    """A second swap waits while a service that it needs is evicted for the first."""
    harness = SchedulerHarness("a", "b", "c")
    harness.start_and_finish("a")
    harness.submit("b")
    request, log = harness.submit("c")

    assert log == []
    assert request.why == "the swap to b is under way"
    assert harness.phase("a", "stopped") == ["grant b1"]
    assert request.why == "b has 1 requests in flight"


def test_request_for_what_is_being_evicted_waits_behind_the_swap() -> None:
    """A service that is being evicted does not come back before the swap ends."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.submit("b")
    harness.phase("a", "stopping")
    request, log = harness.submit("a")

    assert log == []
    assert request.why == "a is being evicted for b"
    assert harness.phase("a", "stopped") == ["grant b1"]


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_swap_without_requests_left_is_removed(moment: str) -> None:
    """After the cancellation nothing starts, and the other requests go on."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    if moment == "before":
        harness.submit("a")
    request, _ = harness.submit("b")
    if moment == "after":
        harness.phase("a", "stopping")
    harness.apply(harness.scheduler.cancel(request, harness.now))

    assert harness.scheduler.swaps == {}
    assert harness.scheduler.queue == []
    assert harness.scheduler.cancel(request, harness.now) == []
    if moment == "before":
        harness.finish("a")
    harness.phase("a", "stopping")
    assert harness.phase("a", "stopped") == []
    assert harness.submit("a")[1][-1].startswith("grant a")


def test_swap_goes_on_while_one_request_still_wants_it() -> None:
    """Of two requests for the target one may leave; the other is granted."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    first, _ = harness.submit("b")
    harness.submit("b")
    harness.apply(harness.scheduler.cancel(first, harness.now))

    assert harness.phase("a", "stopped") == ["grant b2"]


def test_eviction_that_failed_is_decided_again() -> None:
    """A service that is ready again instead of stopped does not block the swap."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.submit("b")
    harness.phase("a", "stopping")

    assert harness.phase("a", "ready") == ["evict a for b"]


def test_eviction_of_a_stopping_service_prevents_its_restart() -> None:
    """A stopping service is evicted too, since it might restart."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.phase("a", "stopping")

    assert harness.submit("b")[1] == ["evict a for b"]


def test_service_that_will_restart_counts_as_running() -> None:
    """A tripped service that will restart rejects requests and can be evicted."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.phase("a", "reviving")

    assert harness.submit("a")[1] == ["refuse a1: as its lifecycle"]
    assert harness.submit("b")[1] == ["evict a for b"]


@pytest.mark.parametrize("phase", ["failed", "reviving"])
def test_service_that_would_refuse_evicts_no_service(phase: Phase) -> None:
    """A request for a tripped service is rejected with its own error, whatever runs."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.phase("b", phase)

    assert harness.submit("b")[1] == ["refuse b1: as its lifecycle"]
    assert harness.scheduler.services["b"].phase == phase


def test_pinned_service_in_conflict_refuses_the_request_at_once() -> None:
    """The error names the pinned service, also if it starts later."""
    harness = SchedulerHarness("a", "b")
    harness.scheduler.add("a", is_pinned=True)
    harness.submit("a")
    request, decisions = harness.scheduler.submit("b", PendingRequest(), 0.0)
    [refusal] = decisions

    assert isinstance(refusal, Refuse)
    assert refusal.error is not None
    assert refusal.error.code == "pinned"
    assert "a" in str(refusal.error)
    assert not request.is_queued


def test_request_waits_for_a_pinned_service_that_stops() -> None:
    """A pinned service that an operator stops can be waited for."""
    harness = SchedulerHarness("a", "b")
    harness.scheduler.add("a", is_pinned=True)
    harness.start_and_finish("a")
    harness.phase("a", "stopping")
    request, log = harness.submit("b")

    assert log == []
    assert request.why == "a is pinned, and already stopping"
    assert harness.phase("a", "stopped") == ["grant b1"]


# ---- limits
def test_concurrency_limit_of_a_running_service_refuses_more() -> None:
    """Requests beyond the limit of a ready service get 429 at once."""
    harness = SchedulerHarness("a", limit=2)
    harness.submit("a")
    harness.phase("a", "ready")
    harness.submit("a")

    assert harness.submit("a")[1] == ["refuse a2: concurrency_limit"]
    harness.finish("a")
    assert harness.submit("a")[1] == ["grant a3"]


def test_concurrency_limit_lets_requests_wait_for_a_start() -> None:
    """During a start, requests beyond the limit wait and are granted one by one."""
    harness = SchedulerHarness("a", limit=1)
    harness.submit("a")
    request, log = harness.submit("a")

    assert log == []
    assert request.why == "a is at its concurrency limit of 1"
    harness.phase("a", "ready")
    assert harness.finish("a") == ["grant a1"]


@row("D20")
def test_clients_that_wait_for_a_limit_take_turns() -> None:
    """The first request of each client comes first, then the second of each."""
    harness = SchedulerHarness("a", limit=1)
    for client in "xxxxyzy":
        harness.submit("a", client=client)
    harness.phase("a", "ready")
    harness.submit("a", client="z")
    while harness.scheduler.services["a"].granted:
        harness.finish("a")

    granted = [log for log in harness.log if log.startswith("grant")]
    assert granted == [f"grant a{number}" for number in (0, 4, 5, 1, 6, 2, 3)]


@row("D20")
def test_fair_turns_are_within_a_priority() -> None:
    """Clients take turns among requests of equal priority only."""
    harness = SchedulerHarness("a", limit=1)
    for priority, client in ((0, "x"), (1, "x"), (1, "x"), (0, "y"), (1, "y")):
        harness.submit("a", priority, client)
    harness.phase("a", "ready")
    while harness.scheduler.services["a"].granted:
        harness.finish("a")

    granted = [log for log in harness.log if log.startswith("grant")]
    assert granted == [f"grant a{number}" for number in (0, 4, 1, 2, 3)]


@row("D20")
def test_fair_turns_keep_the_order_among_services() -> None:
    """A turn of another client does not move a request behind later ones for other services."""
    harness = SchedulerHarness("a", "b", limit=1)
    for name, client in (("a", "x"), ("a", "x"), ("b", "x"), ("a", "y")):
        harness.submit(name, client=client)
    harness.phase("a", "ready")

    assert harness.finish("a") == ["grant a3"]
    assert [request.number for request in harness.scheduler.queue] == [1, 2]
    assert harness.finish("a") == ["grant a1"]
    assert harness.finish("a") == ["evict a for b"]


@row("D20")
def test_requests_without_a_limit_are_granted_together() -> None:
    """Without a limit, the order is that of arrival."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    for client in "xxy":
        harness.submit("b", client=client)
    harness.phase("a", "stopping")

    assert harness.phase("a", "stopped") == ["grant b1", "grant b2", "grant b3"]


@pytest.mark.parametrize("limit", [1, 4])
@row("D20")
def test_greedy_client_delays_others_by_its_share_only(limit: int) -> None:
    """If one of 100 clients sends 500 requests at a time, the p99 of the others at most doubles.

    It is compared with the same clients without those requests. Each request takes a second, and
    all come before the service is ready.
    """

    def waits(burst: int) -> list[float]:
        harness = SchedulerHarness("a", limit=limit, length=1000)
        crowd = random.Random(20)
        asked = [f"client {number}" for number in range(1, 100) for _ in range(2)]
        crowd.shuffle(asked)
        for client in ["bursty"] * burst + asked:
            harness.submit("a", client=client)
        harness.phase("a", "ready")
        waited = []
        while running := harness.scheduler.services["a"].granted:
            harness.now += 1.0
            granted = [log for _ in range(running) for log in harness.finish("a")]
            others = [log for log in granted if int(log.removeprefix("grant a")) >= burst]
            waited += [harness.now] * len(others)
        assert len(waited) >= len(asked) - limit
        return sorted(waited)

    small, large = waits(2), waits(500)
    assert large[int(0.99 * len(large))] <= 2 * small[int(0.99 * len(small))]
    assert large[len(large) // 2] <= 2 * small[len(small) // 2]


@row("D10")
def test_full_queue_refuses_at_once() -> None:
    """Requests beyond the length of the queue are refused if they would have to wait."""
    harness = SchedulerHarness("a", "b", length=2)
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("b")
    harness.submit("b")

    assert harness.submit("b")[1] == ["refuse b4: queue_full"]
    assert harness.scheduler.swaps == {}
    assert harness.submit("a")[1] == ["grant a5"]


@row("D10")
def test_request_that_waited_too_long_is_refused() -> None:
    """At its timeout, exact to the last bit, a queued request is refused with the reason."""
    harness = SchedulerHarness("a", "b", timeout_s=0.3)
    harness.now = 0.1
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("b")
    at = harness.scheduler.next_tick(harness.now)

    assert at == 0.1 + 0.3
    harness.now = at
    [refusal] = harness.scheduler.tick(harness.now)
    assert isinstance(refusal, Refuse)
    assert refusal.error is not None
    assert refusal.error.code == "queue_timeout"
    assert "a has 1 requests in flight" in str(refusal.error)
    assert harness.scheduler.next_tick(harness.now) is None


# ---- nothing starves
@row("D03")
def test_overdue_request_goes_before_later_ones() -> None:
    """After max_wait_s the busy service gets no new request before the overdue one is granted."""
    harness = SchedulerHarness("a", "b", max_wait_s=30.0, timeout_s=1000.0)
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("b")
    harness.tick(29.0)
    assert harness.submit("a")[1] == ["grant a3"]
    at = harness.scheduler.next_tick(harness.now)

    assert at == 30.0
    harness.tick(1.0)
    assert not harness.scheduler.services["a"].is_open
    late, log = harness.submit("a")
    assert log == []
    assert late.why == "a request for b has waited too long and goes first"
    harness.finish("a")
    assert harness.finish("a") == ["evict a for b"]
    assert harness.phase("a", "stopped") == ["grant b2"]


@row("D03")
def test_overdue_request_beats_priority() -> None:
    """Requests of higher priority for a third service do not starve it."""
    harness = SchedulerHarness("a", "b", "c", max_wait_s=30.0, timeout_s=1000.0)
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("b", priority=0)
    harness.tick(30.0)
    harness.submit("c", priority=9)

    assert harness.finish("a") == ["evict a for b"]


@row("D03")
def test_second_request_in_the_queue_becomes_overdue_too() -> None:
    """Each queued request has its own time, and there is a tick for each."""
    harness = SchedulerHarness("a", "b", "c", max_wait_s=30.0, timeout_s=None)  # type: ignore[arg-type]
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("b")
    harness.now = 10.0
    harness.submit("c")
    harness.now = 30.0
    harness.tick(0.0)

    assert harness.scheduler.next_tick(harness.now) == 40.0
    harness.tick(10.0)
    assert harness.scheduler.next_tick(harness.now) is None


@row("D03")
def test_service_without_conflicts_stays_open() -> None:
    """An overdue request closes only services that exclude its own."""
    harness = SchedulerHarness("a1", "a2", "b1", policy=pairs, max_wait_s=30.0, timeout_s=1000.0)
    harness.start_and_finish("a1")
    harness.start_and_finish("b1")
    harness.submit("a1")
    harness.submit("a2")
    harness.tick(30.0)

    assert not harness.scheduler.services["a1"].is_open
    assert harness.scheduler.services["b1"].is_open
    assert harness.submit("b1")[1][0].startswith("grant b1")


def residency_harness(min_residency_s: float, max_wait_s: float = 300.0) -> SchedulerHarness:
    """Return a harness in which the service a took 20 s to start, and is idle at 100 s."""
    harness = SchedulerHarness(
        "a", "b", timeout_s=1000.0, min_residency_s=min_residency_s, max_wait_s=max_wait_s
    )
    harness.submit("a")
    harness.phase("a", "starting")
    harness.now = 20.0
    harness.phase("a", "ready")
    harness.now = 100.0
    harness.finish("a")
    return harness


@row("D04")
def test_idle_service_stays_for_the_residency_after_its_last_use() -> None:
    """The time counts from the end of the last request, not from the start."""
    harness = residency_harness(min_residency_s=10.0)
    harness.now = 104.0
    request, log = harness.submit("b")

    assert log == []
    assert request.why == "a stays for another 6.0 s"
    assert harness.scheduler.next_tick(harness.now) == 110.0
    assert harness.tick(6.0) == ["evict a for b"]


@row("D04")
def test_idle_service_stays_no_longer_than_its_start_took() -> None:
    """A request waits at most as long for an idle service as the swap back would cost."""
    harness = residency_harness(min_residency_s=500.0, max_wait_s=400.0)
    request, log = harness.submit("b")

    assert log == []
    assert request.why == "a stays for another 20.0 s"
    assert harness.tick(19.0) == []
    assert harness.tick(1.0) == ["evict a for b"]


@row("D04")
def test_service_in_use_again_stays_anew() -> None:
    """A request of the kept service is served at once and begins the residency anew."""
    harness = residency_harness(min_residency_s=10.0)
    harness.submit("b")
    harness.now = 109.0

    assert harness.submit("a")[1] == ["grant a2"]
    harness.now = 112.0
    assert harness.finish("a") == []
    assert harness.tick(9.0) == []
    assert harness.tick(1.0) == ["evict a for b"]


@row("D04")
def test_overdue_request_ends_the_residency() -> None:
    """max_wait_s has precedence over the residency."""
    harness = residency_harness(min_residency_s=500.0, max_wait_s=15.0)
    harness.submit("b")

    assert harness.tick(14.0) == []
    assert harness.tick(1.0) == ["evict a for b"]


# ---- coming and going
def test_removed_service_ends_its_requests_and_its_swap() -> None:
    """Its requests are refused, and requests behind its swap go on."""
    harness = SchedulerHarness("a", "b", "c")
    harness.start_and_finish("a")
    harness.submit("b")
    harness.submit("b")
    harness.submit("c")
    harness.phase("a", "stopping")

    assert harness.apply(harness.scheduler.remove("b", harness.now)) == [
        "refuse b1: model_removed", "refuse b2: model_removed", "evict a for c",
    ]  # fmt: skip
    assert "b" not in harness.scheduler.services
    assert harness.phase("a", "stopped") == ["grant c3"]


def test_service_removed_during_its_eviction_does_not_block_the_swap() -> None:
    """A removed service counts as evicted."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.submit("b")
    harness.phase("a", "stopping")

    assert harness.apply(harness.scheduler.remove("a", harness.now)) == ["grant b1"]
    assert harness.scheduler.finished("a", harness.now) == []


def test_scheduler_limits_can_change() -> None:
    """To add a service again changes its limits only."""
    harness = SchedulerHarness("a", limit=1)
    harness.start_and_finish("a")
    harness.scheduler.add("a", limit=3, is_pinned=True)

    assert harness.scheduler.services["a"].phase == "ready"
    assert harness.scheduler.services["a"].limit == 3


def test_new_policy_is_used_from_then_on() -> None:
    """A new policy takes effect with the next decision."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.scheduler.policy = lambda target, running: frozenset()

    assert harness.submit("b")[1] == ["grant b1"]


def test_explain_predicts_the_fate_of_a_request() -> None:
    """explain() does not queue a request."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")

    assert harness.scheduler.explain("b", harness.now) == (frozenset({"a"}), "", None)
    harness.submit("a")
    assert harness.scheduler.explain("b", harness.now) == (
        frozenset({"a"}), "a has 1 requests in flight", None,
    )  # fmt: skip
    assert harness.scheduler.queue == []


def test_requests_of_a_service_without_a_limit_keep_their_order_beside_one_with() -> None:
    """Clients take turns at the service with a limit only."""
    harness = SchedulerHarness("a", "b", "c")
    harness.scheduler.add("b", limit=1)
    harness.start_and_finish("c")
    harness.submit("c")
    for name in ("a", "b"):
        for client in ("x", "x", "y"):
            harness.submit(name, client=client)
    waiting = [(request.service, request.client) for request in harness.scheduler.queue]

    assert waiting == [
        ("a", "x"), ("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("b", "x"),
    ]  # fmt: skip


def test_swap_goes_on_while_another_request_waits_for_its_service() -> None:
    """One of two clients leaves: what stops for both still makes room for the other."""
    harness = SchedulerHarness("a", "b", "c")
    harness.start_and_finish("a")
    first, decided = harness.submit("b")
    assert decided == ["evict a for b"]
    second, _ = harness.submit("b")
    harness.phase("a", "stopping")
    harness.apply(harness.scheduler.cancel(first, harness.now))
    assert harness.submit("a")[1] == []
    assert harness.phase("a", "stopped") == [f"grant b{second.number}"]


@pytest.mark.parametrize("phase", ["failed", "reviving"])
def test_explain_service_that_rejects_requests_evicts_nothing(phase: Phase) -> None:
    """Its lifecycle refuses the request, so no other service makes room for it."""
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.scheduler.services["b"].phase = phase

    assert harness.scheduler.explain("b", harness.now)[0] == frozenset()
    assert [line for line in harness.submit("b")[1] if "evict" in line] == []


def test_explain_ready_service_with_room_is_granted_at_once() -> None:
    """Neither the state `ready` nor a limit alone refuses a request."""
    harness = SchedulerHarness("a", limit=1)
    harness.start_and_finish("a")

    assert harness.scheduler.explain("a", harness.now) == (frozenset(), "", None)
    assert harness.submit("a")[1] == ["grant a2"]


def test_explain_eviction_of_an_idle_service_behind_a_full_queue_is_refused() -> None:
    """A place in the queue is needed even if nothing but the eviction is waited for."""

    def by_number(target: str, running: frozenset[str]) -> frozenset[str]:
        return frozenset(name for name in running - {target} if name[1:] == target[1:])

    harness = SchedulerHarness("a1", "b1", "a2", "b2", policy=by_number, length=1)
    for name in ("a1", "a2"):
        harness.start_and_finish(name)
    harness.submit("a1")
    harness.submit("b1")
    evict, why, predicted = harness.scheduler.explain("b2", harness.now)

    assert (evict, why) == (frozenset(), "")
    assert predicted is not None
    assert predicted.code == "queue_full"
    assert harness.submit("b2")[1] == ["refuse b25: queue_full"]


def test_explain_starting_service_at_its_limit_lets_a_request_wait() -> None:
    """The limit refuses only what a ready service could not serve."""
    harness = SchedulerHarness("a", limit=1)
    harness.submit("a")
    harness.phase("a", "starting")

    assert harness.scheduler.explain("a", harness.now)[2] is None
    assert harness.submit("a")[1] == []


def _beside_a_pinned_service() -> SchedulerHarness:
    harness = SchedulerHarness("a", "b")
    harness.start_and_finish("a")
    harness.scheduler.add("a", is_pinned=True)
    return harness


def _with_a_full_queue() -> SchedulerHarness:
    harness = SchedulerHarness("a", "b", "c", length=1)
    harness.start_and_finish("a")
    harness.submit("a")
    harness.submit("c")
    return harness


def _at_its_limit() -> SchedulerHarness:
    harness = SchedulerHarness("b", limit=1)
    harness.start_and_finish("b")
    harness.submit("b")
    return harness


@pytest.mark.parametrize(
    ("scene", "code"),
    [
        (_beside_a_pinned_service, "pinned"), (_with_a_full_queue, "queue_full"),
        (_at_its_limit, "concurrency_limit"),
    ],
)  # fmt: skip
def test_explain_predicts_that_a_request_is_refused(
    scene: Callable[[], SchedulerHarness], code: str
) -> None:
    """The predicted error is the one that a request for b gets."""
    harness = scene()
    evict, why, predicted = harness.scheduler.explain("b", harness.now)
    _, (decision,) = harness.scheduler.submit("b", PendingRequest(), harness.now)

    assert (evict, why) == (frozenset(), "")
    assert predicted is not None
    assert isinstance(decision, Refuse)
    assert decision.error is not None
    assert predicted.code == decision.error.code == code
    assert str(predicted) == str(decision.error)


@pytest.mark.parametrize("odd", [lambda t, r: r | {t}, lambda t, r: frozenset({"unknown", "a"})])
def test_policy_can_neither_evict_the_target_nor_what_does_not_run(
    odd: Callable[[str, frozenset[str]], frozenset[str]],
) -> None:
    """Only other services that hold resources are evicted, whatever the policy returns."""
    harness = SchedulerHarness("a", "b", "c", policy=odd)
    harness.start_and_finish("a")

    assert harness.submit("b")[1] == ["evict a for b"]


def test_release_without_grant_is_an_assertion_error() -> None:
    """A count below zero raises an error."""
    harness = SchedulerHarness("a")

    with pytest.raises(AssertionError, match="more requests ended"):
        harness.finish("a")


def test_load_time_is_that_of_earlier_runs_before_the_first_start() -> None:
    """One start of this run counts for more than all earlier ones."""
    entry = ServiceEntry("a")
    assert (entry.load_s, entry.has_load_time) == (1.0, False)
    entry.earlier_load_s = 12.0
    assert (entry.load_s, entry.has_load_time) == (12.0, True)
    entry.note_start(3.0)
    assert entry.load_s == 3.0
