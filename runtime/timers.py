"""Timers of a supervisor: one heap, one task, the clock of the event loop.

To arm an armed timer again moves its deadline; the heap changes only if the deadline becomes
earlier. The idle timer is armed after every request and fires rarely.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Callable

import anyio

log = logging.getLogger(__name__)

#: Seconds between checks for a suspension, while a `SuspendTolerantTimer` is armed.
_CHECK_S = 1.0
#: Seconds between two checks from which on the process counts as suspended meanwhile.
_SUSPENDED_S = 3.0


class Timer:
    """A timer that can be armed repeatedly.

    Attributes:
        deadline: Time when it fires, in seconds on the loop's clock; None while it is not armed.
        queued_at: Deadline of its entry in the heap, or None.
    """

    __slots__ = ("_service", "action", "deadline", "queued_at")

    def __init__(self, service: TimerService, action: Callable[[], None]) -> None:
        self._service = service
        self.action = action
        self.deadline: float | None = None
        self.queued_at: float | None = None

    def arm(self, delay_s: float) -> None:
        """Fire once, *delay_s* seconds from now; this replaces an earlier deadline."""
        self.arm_at(self._service.now() + delay_s)

    def arm_at(self, deadline: float) -> None:
        """Fire once at *deadline*, seconds on the loop's clock; at once if that has passed."""
        self.deadline = deadline
        if self.queued_at is None or self.queued_at > deadline:
            self._service.queue(self, deadline)

    def disarm(self) -> None:
        """Cancel the timer; a no-op when it is not armed."""
        self.deadline = None


class SuspendTolerantTimer(Timer):
    """A timer whose deadline moves by the time for which the whole process was suspended.

    A process is suspended by SIGSTOP, a debugger, or a pause of its virtual machine. Others
    may have run meanwhile, and their output is still unread. (The sleep of a machine does not
    count: Linux' monotonic clock stops then.)
    """

    __slots__ = ()

    def arm(self, delay_s: float) -> None:
        """As `Timer.arm`."""
        self._service.watch(self)  # before the clock is read: a suspension in between counts
        super().arm(delay_s)

    def arm_at(self, deadline: float) -> None:
        """As `Timer.arm_at`."""
        self._service.watch(self)
        super().arm_at(deadline)


class TimerService:
    """Runs timers; made inside the event loop, and `run` must be running as a task."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._wake = anyio.Event()
        self._tolerant: set[SuspendTolerantTimer] = set()
        self._checked_at = 0.0  # time of the last check for a suspension
        #: Return the time in seconds on the loop's clock, also outside a task.
        self.now: Callable[[], float] = clock()

    def timer(self, action: Callable[[], None]) -> Timer:
        """Return a timer that calls *action*, which must not wait; an exception is logged."""
        return Timer(self, action)

    def suspend_tolerant_timer(self, action: Callable[[], None]) -> SuspendTolerantTimer:
        """Return a timer as `timer` does; see `SuspendTolerantTimer`."""
        return SuspendTolerantTimer(self, action)

    def watch(self, timer: SuspendTolerantTimer) -> None:
        """Check for suspensions while *timer* is armed; `SuspendTolerantTimer` calls this."""
        if timer in self._tolerant:
            return
        if not self._tolerant:
            self._checked_at = self.now()
        self._tolerant.add(timer)
        self._wake.set()

    def queue(self, timer: Timer, deadline: float) -> None:
        """Add *timer* to the heap; `Timer.arm` calls this."""
        timer.queued_at = deadline
        heapq.heappush(self._heap, (deadline, next(self._count), timer))
        if self._heap[0][2] is timer:
            self._wake.set()

    async def run(self) -> None:
        """Fire due timers until cancelled."""
        while True:
            now = self.now()
            self._make_up_for_suspension(now)
            self._fire_due(now)
            self._wake = anyio.Event()
            with anyio.CancelScope(deadline=self._next_wakeup()):
                await self._wake.wait()

    def _next_wakeup(self) -> float:
        """Return when the first timer is due or the next check is; infinite without timers."""
        if self._tolerant:
            self._tolerant = {timer for timer in self._tolerant if timer.deadline is not None}
        first = self._heap[0][0] if self._heap else math.inf
        return min(first, self._checked_at + _CHECK_S) if self._tolerant else first

    def _make_up_for_suspension(self, now: float) -> None:
        """Move the deadlines of tolerant timers if the process was suspended."""
        gap_s = now - self._checked_at
        self._checked_at = now
        if gap_s < _SUSPENDED_S:
            return
        for timer in self._tolerant:
            deadline = timer.deadline
            if deadline is not None:
                log.warning(
                    "the process was suspended for %.1f s: extending a start timeout", gap_s
                )
                timer.arm_at(deadline + gap_s)

    def _fire_due(self, now: float) -> None:
        end = next(self._count)
        # Timers that an action arms fire in the next round, so that no timer starves.
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] < end:
            queued, _, timer = heapq.heappop(self._heap)
            if timer.queued_at != queued:
                continue  # an outdated entry
            timer.queued_at = None
            deadline = timer.deadline
            if deadline is None:
                continue
            if deadline > now:
                self.queue(timer, deadline)
                continue
            timer.deadline = None
            try:
                timer.action()
            except Exception:  # the other timers must fire nevertheless
                log.exception("the action of a timer failed")


def clock() -> Callable[[], float]:
    """Return the clock of the event loop, in seconds; it can be read outside of tasks too."""
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:  # trio
        return anyio.current_time
