"""How often a server that starts is probed, whatever it says meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, floats, integers, lists, tuples

from swapchart.runtime.probe_schedule import ProbePace

LONGEST_S = 0.5


def longest_pause(elapsed_s: float) -> float:
    """Say how long a server is left in peace at most."""
    return max(whole(min(0.1 * elapsed_s, 0.010 + 0.001 * elapsed_s, LONGEST_S)), 0.002)


def whole(pause_s: float) -> float:
    """Round up to milliseconds."""
    return math.ceil(pause_s * 1000) / 1000


def nothing(at: float) -> tuple[float, ...]:
    """Say what a server prints about a probe that was sent at *at*: nothing."""
    return ()


def probe(
    until_s: float, output: Sequence[float] = (), *, takes_s: float = 0.001,
    echo: Callable[[float], Sequence[float]] = nothing,
) -> list[float]:  # fmt: skip
    """Probe from 0 on, at the pace under test, and return when.

    Args:
        until_s: Seconds until nobody probes any more.
        output: When the server prints.
        takes_s: A probe takes so long.
        echo: From the time of a probe to when the server prints because of it.
    """
    pace = ProbePace(0.0)
    coming = sorted(output)
    probes: list[float] = []
    answer_s: float | None = None
    while True:
        mine = pace.due if answer_s is None else answer_s
        if coming and coming[0] <= mine:
            pace.hear(coming.pop(0))
        elif mine > until_s:
            return probes
        elif answer_s is None:
            pace.ask(mine)
            probes.append(mine)
            answer_s = mine + takes_s
            coming = sorted([*coming, *echo(mine)])
        else:
            pace.answer(answer_s)
            answer_s = None


OUTPUT = lists(floats(0.0, 0.3), max_size=60).map(lambda gaps: list(accumulate(gaps)))


@given(OUTPUT, floats(0.0, 0.05))
def test_probes_are_bounded_for_any_output(output: list[float], takes_s: float) -> None:
    """Output brings eight probes at once and a hundred a second, and no more."""
    silent = probe(3.0, takes_s=takes_s)
    told = probe(3.0, output, takes_s=takes_s)

    assert len(told) <= len(silent) + 8 + 300


def test_flood_of_output_causes_a_hundred_probes_a_second() -> None:
    """Line after line without a pause for ten seconds: the bound is reached, and kept."""
    flood = [n / 2000 for n in range(20_000)]

    assert 900 <= sum(at > 1 for at in probe(10.0, flood)) <= 9 * 100 + len(probe(10.0)) + 8


@given(OUTPUT, floats(0.0, 0.05))
def test_probe_pause_never_grows_with_output(output: list[float], takes_s: float) -> None:
    """A tenth of the time so far at first, then 10 ms and 0.1 %, then half a second.

    At most a quarter of one where output comes with each probe, as an echo does.
    """
    for one, next_one in pairwise(probe(20.0, output, takes_s=takes_s)):
        longest_s = max(longest_pause(one + takes_s), 0.25 if len(output) >= 3 else 0.0)
        assert next_one - one <= takes_s + longest_s + 1e-9


@given(lists(tuples(integers(0, 300), booleans()), max_size=60), integers(0, 1 << 36))
def test_probe_on_a_millisecond_clock_is_not_due_between_ticks(
    events: list[tuple[int, bool]], began: int
) -> None:
    """Where the clock shows whole ones, as uvloop's does, it would spin until such a time."""
    pace, now = ProbePace(began / 1000), began
    for gap, is_output in events:
        now += gap
        if is_output:
            pace.hear(now / 1000)
        else:
            pace.ask(now / 1000)
            pace.answer(now / 1000)
        due = round(pace.due * 1000, 3)  # what the multiplication adds is no time

        assert 0 <= math.ceil(due) - due < 0.1


def test_probe_pause_is_never_longer_than_half_a_second() -> None:
    """However long the start takes."""
    pauses = [b - a for a, b in pairwise(probe(3000.0, takes_s=0.0))]

    assert max(pauses) == pytest.approx(LONGEST_S, abs=1e-5)


def test_probes_after_output_come_at_once_and_move_apart() -> None:
    """Printed a little before it is ready, it is found ready half that time later at most."""
    probes = [at - 100.1 for at in probe(101.0, [100.1]) if at >= 100.1]

    assert probes[0] == 0.0
    for one, next_one in pairwise(at for at in probes if at < 0.15):
        assert next_one - one <= 0.001 + max(whole((one + 0.001) / 2), 0.002) + 1e-9


@given(lists(floats(0.0, 0.004), max_size=12).map(lambda gaps: list(accumulate(gaps))))
def test_last_line_of_many_is_followed_by_a_probe(burst: list[float]) -> None:
    """A hundred milliseconds of lines, after a quiet time: ten later the last is answered to."""
    last = 200.0 + max(burst, default=0.0)
    probes = probe(201.0, [200.0, *(200.0 + at for at in burst)])

    assert any(last <= at <= last + 0.011 + (last - 200.0) / 2 for at in probes)


@pytest.mark.parametrize("after_s", [0.0005, 0.002, 0.005])
def test_log_line_of_a_probe_causes_no_probe(after_s: float) -> None:
    """A server that logs each request, the probes among them, does not bring them about."""
    echoing = probe(60.0, echo=lambda at: [at + after_s])

    assert len(echoing) <= 60 * 4 + 12


def test_probe_of_a_server_that_logs_probes_follows_its_output() -> None:
    """What it says between two probes is no echo."""
    probes = probe(301.0, [300.1], echo=lambda at: [at + 0.0005])

    assert 300.1 in probes


def test_output_during_a_probe_causes_another_after_it() -> None:
    """The answer may be older than what was said."""
    silent = [at for at in probe(101.0, takes_s=0.001) if at > 100.0]
    told = [at for at in probe(101.0, [silent[0] + 0.0005], takes_s=0.001) if at > 100.0]

    assert silent[1] - silent[0] > 0.1
    assert told[1] - told[0] == pytest.approx(0.003, abs=1e-5)


@pytest.mark.parametrize(("second", "most"), [(0, 120), (1, 90), (10, 50), (60, 15), (600, 3)])
def test_silent_server_is_probed_less_and_less_often(second: int, most: int) -> None:
    """What probing costs is bounded, and falls with the length of the start."""
    probes = probe(second + 1.0, takes_s=0.0)

    assert 2 <= sum(second <= at for at in probes) <= most
