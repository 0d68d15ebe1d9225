"""Probe schedule: how often a starting server is probed, whatever it prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, floats, integers, lists, tuples

from swapchart.runtime.probe_schedule import ProbeSchedule

LONGEST_S = 0.5


def longest_pause(elapsed_s: float) -> float:
    """Return the longest pause between two probes."""
    return max(whole(min(0.1 * elapsed_s, 0.010 + 0.001 * elapsed_s, LONGEST_S)), 0.002)


def whole(pause_s: float) -> float:
    """Round up to milliseconds."""
    return math.ceil(pause_s * 1000) / 1000


def no_echo(at: float) -> tuple[float, ...]:
    """Return when a server logs a probe that was sent at *at*: never."""
    return ()


def probe(
    until_s: float, output: Sequence[float] = (), *, takes_s: float = 0.001,
    echo: Callable[[float], Sequence[float]] = no_echo,
) -> list[float]:  # fmt: skip
    """Follow the schedule from 0 on and return the times of the probes.

    Args:
        until_s: Time in seconds when probing ends.
        output: Times when the server prints.
        takes_s: Duration of a probe in seconds.
        echo: Returns when the server prints because of a probe, from the time of that probe.
    """
    schedule = ProbeSchedule(0.0, 2.0)
    coming = sorted(output)
    probes: list[float] = []
    failure_s: float | None = None
    while True:
        next_s = schedule.due if failure_s is None else failure_s
        if coming and coming[0] <= next_s:
            schedule.output(coming.pop(0))
        elif next_s > until_s:
            return probes
        elif failure_s is None:
            schedule.sent(next_s)
            probes.append(next_s)
            failure_s = next_s + takes_s
            coming = sorted([*coming, *echo(next_s)])
        else:
            schedule.failed(failure_s)
            failure_s = None


OUTPUT = lists(floats(0.0, 0.3), max_size=60).map(lambda gaps: list(accumulate(gaps)))


@given(OUTPUT, floats(0.0, 0.05))
def test_probes_are_bounded_for_any_output(output: list[float], takes_s: float) -> None:
    """Output causes at most eight probes at once and a hundred a second."""
    silent = probe(3.0, takes_s=takes_s)
    printing = probe(3.0, output, takes_s=takes_s)

    assert len(printing) <= len(silent) + 8 + 300


def test_flood_of_output_causes_a_hundred_probes_a_second() -> None:
    """Ten seconds of lines without a pause reach the bound and do not exceed it."""
    flood = [n / 2000 for n in range(20_000)]

    assert 900 <= sum(at > 1 for at in probe(10.0, flood)) <= 9 * 100 + len(probe(10.0)) + 8


@given(OUTPUT, floats(0.0, 0.05))
def test_probe_pause_never_grows_with_output(output: list[float], takes_s: float) -> None:
    """The bound is a tenth of the elapsed time at first, then 10 ms and 0.1 %, then half a second.

    If output comes with each probe, as an echo does, it is a quarter of a second.
    """
    for one, next_one in pairwise(probe(20.0, output, takes_s=takes_s)):
        longest_s = max(longest_pause(one + takes_s), 0.25 if len(output) >= 3 else 0.0)
        assert next_one - one <= takes_s + longest_s + 1e-9


@given(lists(tuples(integers(0, 300), booleans()), max_size=60), integers(0, 1 << 36))
def test_probe_on_a_millisecond_clock_is_not_due_between_ticks(
    events: list[tuple[int, bool]], began: int
) -> None:
    """A loop with a clock of whole milliseconds, such as uvloop, would spin until such a time."""
    schedule, now = ProbeSchedule(began / 1000, 2.0), began
    for gap, is_output in events:
        now += gap
        if is_output:
            schedule.output(now / 1000)
        else:
            schedule.sent(now / 1000)
            schedule.failed(now / 1000)
        due = round(schedule.due * 1000, 3)  # without the rounding error of the multiplication

        assert 0 <= math.ceil(due) - due < 0.1


def test_probe_pause_is_never_longer_than_half_a_second() -> None:
    """The bound holds for a start of any length."""
    pauses = [b - a for a, b in pairwise(probe(3000.0, takes_s=0.0))]

    assert max(pauses) == pytest.approx(LONGEST_S, abs=1e-5)


def test_probes_after_output_come_at_once_and_move_apart() -> None:
    """The delay until readiness is detected is at most half the time since the line."""
    probes = [at - 100.1 for at in probe(101.0, [100.1]) if at >= 100.1]

    assert probes[0] == 0.0
    for one, next_one in pairwise(at for at in probes if at < 0.15):
        assert next_one - one <= 0.001 + max(whole((one + 0.001) / 2), 0.002) + 1e-9


@given(lists(floats(0.0, 0.004), max_size=12).map(lambda gaps: list(accumulate(gaps))))
def test_last_line_of_many_is_followed_by_a_probe(burst: list[float]) -> None:
    """After a quiet time, the last line of a burst is followed by a probe within some 10 ms."""
    last = 200.0 + max(burst, default=0.0)
    probes = probe(201.0, [200.0, *(200.0 + at for at in burst)])

    assert any(last <= at <= last + 0.011 + (last - 200.0) / 2 for at in probes)


@pytest.mark.parametrize("after_s", [0.0005, 0.002, 0.005])
def test_log_line_of_a_probe_causes_no_probe(after_s: float) -> None:
    """A server that logs each request, hence each probe, does not cause further probes."""
    echoing = probe(60.0, echo=lambda at: [at + after_s])

    assert len(echoing) <= 60 * 4 + 12


def test_probe_of_a_server_that_logs_probes_follows_its_output() -> None:
    """Output between two probes is not an echo."""
    probes = probe(301.0, [300.1], echo=lambda at: [at + 0.0005])

    assert 300.1 in probes


def test_output_during_a_probe_causes_another_after_it() -> None:
    """The response to the probe may be older than that output."""
    silent = [at for at in probe(101.0, takes_s=0.001) if at > 100.0]
    printing = [at for at in probe(101.0, [silent[0] + 0.0005], takes_s=0.001) if at > 100.0]

    assert silent[1] - silent[0] > 0.1
    assert printing[1] - printing[0] == pytest.approx(0.003, abs=1e-5)


def test_output_during_the_first_probe_causes_another_after_it() -> None:
    """No earlier probe can have caused it, so it is no echo."""
    schedule = ProbeSchedule(0.0, 2.0)
    schedule.sent(0.0)
    schedule.output(1.999)
    schedule.failed(2.0)

    assert schedule.due == pytest.approx(2.002, abs=1e-5)


def test_probe_pause_is_a_quarter_of_a_second_after_three_echoes() -> None:
    """Three probes in a row with output, and not fewer; one without output ends the row."""
    schedule, now, pauses = ProbeSchedule(0.0, 2.0), 10.0, []
    for has_echo in (True, True, True, True, False, True, True, True, True):
        schedule.sent(now)
        if has_echo:
            schedule.output(now)
        schedule.failed(now)
        pauses.append(schedule.due - now)
        now += 1.0

    is_long = [pause >= 0.249 for pause in pauses]
    # What came with a probe counts from the next one on.
    assert is_long == [False, False, False, True, True, False, False, False, True]


def test_probe_limit_doubles_with_each_timeout() -> None:
    """Probes that end sooner, by a response, leave the limit as it is."""
    schedule, limits = ProbeSchedule(0.0, 2.0), []
    for at, takes_s in [(0.0, 2.0), (10.0, 3.9), (20.0, 4.0), (30.0, 0.1), (40.0, 8.0)]:
        schedule.sent(at)
        limits.append(schedule.ends - at)
        schedule.failed(at + takes_s)

    assert limits == [2.0, 4.0, 4.0, 8.0, 8.0]


def test_output_ends_a_longer_probe_at_the_first_limit() -> None:
    """Another probe is due by that output; a server that logs each probe does not end it."""
    schedule = ProbeSchedule(0.0, 2.0)
    schedule.sent(0.0)
    schedule.failed(2.0)
    schedule.sent(10.0)
    assert schedule.ends == 14.0
    schedule.output(10.5)
    assert schedule.ends == 12.0
    schedule.failed(12.0)
    schedule.sent(20.0)
    schedule.output(20.001)  # the second probe in a row with output

    assert schedule.ends == 24.0


@pytest.mark.parametrize(("second", "most"), [(0, 120), (1, 90), (10, 50), (60, 15), (600, 3)])
def test_silent_server_is_probed_less_and_less_often(second: int, most: int) -> None:
    """The number of probes per second is bounded and falls with the length of the start."""
    probes = probe(second + 1.0, takes_s=0.0)

    assert 2 <= sum(second <= at for at in probes) <= most
