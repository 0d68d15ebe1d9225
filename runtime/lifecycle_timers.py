"""Timers of a lifecycle: the chart arms and cancels them, the specification sets their limits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .service_state import Post, ServiceState
from .spec import ServiceSpec
from .spec_diff import with_live
from .timers import Timer

#: Timers whose limits a new specification changes while they run; a backoff keeps its own.
_RETIMED = (
    "start_limit", "stall_limit", "idle_limit", "doze_limit", "asleep_limit", "stable",
    "drain_limit", "grace", "kill_limit", "cooldown",
)  # fmt: skip

#: Timers that are extended by the time for which the process was suspended.
_TOLERANT = ("start_limit", "stall_limit")


class LifecycleTimers:
    """The timers of one lifecycle.

    Args:
        state: Facts of the service.
        post: Takes the events of timers that fire.
        variable: Returns one variable of the chart.
        event_of: Timer -> event that it posts.
    """

    __slots__ = ("_event_of", "_post", "_state", "_timers", "_unlimited", "_variable")

    def __init__(
        self, state: ServiceState, post: Post, variable: Callable[[str], object],
        event_of: dict[str, str],
    ) -> None:  # fmt: skip
        self._state, self._post = state, post
        self._variable, self._event_of = variable, event_of
        self._timers: dict[str, Timer] = {}
        self._unlimited: set[str] = set()  # armed by the chart, without a limit so far

    def deadline(self, name: str) -> float | None:
        """Return when *name* fires in seconds on the loop's clock; None if it is not armed."""
        armed = self._timers.get(name)
        return None if armed is None else armed.deadline

    def arm(self, name: str) -> None:
        """Arm *name*; without a limit, as soon as a new specification sets one."""
        seconds = self._seconds(name)
        if seconds is None:
            self._unlimited.add(name)
            return
        timer = self._timers.get(name)
        if timer is None:
            timers = self._state.runtime.timers
            make = timers.suspend_tolerant_timer if name in _TOLERANT else timers.timer
            timer = self._timers[name] = make(partial(self._fire, name))
        if name == "stall_limit":
            self._state.log.watch(self._restart_stall_limit)
        timer.arm(seconds)

    def disarm(self, name: str) -> None:
        """Cancel *name*; a no-op when it is not armed."""
        self._unlimited.discard(name)
        timer = self._timers.get(name)
        if timer is not None:
            timer.disarm()
        if name == "stall_limit":
            self._state.log.unwatch(self._restart_stall_limit)

    def _restart_stall_limit(self) -> None:
        seconds = self._seconds("stall_limit")
        if seconds is not None:
            self._timers["stall_limit"].arm(seconds)  # output shows progress

    def retime(self, spec: ServiceSpec) -> None:
        """Apply those parts of *spec* that need no restart; armed timers get their new limits."""
        state = self._state
        before = {name: self._seconds(name) for name in _RETIMED}
        state.spec = with_live(state.spec, spec)
        for name, old in before.items():
            new = self._seconds(name)
            if new != old:
                self._change(name, old, new)

    def _change(self, name: str, old: float | None, new: float | None) -> None:
        deadline = self.deadline(name)
        if old is None:
            if name in self._unlimited:
                self._unlimited.discard(name)
                self.arm(name)
        elif deadline is None:
            return
        elif new is None:
            self.disarm(name)
            self._unlimited.add(name)
        else:
            self.arm(name)
            self._timers[name].arm_at(deadline + new - old)

    def _seconds(self, name: str) -> float | None:
        state = self._state
        timings = state.spec.timings
        if name == "backoff":
            doubled = timings.backoff * 2.0 ** min(max(self._failures() - 1, 0), 30)
            return min(doubled, timings.backoff_max) * state.runtime.rng.uniform(0.9, 1.1)
        if name == "idle_limit" and state.spec.pinned:
            return None
        if name == "drain_limit" and state.end_limit_s is not None:
            share = max(state.end_limit_s - state.spec.longest_stop_s(), state.end_limit_s / 2)
            return share if timings.drain_limit is None else min(timings.drain_limit, share)
        seconds = getattr(timings, name, None)
        if seconds is None:
            seconds = state.spec.parameters.get(f"{name}_s")
        return None if seconds is None else float(seconds)

    def _failures(self) -> int:
        attempts = self._variable("attempts")
        return attempts if isinstance(attempts, int) else 0

    def _fire(self, name: str) -> None:
        self._post(self._event_of[name], cause=self._state.why_fired(name))
