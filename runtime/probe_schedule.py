"""When to probe a server that starts: at once after it says something, else ever more rarely.

Pure policy. Time comes in as an argument; nothing here reads a clock, waits or logs.

A server prints a line at the moment it is ready, a little before or after it really answers. So
output is followed by a probe at once, and by more of them that move apart. A silent server is
probed at intervals that grow with the time it has taken already: its readiness is noticed late
by a small share of its start, and what probing costs is bounded.

Pauses are whole milliseconds: so is uvloop's clock, and for less than one of them it does not sleep
but spins.

Some servers log each request, so each probe: what comes together with a probe, as it did with
the one before, is taken for its echo. It brings no further probe, or there was no end of it; and
such a server is probed four times a second, or its log would hold little else.
"""

from __future__ import annotations

import math

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.5
_AT_FIRST = 0.1  # a pause is so much of the time so far, and no more than the following
_PAUSE_S, _SHARE = 0.010, 0.001  # so long, and so much of the time so far
_AFTER_OUTPUT = 0.5  # so much of the time since the last output
_PERIOD_S, _BURST = 0.010, 8  # output brings so many probes at once, and one a period
_ECHO_S, _ECHOES, _ECHOED_PAUSE_S = 0.005, 3, 0.25
_HAIR_S = 1e-6


class ProbePace:
    """The pace of one start.

    Args:
        now: When it begins. Seconds on a monotonic clock, as is every time here.

    Attributes:
        due: When the next probe shall be sent.
    """

    __slots__ = (
        "_answered", "_began", "_echoes", "_has_echo", "_heard", "_is_asking", "_paid_until",
        "_regular", "due",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.due = self._regular = self._began = self._paid_until = now
        self._answered = self._heard = -math.inf
        self._is_asking = self._has_echo = False
        self._echoes = 0  # probes in a row that output came with, without this one

    def ask(self, now: float) -> None:
        """Note that a probe is sent."""
        if now < self._regular:
            self._paid_until = max(self._paid_until, now) + _PERIOD_S
        self._is_asking = True
        self._echoes = self._echoes + 1 if self._has_echo else 0
        self._has_echo = False

    def answer(self, now: float) -> None:
        """Note that the probe has failed."""
        self._is_asking, self._answered = False, now
        elapsed = now - self._began
        pause = min(_AT_FIRST * elapsed, _PAUSE_S + _SHARE * elapsed, _LONGEST_PAUSE_S)
        if self._echoes >= _ECHOES:
            pause = max(pause, _ECHOED_PAUSE_S)
        self._regular = now + _whole(max(pause, _SHORTEST_PAUSE_S))
        sooner = min(_AFTER_OUTPUT * (now - self._heard), _LONGEST_PAUSE_S)
        self.due = self._affordable(now + _whole(max(sooner, _SHORTEST_PAUSE_S)))

    def hear(self, now: float) -> bool:
        """Note output of the server; tells whether the next probe is due sooner by that."""
        if self._is_asking or now - self._answered < _ECHO_S:
            self._has_echo = True
            if self._echoes:
                return False
        self._heard = now
        due = self._affordable(now)  # where a probe is under way, its answer sets it anew
        is_sooner = due < self.due
        if is_sooner:
            self.due = due
        return is_sooner

    def _affordable(self, wanted: float) -> float:
        """Return when a probe that is wanted at *wanted*, for output, may be sent."""
        return min(self._regular, max(wanted, self._paid_until - (_BURST - 1) * _PERIOD_S))


def _whole(pause_s: float) -> float:
    # A hair less, or what rounding errors put behind the millisecond would wait for the next one.
    return math.ceil(pause_s * 1000) / 1000 - _HAIR_S
