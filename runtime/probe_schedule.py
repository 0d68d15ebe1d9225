"""Probe schedule: when to probe a server that is starting.

Pure: time is an argument; nothing here reads a clock, waits or logs.

A server prints a line around the moment when it becomes ready. Output is therefore followed by a
probe at once, and by further probes at growing intervals. A silent server is probed at intervals
that grow with the time since its start, so that readiness is detected with a delay that is a
small share of the start, and the cost of probing is bounded.

Pauses are whole milliseconds, since uvloop's clock has that resolution and a shorter pause spins
instead of sleeping.

Some servers log each request, hence each probe. Output that comes together with a probe, as it did
with the probe before, is taken for such an echo. It does not cause another probe, since that
would never end, and such a server is probed at most four times a second to keep its log readable.

Some servers need longer for a check than a probe may take, and others accept a connection while
they load and never respond on it. Each probe that times out therefore doubles the time of the
next ones, which end earlier, at the limit that was configured, if output calls for another probe.
"""

from __future__ import annotations

import math

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.5
#: Longest pause without output, as the smaller of a share of the time since the start ...
_SHARE_AT_FIRST = 0.1
#: ... and a constant plus a smaller share of that time.
_PAUSE_S, _SHARE = 0.010, 0.001
#: Pause after output, as a share of the time since that output.
_SHARE_AFTER_OUTPUT = 0.5
#: Output causes at most `_BURST` probes at once, and one each `_PERIOD_S` seconds.
_PERIOD_S, _BURST = 0.010, 8
#: Output within `_ECHO_S` seconds of a probe counts as its echo; after `_ECHOES` probes in a row
#: with an echo, the pause is at least `_ECHOED_PAUSE_S` seconds.
_ECHO_S, _ECHOES, _ECHOED_PAUSE_S = 0.005, 3, 0.25
_ROUNDING_S = 1e-6


class ProbeSchedule:
    """The probes of one start.

    Args:
        now: Time of the start. All times are seconds on a monotonic clock.
        limit_s: Time that a probe may take at first; seconds > 0.

    Attributes:
        due: Time of the next probe.
        ends: Time at which the present probe, or else the last one, times out.
    """

    __slots__ = (
        "_allowed_s", "_began", "_budget_used_until", "_echoes", "_failed_at", "_has_echo",
        "_is_probing", "_limit_s", "_output_at", "_regular", "_sent_at", "due", "ends",
    )  # fmt: skip

    def __init__(self, now: float, limit_s: float) -> None:
        self._limit_s = self._allowed_s = limit_s
        self.ends = self._sent_at = now
        self.due = self._regular = self._began = self._budget_used_until = now
        self._failed_at = self._output_at = -math.inf
        self._is_probing = self._has_echo = False
        self._echoes = 0  # probes in a row that came with output, without the present one

    def sent(self, now: float) -> None:
        """Record that a probe is sent."""
        if now < self._regular:
            self._budget_used_until = max(self._budget_used_until, now) + _PERIOD_S
        self._is_probing, self._sent_at, self.ends = True, now, now + self._allowed_s
        self._echoes = self._echoes + 1 if self._has_echo else 0
        self._has_echo = False

    def failed(self, now: float) -> None:
        """Record that the probe has failed, and schedule the next one."""
        self._is_probing, self._failed_at = False, now
        if now - self._sent_at >= self._allowed_s - _ROUNDING_S:
            self._allowed_s *= 2
        elapsed = now - self._began
        pause = min(_SHARE_AT_FIRST * elapsed, _PAUSE_S + _SHARE * elapsed, _LONGEST_PAUSE_S)
        if self._echoes >= _ECHOES:
            pause = max(pause, _ECHOED_PAUSE_S)
        self._regular = now + _whole(max(pause, _SHORTEST_PAUSE_S))
        sooner = min(_SHARE_AFTER_OUTPUT * (now - self._output_at), _LONGEST_PAUSE_S)
        self.due = self._within_budget(now + _whole(max(sooner, _SHORTEST_PAUSE_S)))

    def output(self, now: float) -> bool:
        """Record output of the server; return True if the next probe is due sooner by that.

        During a probe it may move `ends` instead.
        """
        if self._is_probing or now - self._failed_at < _ECHO_S:
            self._has_echo = True
            if self._echoes:
                return False
            self.ends = min(self.ends, self._sent_at + self._limit_s)
        self._output_at = now
        due = self._within_budget(now)  # while a probe is under way, its failure sets `due` again
        is_sooner = due < self.due
        if is_sooner:
            self.due = due
        return is_sooner

    def _within_budget(self, wanted: float) -> float:
        """Return when a probe that output calls for at *wanted* may be sent."""
        earliest = self._budget_used_until - (_BURST - 1) * _PERIOD_S
        return min(self._regular, max(wanted, earliest))


def _whole(pause_s: float) -> float:
    # Slightly less, so that a rounding error does not postpone the probe by a millisecond.
    return math.ceil(pause_s * 1000) / 1000 - _ROUNDING_S
