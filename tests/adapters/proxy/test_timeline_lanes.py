"""Lanes of the timeline: which state a model was in when, and which transitions are one swap."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swapchart.adapters.proxy.api.timeline.lanes import (
    STATES,
    Interval,
    answering,
    intervals,
    swaps,
)
from swapchart.adapters.store.timeline import RequestGroup, TransitionFact
from swapchart.machine import lifecycle

#: Innermost state -> configuration, outermost first.
INSIDE = {
    "stopped": "alive", "before_start": "alive.starting", "launching": "alive.starting",
    "health_checking": "alive.starting", "ready": "alive", "draining": "alive.stopping",
    "before_stop": "alive.stopping", "terminating": "alive.stopping", "sweeping": "alive.stopping",
    "asleep": "alive.sleeping", "suspending": "alive.sleeping", "waking": "alive.sleeping",
    "backoff": "alive", "tripped": "alive.failed",
}  # fmt: skip


def fact(
    at: float, target: str, event: str = "x", *, service: str = "a", instance: str = "now",
    until: float = 100.0, swap: str = "", cause: str = "request",
) -> TransitionFact:  # fmt: skip
    return TransitionFact(
        at=at, instance=instance, until=until, service=service, event=event, target=target,
        configuration=f"{INSIDE[target]}.{target}", swap_id=swap, swap_cause=cause,
        swap_request="r-1",
    )  # fmt: skip


def lane(*rows: TransitionFact, start: int = 0, end: int = 100_000, least_ms: int = 1) -> list[
    tuple[int, int, str]
]:  # fmt: skip
    found = intervals(rows, start, end, instance="now", least_ms=least_ms)
    return [(each.at, each.until, each.state) for each in found.get("a", [])]


RUN = (
    fact(1, "before_start"), fact(2, "health_checking"), fact(5, "ready"), fact(20, "draining"),
    fact(21, "terminating"), fact(23, "stopped"),
)  # fmt: skip


def test_states_of_the_test_are_those_of_the_chart() -> None:
    """A state that is renamed would leave its lane without a word."""
    known = json.dumps(lifecycle().chart)
    assert [name for name in INSIDE if f'"{name}"' not in known] == []


def test_lane_shows_start_residence_and_stop() -> None:
    """States inside of one group are one interval, and a stopped model has none."""
    assert lane(*RUN) == [
        (1000, 5000, "starting"), (5000, 20_000, "resident"), (20_000, 23_000, "stopping"),
    ]  # fmt: skip


def test_lane_is_cut_at_the_span() -> None:
    """A state that began before, or goes on after it, lasts from edge to edge."""
    assert lane(*RUN, start=6000, end=10_000) == [(6000, 10_000, "resident")]
    assert lane(*RUN[:3], end=90_000)[-1] == (5000, 90_000, "resident")


def test_lane_of_a_crash_is_failed_until_the_next_start() -> None:
    """The crash of a process, the pause, and then the new start."""
    rows = (
        fact(1, "ready"), fact(5, "sweeping", "proc_exited"), fact(6, "backoff"),
        fact(9, "before_start"), fact(10, "ready"),
    )  # fmt: skip
    assert lane(*rows, end=11_000) == [
        (1000, 5000, "resident"), (5000, 9000, "failed"), (9000, 10_000, "starting"),
        (10_000, 11_000, "resident"),
    ]  # fmt: skip


def test_lane_of_a_stop_that_ends_the_process_is_no_failure() -> None:
    rows = (fact(1, "ready"), fact(5, "terminating", "stop"), fact(6, "sweeping", "proc_exited"))
    assert lane(*rows, end=8000) == [(1000, 5000, "resident"), (5000, 8000, "stopping")]


def test_lane_of_a_killed_proxy_ends_with_its_last_transition() -> None:
    """The model ended with it; how long after its last transition is not known."""
    rows = (
        fact(1, "ready", instance="old", until=30.0),
        fact(60, "before_start", instance="now"), fact(61, "ready", instance="now"),
    )  # fmt: skip
    assert lane(*rows, end=70_000) == [
        (1000, 30_000, "resident"), (60_000, 61_000, "starting"), (61_000, 70_000, "resident"),
    ]  # fmt: skip


def test_lane_shows_sleep() -> None:
    rows = (fact(1, "ready"), fact(4, "suspending"), fact(5, "asleep"), fact(9, "waking"))
    assert [state for _, _, state in lane(*rows)] == ["resident", "stopping", "asleep", "starting"]


@given(
    st.lists(st.tuples(st.integers(1, 900), st.sampled_from(sorted(INSIDE))), max_size=40),
    st.integers(1, 3000),
)
def test_coarse_lanes_cover_the_same_time_with_fewer_intervals(
    steps: list[tuple[int, str]], least_ms: int
) -> None:
    """Intervals never overlap; a coarse lane has at most two for each of its steps."""
    at, rows = 0.0, []
    for pause_ms, target in steps:
        at += pause_ms / 1000
        rows.append(fact(at, target))
    end = round(at * 1000) + 1
    fine = lane(*rows, end=end)
    coarse = lane(*rows, end=end, least_ms=least_ms)

    for found in (fine, coarse):
        assert all(first[1] <= second[0] for first, second in pairwise(found))
        assert all(each[2] in STATES for each in found)
    assert len(coarse) <= min(len(fine), 2 * (end // least_ms) + 2)
    for start, until, _ in fine:  # nothing is lost
        assert any(low <= start and until <= high for low, high, _ in coarse)


def group(answering: int, until: int, model: str = "a") -> RequestGroup:
    return RequestGroup(
        model=model, requests=1, total_waited=0.0, answering=answering, until=until, id=1, time=0,
        status=200, duration=until, waited=answering, first_byte=0, rejected=0, failed=0,
        canceled=0, swap_id=None, queue=None,
        evict=None, start=None, hooks=None,
    )  # fmt: skip


def test_answering_joins_requests_at_one_time() -> None:
    """Requests side by side are one interval; one that was never admitted is none."""
    groups = [group(10, 20), group(15, 40), group(41, 50), group(90, 95), group(60, 60)]
    assert answering(groups, 5) == {
        "a": [Interval(10, 50, "answering"), Interval(90, 95, "answering")]
    }


def test_swap_has_what_it_started_and_what_it_stopped() -> None:
    """Transitions without a swap are of none; the order is that of the beginnings."""
    rows = (
        fact(1, "before_start", service="b", swap="s-2", cause="load"),
        fact(2, "ready", service="b", swap="s-2", cause="load"),
        fact(0.5, "draining", swap="s-1"), fact(0.6, "sweeping", "proc_exited", swap="s-1"),
        fact(3, "stopped", swap="s-1"),
        fact(3.5, "before_start", service="c", swap="s-1"),
        fact(4, "terminating", "hooks_failed", service="c", swap="s-1"),
        fact(5, "draining", service="b", swap="s-3"),
        fact(6, "sweeping", "proc_exited", service="b", swap="s-3"),
        fact(9, "stopped", service="d"),
    )  # fmt: skip
    first, second, third = swaps(rows)

    assert (first.id, first.at, first.until) == ("s-1", 500, 4000)
    assert (first.started, first.stopped, first.is_failed) == (["c"], ["a"], True)
    assert (first.cause, first.request_id) == ("request", "r-1")
    assert (second.id, second.started, second.cause) == ("s-2", ["b"], "load")
    assert not second.is_failed
    assert (third.stopped, third.is_failed) == (["b"], False)
