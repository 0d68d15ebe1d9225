"""Timers of a lifecycle: the chart arms and cancels them, the specification sets their limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

from .memory import size
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

#: Timers that run while no request is in flight; those of an adopted run began with an earlier one.
_IDLE = ("idle_limit", "doze_limit")

_SLEEP_RETRY_S = 10.0  # until a service looks again whether there is memory for its sleep


class LifecycleTimers:
    """The timers of one lifecycle.

    Args:
        state: Facts of the service.
        post: Takes the events of timers that fire.
        variable: Returns one variable of the chart.
        event_of: Timer -> event that it posts.
    """

    __slots__ = (
        "_event_of", "_is_kept_awake", "_post", "_state", "_timers", "_unlimited", "_variable",
    )  # fmt: skip

    def __init__(
        self, state: ServiceState, post: Post, variable: Callable[[str], object],
        event_of: dict[str, str],
    ) -> None:  # fmt: skip
        self._state, self._post = state, post
        self._variable, self._event_of = variable, event_of
        self._timers: dict[str, Timer] = {}
        self._unlimited: set[str] = set()  # armed by the chart, without a limit so far
        self._is_kept_awake = False

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
        idle_since = self._state.idle_since
        if idle_since is not None and name in _IDLE:
            timer.arm_at(max(idle_since + seconds, self._state.runtime.timers.now()))
        else:
            timer.arm(seconds)

    def disarm(self, name: str) -> None:
        """Cancel *name*; a no-op when it is not armed."""
        self._unlimited.discard(name)
        if name in _IDLE:
            self._state.idle_since = None
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
        self._change_all(before)

    def keep_for(self, seconds: float | None) -> None:
        """Set the idle limit of this incarnation; infinity is no limit, None its own again."""
        before = {name: self._seconds(name) for name in ("idle_limit", "doze_limit")}
        self._state.kept = None if seconds is None else (self._state.incarnation, seconds)
        self._change_all(before)

    def _change_all(self, before: Mapping[str, float | None]) -> None:
        """Give the armed timers among *before* their present limits."""
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
        if name in ("idle_limit", "doze_limit") and state.kept is not None:
            kept = self._kept(name)
            if kept is not None:
                return kept if kept < math.inf else None
        if name == "idle_limit" and state.spec.pinned:
            return None
        if name == "drain_limit" and state.end_limit_s is not None:
            share = max(state.end_limit_s - state.spec.longest_stop_s(), state.end_limit_s / 2)
            return share if timings.drain_limit is None else min(timings.drain_limit, share)
        seconds = getattr(timings, name, None)
        if seconds is None:
            seconds = state.spec.parameters.get(f"{name}_s")
        return None if seconds is None else float(seconds)

    def _kept(self, name: str) -> float | None:
        """Return the limit that a request has set for *name*; infinity is none, None is not set.

        A service that is kept does not fall asleep: it is to respond at once until the limit.
        """
        state, spec = self._state, self._state.spec
        incarnation, seconds = state.kept or (-1, 0.0)
        if incarnation != state.incarnation or spec.pinned or spec.is_unstoppable:
            return None
        if name == "doze_limit":
            return math.inf
        limit = spec.timings.keep_limit
        return seconds if limit is None else min(seconds, limit)

    def _failures(self) -> int:
        attempts = self._variable("attempts")
        return attempts if isinstance(attempts, int) else 0

    def _fire(self, name: str) -> None:
        if name == "doze_limit" and self._has_no_room_to_sleep():
            self._timers[name].arm(_SLEEP_RETRY_S)
            return
        self._post(self._event_of[name], cause=self._state.why_fired(name))

    def _has_no_room_to_sleep(self) -> bool:
        """Return True if the memory for its sleep is missing; the first time is logged."""
        state = self._state
        missing = state.runtime.memory.missing_for_sleep(state.spec.name)
        if missing and not self._is_kept_awake:
            amounts = ", ".join(f"{size(missing[pool])} of {pool}" for pool in sorted(missing))
            state.log.line(f"[swapchart] stays awake: {amounts} missing for its sleep")
        self._is_kept_awake = bool(missing)
        return self._is_kept_awake
