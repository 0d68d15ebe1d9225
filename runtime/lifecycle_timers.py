"""The limits of one life: timers that the chart arms and cancels, as long as its spec says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .service_state import Post, ServiceState
from .spec import ServiceSpec
from .spec_diff import with_live
from .timers import Timer

#: Timers whose limits may change while they run; a backoff keeps its own.
_RETIMED = (
    "start_limit", "stall_limit", "idle_limit", "doze_limit", "asleep_limit", "stable",
    "drain_limit", "grace", "kill_limit", "cooldown",
)  # fmt: skip

#: Timers of a start that get the time back in which we stood still.
_PATIENT = ("start_limit", "stall_limit")


class LifecycleTimers:
    """The timers of one lifecycle.

    Args:
        state: The facts of the service whose they are.
        post: Takes the events of timers that fire.
        datum: Reads one variable of the chart.
        fired_by: Timer -> the event that it posts.
    """

    def __init__(
        self, state: ServiceState, post: Post, datum: Callable[[str], object],
        fired_by: dict[str, str],
    ) -> None:  # fmt: skip
        self._state, self._post, self._datum, self._fired_by = state, post, datum, fired_by
        self._timers: dict[str, Timer] = {}
        self._unlimited: set[str] = set()  # asked for by the chart, while the spec sets no limit

    def deadline(self, name: str) -> float | None:
        """When *name* fires; seconds on the loop's clock, or None when it is not armed."""
        armed = self._timers.get(name)
        return None if armed is None else armed.deadline

    def arm(self, name: str) -> None:
        """Arm *name*; where the spec sets no limit, only once it does."""
        seconds = self._seconds(name)
        if seconds is None:
            self._unlimited.add(name)
            return
        timer = self._timers.get(name)
        if timer is None:
            timers = self._state.world.timers
            make = timers.patient_timer if name in _PATIENT else timers.timer
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
            self._timers["stall_limit"].arm(seconds)  # slow, but it moves

    def retime(self, spec: ServiceSpec) -> None:
        """Take what of *spec* a process does not notice; what is armed gets its new limit."""
        state = self._state
        before = {name: self._seconds(name) for name in _RETIMED}
        state.spec = with_live(state.spec, spec)
        for name, was in before.items():
            now = self._seconds(name)
            if now != was:
                self._change(name, was, now)

    def _change(self, name: str, was: float | None, now: float | None) -> None:
        deadline = self.deadline(name)
        if was is None:
            if name in self._unlimited:
                self._unlimited.discard(name)
                self.arm(name)
        elif deadline is None:
            return
        elif now is None:
            self.disarm(name)
            self._unlimited.add(name)
        else:
            self.arm(name)
            self._timers[name].arm_at(deadline + now - was)

    def _seconds(self, name: str) -> float | None:
        state = self._state
        timings = state.spec.timings
        if name == "backoff":
            doubled = timings.backoff * 2.0 ** min(max(self._failures() - 1, 0), 30)
            return min(doubled, timings.backoff_max) * state.world.rng.uniform(0.9, 1.1)
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
        attempts = self._datum("attempts")
        return attempts if isinstance(attempts, int) else 0

    def _fire(self, name: str) -> None:
        self._post(self._fired_by[name], cause=self._state.why_fired(name))
