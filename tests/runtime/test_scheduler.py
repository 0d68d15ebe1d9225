"""Which request goes when: tables, without a lifecycle or a clock."""

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
    one_at_a_time,
)
from swapchart.runtime.waiter import PendingRequest


class Desk:
    """A scheduler and somebody who does at once what it decides, step by step on demand."""

    def __init__(self, *names: str, policy: EvictionPolicy = one_at_a_time,
                 limit: int | None = None, **limits: float) -> None:  # fmt: skip
        self.now = 0.0
        self.scheduler = Scheduler(policy=policy, limits=QueueLimits(**limits))  # type: ignore[arg-type]
        for name in names:
            self.scheduler.add(name, limit=limit)
        self.said: list[str] = []

    def take(self, decisions: list[Decision]) -> list[str]:
        said = []
        for decision in decisions:
            match decision:
                case Grant(request=request):
                    said.append(f"grant {request.service}{request.number}")
                case Evict(service=service, target=target):
                    said.append(f"evict {service} for {target}")
                case Refuse(request=request, error=error):
                    code = "as it says" if error is None else error.code
                    said.append(f"refuse {request.service}{request.number}: {code}")
        self.said += said
        return said

    def ask(
        self, name: str, priority: int = 0, client: str = ""
    ) -> tuple[QueuedRequest, list[str]]:
        request, decisions = self.scheduler.submit(
            name, PendingRequest(), self.now, priority=priority, client=client
        )
        return request, self.take(decisions)

    def phase(self, name: str, phase: Phase) -> list[str]:
        return self.take(self.scheduler.phase_changed(name, phase, self.now))

    def done(self, name: str) -> list[str]:
        return self.take(self.scheduler.finished(name, self.now))

    def tick(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.take(self.scheduler.tick(self.now))

    def run(self, name: str) -> None:
        """Bring *name* up with one request that has ended."""
        self.ask(name)
        self.phase(name, "starting")
        self.phase(name, "ready")
        self.done(name)


def test_request_for_a_stopped_service_is_granted_at_once_if_nothing_runs() -> None:
    """Nothing to evict: it goes straight to its lifecycle, and so does the next one."""
    desk = Desk("a", "b")

    assert desk.ask("a")[1] == ["grant a0"]
    assert desk.ask("a")[1] == ["grant a1"]
    assert desk.scheduler.queue == []


def test_idle_service_is_evicted_and_the_request_granted_when_it_is_gone() -> None:
    """A swap: evict, wait until it holds nothing, grant."""
    desk = Desk("a", "b")
    desk.run("a")
    request, said = desk.ask("b")

    assert said == ["evict a for b"]
    assert request.why == "evicting a"
    assert desk.phase("a", "stopping") == []
    assert desk.phase("a", "stopped") == ["grant b1"]
    assert desk.scheduler.swaps == {}


@row("D13")
def test_busy_service_is_never_evicted() -> None:
    """As long as one request is in flight there is no eviction; the last one to end begins it."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.ask("a")
    desk.ask("a")
    request, said = desk.ask("b")

    assert said == []
    assert request.why == "a has 2 requests in flight"
    assert desk.done("a") == []
    assert desk.done("a") == ["evict a for b"]


def test_requests_for_three_services_are_collated() -> None:
    """ABCABC is served AABBCC: what waits for the same service goes together."""
    desk = Desk("a", "b", "c")
    order: list[str] = []
    for name in "abcabc":
        desk.ask(name)
    for name in "abc":
        desk.phase(name, "ready")
        order += [name] * desk.scheduler.services[name].granted
        while desk.scheduler.services[name].granted:
            desk.done(name)
        desk.phase(name, "stopping")
        desk.phase(name, "stopped")

    assert "".join(order) == "aabbcc"
    assert [said for said in desk.said if "evict" in said] == ["evict a for b", "evict b for c"]


def test_higher_priority_goes_first_and_equals_go_in_order() -> None:
    """The queue is ordered by priority, then by arrival."""
    desk = Desk("a", "b", "c", "d")
    desk.run("a")
    desk.ask("a")
    for name, priority in (("b", 0), ("c", 5), ("d", 5)):
        desk.ask(name, priority)

    assert [request.service for request in desk.scheduler.queue] == ["c", "d", "b"]
    assert desk.done("a") == ["evict a for c"]


def pairs(target: str, running: frozenset[str]) -> frozenset[str]:
    """Let a1 and a2 exclude each other, and b1 and b2; an a and a b do not mind."""
    return frozenset(name for name in running if name != target and name[0] == target[0])


def test_swaps_without_common_services_run_in_parallel() -> None:
    """Two disjoint swaps are under way at the same time."""
    desk = Desk("a1", "a2", "b1", "b2", policy=pairs)
    desk.run("a1")
    desk.run("b1")

    assert desk.ask("a2")[1] == ["evict a1 for a2"]
    assert desk.ask("b2")[1] == ["evict b1 for b2"]
    assert set(desk.scheduler.swaps) == {"a2", "b2"}
    assert desk.phase("b1", "stopped") == ["grant b23"]
    assert desk.phase("a1", "stopped") == ["grant a22"]


def test_swaps_that_share_a_service_run_in_sequence() -> None:
    """A second swap waits while what it would evict is going for the first."""
    desk = Desk("a", "b", "c")
    desk.run("a")
    desk.ask("b")
    request, said = desk.ask("c")

    assert said == []
    assert request.why == "the swap to b is under way"
    assert desk.phase("a", "stopped") == ["grant b1"]
    assert request.why == "b has 1 requests in flight"


def test_request_for_what_is_being_evicted_waits_behind_the_swap() -> None:
    """A service on its way out is not called back: the swap it goes for comes first."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.ask("b")
    desk.phase("a", "stopping")
    request, said = desk.ask("a")

    assert said == []
    assert request.why == "a is being evicted for b"
    assert desk.phase("a", "stopped") == ["grant b1"]


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_swap_without_requests_left_is_removed(moment: str) -> None:
    """A cancelled request starts nothing, and the others go on as if it had never been."""
    desk = Desk("a", "b")
    desk.run("a")
    if moment == "before":
        desk.ask("a")
    request, _ = desk.ask("b")
    if moment == "after":
        desk.phase("a", "stopping")
    desk.take(desk.scheduler.cancel(request, desk.now))

    assert desk.scheduler.swaps == {}
    assert desk.scheduler.queue == []
    assert desk.scheduler.cancel(request, desk.now) == []
    if moment == "before":
        desk.done("a")
    desk.phase("a", "stopping")
    assert desk.phase("a", "stopped") == []
    assert desk.ask("a")[1][-1].startswith("grant a")


def test_swap_goes_on_while_one_request_still_wants_it() -> None:
    """Of two requests for the target one may leave: the other is granted."""
    desk = Desk("a", "b")
    desk.run("a")
    first, _ = desk.ask("b")
    desk.ask("b")
    desk.take(desk.scheduler.cancel(first, desk.now))

    assert desk.phase("a", "stopped") == ["grant b2"]


def test_eviction_that_failed_is_decided_again() -> None:
    """A service that was to go and is ready again must not block the swap for ever."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.ask("b")
    desk.phase("a", "stopping")

    assert desk.phase("a", "ready") == ["evict a for b"]


def test_eviction_of_a_stopping_service_prevents_its_restart() -> None:
    """What is stopping already is evicted all the same: it might mean to start again."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.phase("a", "stopping")

    assert desk.ask("b")[1] == ["evict a for b"]


def test_service_that_will_restart_counts_as_running() -> None:
    """A tripped service that revives itself refuses requests but must be evicted by others."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.phase("a", "reviving")

    assert desk.ask("a")[1] == ["refuse a1: as it says"]
    assert desk.ask("b")[1] == ["evict a for b"]


@pytest.mark.parametrize("phase", ["failed", "reviving"])
def test_service_that_would_refuse_evicts_no_service(phase: Phase) -> None:
    """A request for a tripped service is refused in its own words, whatever runs."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.phase("b", phase)

    assert desk.ask("b")[1] == ["refuse b1: as it says"]
    assert desk.scheduler.services["b"].phase == phase


def test_pinned_service_in_conflict_refuses_the_request_at_once() -> None:
    """Nobody waits for what can never go: the refusal names it, also when it comes up later."""
    desk = Desk("a", "b")
    desk.scheduler.add("a", is_pinned=True)
    desk.ask("a")
    request, decisions = desk.scheduler.submit("b", PendingRequest(), 0.0)
    [refusal] = decisions

    assert isinstance(refusal, Refuse)
    assert refusal.error is not None
    assert refusal.error.code == "pinned"
    assert "a" in str(refusal.error)
    assert not request.is_queued


def test_request_waits_for_a_pinned_service_that_stops() -> None:
    """Somebody stopped the pinned one by hand: then there is something to wait for."""
    desk = Desk("a", "b")
    desk.scheduler.add("a", is_pinned=True)
    desk.run("a")
    desk.phase("a", "stopping")
    request, said = desk.ask("b")

    assert said == []
    assert request.why == "a is pinned, and already stopping"
    assert desk.phase("a", "stopped") == ["grant b1"]


# ---- limits
def test_concurrency_limit_of_a_running_service_refuses_more() -> None:
    """One request more than the limit of a ready service is 429 at once."""
    desk = Desk("a", limit=2)
    desk.ask("a")
    desk.phase("a", "ready")
    desk.ask("a")

    assert desk.ask("a")[1] == ["refuse a2: concurrency_limit"]
    desk.done("a")
    assert desk.ask("a")[1] == ["grant a3"]


def test_concurrency_limit_lets_requests_wait_for_a_start() -> None:
    """While a service starts, what exceeds its limit waits, and is granted one by one."""
    desk = Desk("a", limit=1)
    desk.ask("a")
    request, said = desk.ask("a")

    assert said == []
    assert request.why == "a is at its concurrency limit of 1"
    desk.phase("a", "ready")
    assert desk.done("a") == ["grant a1"]


@row("D20")
def test_clients_that_wait_for_a_limit_take_turns() -> None:
    """One of each client, in the order of arrival, then the second of each."""
    desk = Desk("a", limit=1)
    for client in "xxxxyzy":
        desk.ask("a", client=client)
    desk.phase("a", "ready")
    desk.ask("a", client="z")
    while desk.scheduler.services["a"].granted:
        desk.done("a")

    granted = [said for said in desk.said if said.startswith("grant")]
    assert granted == [f"grant a{number}" for number in (0, 4, 5, 1, 6, 2, 3)]


@row("D20")
def test_fair_turns_are_within_a_priority() -> None:
    """Whose turn it is matters among equals only."""
    desk = Desk("a", limit=1)
    for priority, client in ((0, "x"), (1, "x"), (1, "x"), (0, "y"), (1, "y")):
        desk.ask("a", priority, client)
    desk.phase("a", "ready")
    while desk.scheduler.services["a"].granted:
        desk.done("a")

    granted = [said for said in desk.said if said.startswith("grant")]
    assert granted == [f"grant a{number}" for number in (0, 4, 1, 2, 3)]


@row("D20")
def test_fair_turns_keep_the_order_among_services() -> None:
    """Who let another client go first still goes before what was asked for later elsewhere."""
    desk = Desk("a", "b", limit=1)
    for name, client in (("a", "x"), ("a", "x"), ("b", "x"), ("a", "y")):
        desk.ask(name, client=client)
    desk.phase("a", "ready")

    assert desk.done("a") == ["grant a3"]
    assert [request.number for request in desk.scheduler.queue] == [1, 2]
    assert desk.done("a") == ["grant a1"]
    assert desk.done("a") == ["evict a for b"]


@row("D20")
def test_requests_without_a_limit_are_granted_together() -> None:
    """Where nothing makes them wait for each other the order is that of arrival."""
    desk = Desk("a", "b")
    desk.run("a")
    for client in "xxy":
        desk.ask("b", client=client)
    desk.phase("a", "stopping")

    assert desk.phase("a", "stopped") == ["grant b1", "grant b2", "grant b3"]


@pytest.mark.parametrize("limit", [1, 4])
@row("D20")
def test_greedy_client_delays_others_by_its_share_only(limit: int) -> None:
    """A hundred clients, one asks for 500 at a time: nobody else's p99 grows beyond twice.

    Against the same crowd without greed; each request takes a second, and all came before it was
    ready.
    """

    def waits(greed: int) -> list[float]:
        desk = Desk("a", limit=limit, length=1000)
        crowd = random.Random(20)
        asked = [f"client {number}" for number in range(1, 100) for _ in range(2)]
        crowd.shuffle(asked)
        for client in ["greedy"] * greed + asked:
            desk.ask("a", client=client)
        desk.phase("a", "ready")
        waited = []
        while running := desk.scheduler.services["a"].granted:
            desk.now += 1.0
            granted = [said for _ in range(running) for said in desk.done("a")]
            others = [said for said in granted if int(said.removeprefix("grant a")) >= greed]
            waited += [desk.now] * len(others)
        assert len(waited) >= len(asked) - limit
        return sorted(waited)

    fair, greedy = waits(2), waits(500)
    assert greedy[int(0.99 * len(greedy))] <= 2 * fair[int(0.99 * len(fair))]
    assert greedy[len(greedy) // 2] <= 2 * fair[len(fair) // 2]


@row("D10")
def test_full_queue_refuses_at_once() -> None:
    """The request after the last place is refused; one that need not wait is not."""
    desk = Desk("a", "b", length=2)
    desk.run("a")
    desk.ask("a")
    desk.ask("b")
    desk.ask("b")

    assert desk.ask("b")[1] == ["refuse b4: queue_full"]
    assert desk.scheduler.swaps == {}
    assert desk.ask("a")[1] == ["grant a5"]


@row("D10")
def test_request_that_waited_too_long_is_refused() -> None:
    """At its deadline, to the last bit of a float, a queued request is refused with the reason."""
    desk = Desk("a", "b", timeout_s=0.3)
    desk.now = 0.1
    desk.run("a")
    desk.ask("a")
    desk.ask("b")
    at = desk.scheduler.next_tick(desk.now)

    assert at == 0.1 + 0.3
    desk.now = at
    [refusal] = desk.scheduler.tick(desk.now)
    assert isinstance(refusal, Refuse)
    assert refusal.error is not None
    assert refusal.error.code == "queue_timeout"
    assert "a has 1 requests in flight" in str(refusal.error)
    assert desk.scheduler.next_tick(desk.now) is None


# ---- nothing starves
@row("D03")
def test_overdue_request_goes_before_later_ones() -> None:
    """After max_wait_s the busy service gets no new request until the overdue one was served."""
    desk = Desk("a", "b", max_wait_s=30.0, timeout_s=1000.0)
    desk.run("a")
    desk.ask("a")
    desk.ask("b")
    desk.tick(29.0)
    assert desk.ask("a")[1] == ["grant a3"]
    at = desk.scheduler.next_tick(desk.now)

    assert at == 30.0
    desk.tick(1.0)
    assert not desk.scheduler.services["a"].is_open
    late, said = desk.ask("a")
    assert said == []
    assert late.why == "a request for b has waited too long and goes first"
    desk.done("a")
    assert desk.done("a") == ["evict a for b"]
    assert desk.phase("a", "stopped") == ["grant b2"]


@row("D03")
def test_overdue_request_beats_priority() -> None:
    """Requests of a higher priority for a third service cannot starve one that waited too long."""
    desk = Desk("a", "b", "c", max_wait_s=30.0, timeout_s=1000.0)
    desk.run("a")
    desk.ask("a")
    desk.ask("b", priority=0)
    desk.tick(30.0)
    desk.ask("c", priority=9)

    assert desk.done("a") == ["evict a for b"]


@row("D03")
def test_second_request_in_the_queue_becomes_overdue_too() -> None:
    """Each waiting request has its own moment, and there is a tick for each."""
    desk = Desk("a", "b", "c", max_wait_s=30.0, timeout_s=None)  # type: ignore[arg-type]
    desk.run("a")
    desk.ask("a")
    desk.ask("b")
    desk.now = 10.0
    desk.ask("c")
    desk.now = 30.0
    desk.tick(0.0)

    assert desk.scheduler.next_tick(desk.now) == 40.0
    desk.tick(10.0)
    assert desk.scheduler.next_tick(desk.now) is None


@row("D03")
def test_service_without_conflicts_stays_open() -> None:
    """An overdue request closes only what cannot run beside its own service."""
    desk = Desk("a1", "a2", "b1", policy=pairs, max_wait_s=30.0, timeout_s=1000.0)
    desk.run("a1")
    desk.run("b1")
    desk.ask("a1")
    desk.ask("a2")
    desk.tick(30.0)

    assert not desk.scheduler.services["a1"].is_open
    assert desk.scheduler.services["b1"].is_open
    assert desk.ask("b1")[1][0].startswith("grant b1")


@row("D04")
def test_service_that_became_ready_is_not_evicted_at_once() -> None:
    """With a residency no swap comes before its end, unless somebody has waited too long."""
    desk = Desk("a", "b", min_residency_s=10.0, max_wait_s=30.0, timeout_s=1000.0)
    desk.run("a")
    desk.now = 4.0
    request, said = desk.ask("b")

    assert said == []
    assert request.why == "a stays for another 6.0 s"
    assert desk.scheduler.next_tick(desk.now) == 10.0
    assert desk.tick(6.0) == ["evict a for b"]


@row("D04")
def test_overdue_request_ends_the_residency() -> None:
    """Residency yields to max_wait_s."""
    desk = Desk("a", "b", min_residency_s=500.0, max_wait_s=30.0, timeout_s=1000.0)
    desk.run("a")
    desk.ask("b")

    assert desk.tick(29.0) == []
    assert desk.tick(1.0) == ["evict a for b"]


# ---- coming and going
def test_removed_service_ends_its_requests_and_its_swap() -> None:
    """What waits for it is refused, and what waited behind its swap goes on."""
    desk = Desk("a", "b", "c")
    desk.run("a")
    desk.ask("b")
    desk.ask("b")
    desk.ask("c")
    desk.phase("a", "stopping")

    assert desk.take(desk.scheduler.remove("b", desk.now)) == [
        "refuse b1: model_removed", "refuse b2: model_removed", "evict a for c",
    ]  # fmt: skip
    assert "b" not in desk.scheduler.services
    assert desk.phase("a", "stopped") == ["grant c3"]


def test_service_removed_during_its_eviction_does_not_block_the_swap() -> None:
    """An evicted service that vanishes altogether is gone as well."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.ask("b")
    desk.phase("a", "stopping")

    assert desk.take(desk.scheduler.remove("a", desk.now)) == ["grant b1"]
    assert desk.scheduler.finished("a", desk.now) == []


def test_scheduler_limits_can_change() -> None:
    """Adding a service again changes its limits and nothing else."""
    desk = Desk("a", limit=1)
    desk.run("a")
    desk.scheduler.add("a", limit=3, is_pinned=True)

    assert desk.scheduler.services["a"].phase == "ready"
    assert desk.scheduler.services["a"].limit == 3


def test_new_policy_is_used_from_then_on() -> None:
    """Replacing the policy takes effect with the next decision."""
    desk = Desk("a", "b")
    desk.run("a")
    desk.scheduler.policy = lambda target, running: frozenset()

    assert desk.ask("b")[1] == ["grant b1"]


def test_explain_predicts_the_fate_of_a_request() -> None:
    """Asking does not queue anything."""
    desk = Desk("a", "b")
    desk.run("a")

    assert desk.scheduler.explain("b", desk.now) == (frozenset({"a"}), "")
    desk.ask("a")
    assert desk.scheduler.explain("b", desk.now) == (
        frozenset({"a"}), "a has 1 requests in flight",
    )  # fmt: skip
    assert desk.scheduler.queue == []


@pytest.mark.parametrize("odd", [lambda t, r: r | {t}, lambda t, r: frozenset({"nobody", "a"})])
def test_policy_can_neither_evict_the_target_nor_what_does_not_run(
    odd: Callable[[str, frozenset[str]], frozenset[str]],
) -> None:
    """Whatever a policy returns, only other services that hold something are evicted."""
    desk = Desk("a", "b", "c", policy=odd)
    desk.run("a")

    assert desk.ask("b")[1] == ["evict a for b"]


def test_release_without_grant_is_an_assertion_error() -> None:
    """Counting below zero is refused loudly."""
    desk = Desk("a")

    with pytest.raises(AssertionError, match="more requests ended"):
        desk.done("a")
