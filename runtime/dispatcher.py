"""Dispatcher: carries out the scheduler's decisions on the lifecycles, and reports back to it.

Requests enter through `acquire` and leave through `finished`. Each change of a lifecycle's phase
goes to the scheduler, and each of its decisions to a lifecycle or a waiting request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import assert_never

import anyio
import anyio.lowlevel

from .errors import RequestError
from .lifecycle import Lifecycle
from .phase import ending_of, phase_of
from .request_wait import RequestWait
from .retirement import with_addresses
from .scheduler import Scheduler
from .scheduling import Decision, Evict, EvictionPolicy, Grant, QueuedRequest, Refuse
from .service_table import ServiceTable
from .swaps import SwapLedger
from .timers import TimerService
from .waiter import PendingRequest


class Dispatcher:
    """Connects one scheduler with the lifecycles of a supervisor.

    Args:
        scheduler: Decides on requests and evictions.
        services: The services of the supervisor.
        timers: Wakes the scheduler when a queued request times out or becomes overdue.
        swaps: Learns which services are part of which swap.

    Attributes:
        policy: Eviction policy of the configuration; in force from the next `batch` on.
        on_memory_change: Called when a service that needs memory may start or stop, and when a
            request begins to wait; None without a meter.
    """

    def __init__(
        self, scheduler: Scheduler, services: ServiceTable, timers: TimerService, swaps: SwapLedger
    ) -> None:
        self.policy: EvictionPolicy = scheduler.policy
        self.on_memory_change: Callable[[], None] | None = None
        self._scheduler, self._services, self._timers = scheduler, services, timers
        self._swaps = swaps
        self._tick = timers.timer(self.review)
        self._decisions: deque[Decision] = deque()
        self._is_deciding = False
        self._is_anything_leaving = False  # the scheduler's policy is an extended one
        self._requests: dict[PendingRequest, QueuedRequest] = {}

    # ---- requests
    async def acquire(
        self, name: str, priority: int, client: str, *, may_start: bool = True,
        wait: RequestWait | None = None,
    ) -> None:  # fmt: skip
        """Queue a request for *name* and wait until it is admitted; pair with `finished`.

        *wait* is filled in meanwhile.

        Raises:
            RequestError: The request was refused; an `UnknownServiceError` if there is no such
                service.
        """
        services = self._services
        lifecycle = services.lookup(name)
        await anyio.lowlevel.checkpoint_if_cancelled()  # a client that left starts no service
        services.check_open()
        if name in services.retiring:
            raise services.removed(name)
        waiter, now = PendingRequest(), self._timers.now()
        wait = wait or RequestWait()
        wait.queued_at, wait.resident = now, tuple(sorted(self._scheduler.running()))
        request, decisions = self._scheduler.submit(
            name, waiter, now, priority=priority, client=client, may_start=may_start, wait=wait
        )
        self._join_swap(request, now)
        self._requests[waiter] = request
        self._decide(decisions)
        self._rearm()
        if request.is_queued and self.on_memory_change is not None:
            self.on_memory_change()  # other programs may have left since the last reading
        try:
            await waiter.wait()
        except anyio.get_cancelled_exc_class():
            self._withdraw(request, lifecycle)
            raise
        except RequestError:
            if request.was_granted:
                self.finished(name)
            raise
        finally:
            wait.note_end(self._timers.now(), lifecycle.hooks_s)
            del self._requests[waiter]

    def _join_swap(self, request: QueuedRequest, now: float) -> None:
        """Let *request* wait for the swap that earlier requests for its service wait for."""
        if not request.is_queued:
            return
        for other in self._scheduler.queue:
            if other.service == request.service and other.wait.swap is not None:
                if other is not request:
                    request.wait.join(other.wait, now)
                return

    def _withdraw(self, request: QueuedRequest, lifecycle: Lifecycle) -> None:
        if request.is_queued:
            self._decide(self._scheduler.cancel(request, self._timers.now()))
        elif request.was_granted:
            lifecycle.withdraw(request.waiter)
            self.finished(request.service)
            self.on_change(lifecycle)  # a service in backoff without requests may hold no resources

    def finished(self, name: str) -> None:
        """Report that a granted request of *name* has ended."""
        scheduler, retiring = self._scheduler, self._services.retiring
        decisions = scheduler.finished(name, self._timers.now())
        if decisions:
            self._decide(decisions)
        if retiring and name in retiring and scheduler.services[name].granted == 0:
            retiring[name].released.set()

    def requeue_waiters(self, lifecycle: Lifecycle, cause: str) -> None:
        """Move the requests that wait for the start of *lifecycle* back into the queue."""
        for waiter in lifecycle.waiters:
            request = self._requests.get(waiter)
            if request is not None:
                self._scheduler.requeue(request)
                lifecycle.withdraw(waiter, cause)

    def take_back(self, name: str, waiters: Iterable[PendingRequest]) -> dict[PendingRequest, None]:
        """Move requests for *name* back into their old places, once each; return the others.

        Their lifecycle has dropped them. It does not restart by itself then: the scheduler first
        makes room.
        """
        left: dict[PendingRequest, None] = {}
        has_any = False
        for waiter in waiters:
            request = self._requests.get(waiter)
            if request is None or request.was_retried:
                left[waiter] = None
            else:
                request.was_retried = has_any = True
                self._scheduler.requeue(request)
        lifecycle = self._services.lifecycles[name]
        if has_any:
            lifecycle.tell("give_way")
        return left

    def refuse_unloaded(self, name: str) -> None:
        """Refuse the queued requests for *name*, which is being unloaded."""
        for request in self._scheduler.clear(name):
            error = RequestError("model_unloaded", f"{name} was unloaded", retry_after_s=1.0)
            request.waiter.refuse(error)

    # ---- changes
    def on_change(self, lifecycle: Lifecycle) -> None:
        """Report the present phase of *lifecycle* to the scheduler."""
        name, scheduler = lifecycle.spec.name, self._scheduler
        entry = scheduler.services.get(name)
        if entry is None:
            return
        if self._is_anything_leaving:
            self._update_policy()
        is_reopened = bool(entry.closed_reason) and (
            lifecycle.next_spec is None or lifecycle.state in ("ready", "stuck")
        )
        if is_reopened:
            entry.closed_reason = ""
        phase, ending = phase_of(lifecycle), ending_of(lifecycle)
        self._decide(scheduler.phase_changed(name, phase, self._timers.now(), ending))
        if self.on_memory_change is not None and entry.need is not None:
            self.on_memory_change()
        if is_reopened:
            self._decide(scheduler.tick(self._timers.now()))
        self._rearm()

    def review(self) -> None:
        """Decide again: time has passed, or a condition that requests wait for has changed."""
        self._decide(self._scheduler.tick(self._timers.now()))
        self._rearm()

    def remove(self, name: str) -> None:
        """Remove *name* from the scheduler; its queued requests are refused."""
        self._decide(self._scheduler.remove(name, self._timers.now()))

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make no decision before the block ends: between two changes it could be wrong."""
        scheduler = self._scheduler
        if scheduler.is_paused:
            yield
            return
        scheduler.is_paused = True
        try:
            yield
        finally:
            scheduler.is_paused = False
            self._update_policy()
            self.review()

    def _update_policy(self) -> None:
        """Extend the policy so that no service starts at an address that is still in use."""
        services = self._services
        policy = with_addresses(self.policy, services.lifecycles, services.retiring)
        self._scheduler.policy = policy
        self._is_anything_leaving = policy is not self.policy

    # ---- decisions
    def _rearm(self) -> None:
        at = self._scheduler.next_tick(self._timers.now())
        if at is None:
            self._tick.disarm()
        else:
            self._tick.arm_at(at)

    def _decide(self, decisions: Iterable[Decision]) -> None:
        self._decisions.extend(decisions)
        if self._is_deciding:
            return
        self._is_deciding = True
        try:
            while self._decisions:
                self._apply(self._decisions.popleft())
        finally:
            self._is_deciding = False

    def _note_eviction(self, lifecycle: Lifecycle, target: str) -> None:
        """Make the eviction of a service part of the swap to *target*."""
        name, now, swaps = lifecycle.spec.name, self._timers.now(), self._swaps
        waits = [each.wait for each in self._scheduler.queue if each.service == target]
        swap = next((wait.swap for wait in waits if wait.swap is not None), swaps.of(target))
        if swap is None:
            first = waits[0] if waits else RequestWait(cause="rule")
            swap = swaps.begin(first.cause, first.request_id)
        for wait in waits:
            wait.swap = swap
            wait.note_eviction(now, name)
        if swaps.of(name) is None or "stopping" not in lifecycle.configuration:
            swaps.join(name, swap)

    def _apply(self, decision: Decision) -> None:
        lifecycles = self._services.lifecycles
        match decision:
            case Grant(request=request):
                request.was_granted = True
                lifecycle, wait = lifecycles[request.service], request.wait
                wait.note_grant(self._timers.now(), lifecycle.hooks_s)
                with self._swaps.started_for(wait):
                    lifecycle.request(request.waiter)
                if request.waiter.admitted is None:
                    wait.swap = self._swaps.of(request.service) or wait.swap
                elif request.waiter.admitted is False:
                    self.on_change(lifecycle)  # not started, unlike the scheduler expects
            case Evict(service=service, target=target):
                lifecycle = lifecycles[service]
                self._note_eviction(lifecycle, target)
                lifecycle.evict(f"evicted for {target}")
                if lifecycle.is_at_rest:
                    self._swaps.leave(service)
                self.on_change(lifecycle)  # it may have given way without a transition
            case Refuse(request=request, error=error):
                request.waiter.refuse(error or lifecycles[request.service].refusal_now())
            case _:
                assert_never(decision)
