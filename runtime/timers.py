"""All timers of a supervisor: one heap, one task, the clock of the event loop.

Arming again what is armed moves its deadline and touches the heap only when the deadline comes
earlier: an idle limit is armed after every request, and fires once in a long while.
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

_PULSE_S = 1.0  # how often a gap is looked for while a patient timer runs
_GAP_S = 3.0  # nobody looked for so long: the whole process stood still


class Timer:
    """A timer that can be armed again and again.

    Attributes:
        deadline: When it fires; seconds on the loop's clock, or None while it is not armed.
    """

    __slots__ = ("_service", "action", "deadline", "queued_at")

    def __init__(self, service: TimerService, action: Callable[[], None]) -> None:
        self._service = service
        self.action = action
        self.deadline: float | None = None
        self.queued_at: float | None = None

    def arm(self, delay_s: float) -> None:
        """Fire once, *delay_s* seconds from now; an earlier arming is forgotten."""
        self.arm_at(self._service.now() + delay_s)

    def arm_at(self, deadline: float) -> None:
        """Fire once at *deadline*, seconds on the loop's clock; at once if that is past."""
        self.deadline = deadline
        if self.queued_at is None or self.queued_at > deadline:
            self._service.queue(self, deadline)

    def disarm(self) -> None:
        """Do not fire; a no-op when it is not armed."""
        self.deadline = None


class PatientTimer(Timer):
    """A timer that gets the time back in which the whole process stood still.

    By SIGSTOP, a debugger, a virtual machine that was paused: the world may have gone on, and
    what we would have seen of it is still to be looked at. (A machine's sleep is no such gap:
    Linux' monotonic clock does not count it.)
    """

    __slots__ = ()

    def arm(self, delay_s: float) -> None:
        """As `Timer.arm`."""
        self._service.watch(self)  # before the clock is read: a standstill in between counts, too
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
        self._patient: set[PatientTimer] = set()
        self._looked_at = 0.0  # on the clock, and no longer than a pulse ago while one is patient
        #: Seconds on the loop's clock; also outside a task, where anyio does not know the loop.
        self.now: Callable[[], float] = _clock()

    def timer(self, action: Callable[[], None]) -> Timer:
        """Make a timer that calls *action*, which must not wait; an exception is logged."""
        return Timer(self, action)

    def patient_timer(self, action: Callable[[], None]) -> PatientTimer:
        """As `timer`; see `PatientTimer`."""
        return PatientTimer(self, action)

    def watch(self, timer: PatientTimer) -> None:
        """Look for gaps while *timer* is armed; `PatientTimer.arm_at` calls this."""
        if timer in self._patient:
            return
        if not self._patient:
            self._looked_at = self.now()
        self._patient.add(timer)
        self._wake.set()

    def queue(self, timer: Timer, deadline: float) -> None:
        """Put *timer* into the heap; `Timer.arm` calls this."""
        timer.queued_at = deadline
        heapq.heappush(self._heap, (deadline, next(self._count), timer))
        if self._heap[0][2] is timer:
            self._wake.set()

    async def run(self) -> None:
        """Fire what is due, for ever."""
        while True:
            now = self.now()
            self._make_good(now)
            self._fire_due(now)
            self._wake = anyio.Event()
            with anyio.CancelScope(deadline=self._next_look()):
                await self._wake.wait()

    def _next_look(self) -> float:
        """When the first timer is due, or sooner to see a gap; infinite when there is none."""
        if self._patient:
            self._patient = {timer for timer in self._patient if timer.deadline is not None}
        first = self._heap[0][0] if self._heap else math.inf
        return min(first, self._looked_at + _PULSE_S) if self._patient else first

    def _make_good(self, now: float) -> None:
        """Give patient timers the time back if nobody looked for far too long."""
        gap_s = now - self._looked_at
        self._looked_at = now
        if gap_s < _GAP_S:
            return
        for timer in self._patient:
            deadline = timer.deadline
            if deadline is not None:
                log.warning("stood still for %.1f s: a start gets that time back", gap_s)
                timer.arm_at(deadline + gap_s)

    def _fire_due(self, now: float) -> None:
        end = next(self._count)
        # What an action arms anew is left for the next round: others must have their turn.
        while self._heap and self._heap[0][0] <= now and self._heap[0][1] < end:
            queued, _, timer = heapq.heappop(self._heap)
            if timer.queued_at != queued:
                continue  # an entry that an earlier arming left behind
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
            except Exception:  # the other timers fire all the same
                log.exception("what a timer was to do failed")


def _clock() -> Callable[[], float]:
    try:
        return asyncio.get_running_loop().time
    except RuntimeError:  # trio
        return anyio.current_time
