"""Runs many services side by side: the composition of lifecycles, scheduler, timers and listeners.

    async with Supervisor(launcher, services) as supervisor:
        async with supervisor.lease("qwen") as lease:
            ...  # the service is ready, and stays so until the block ends

Everything happens on one event loop and one thread; what is not a coroutine never waits.
"""

from __future__ import annotations

import logging
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Self, assert_never

import anyio
from anyio.abc import TaskGroup

from ..machine import Compiled, Document, lifecycle
from .errors import ConfigError, RequestError
from .lifecycle import Lifecycle, World
from .logs import LogRing
from .ports import HttpClient, Launcher
from .records import Transition
from .scheduler import (
    Decision,
    Evict,
    EvictionPolicy,
    Grant,
    Phase,
    QueueLimits,
    Refuse,
    Scheduler,
    Ticket,
    one_at_a_time,
)
from .spec import ServiceSpec
from .timers import TimerService
from .waiters import Waiter

log = logging.getLogger(__name__)

Listener = Callable[[Transition], None]

_LOG_BYTES = 1 << 20


@cache
def _compiled() -> Compiled:
    return Compiled(lifecycle())


@dataclass(frozen=True, slots=True)
class Lease:
    """A ready service that stays ready while it is held.

    Attributes:
        service: Its name.
        endpoint: Base URL where it serves.
        pid: Process id of its leader.
        incarnation: Which run of the service this is.
    """

    service: str
    endpoint: str
    pid: int | None
    incarnation: int


def phase_of(life: Lifecycle) -> Phase:
    """Return where *life* stands in the eyes of the scheduler."""
    configuration, state = life.configuration, life.state
    if state in ("ready", "asleep"):
        return "ready" if state == "ready" else "asleep"
    if "starting" in configuration or state == "waking":
        return "starting"
    if "stopping" in configuration or state == "suspending":
        return "stopping"
    return "failed" if state == "tripped" else "stopped"


class Supervisor:
    """Supervises services; an async context manager.

    Args:
        launcher: Starts the processes.
        services: What may run. More can be added later.
        http: For the HTTP calls of hooks and inference probes.
        policy: Which services must go for which; one at a time unless said otherwise.
        queue: What the request queue bears.
        chart: The chart of every service; the shipped one unless said otherwise.
        stop_limit_s: When the block ends: so long for drains, hooks and grace periods, then kill.
        rng: Source of jitter; a seeded one makes a run repeatable.

    Attributes:
        log: The output of all services, together.
    """

    def __init__(
        self, launcher: Launcher, services: Iterable[ServiceSpec] = (), *,
        http: HttpClient | None = None, policy: EvictionPolicy = one_at_a_time,
        queue: QueueLimits | None = None, chart: Document | None = None,
        stop_limit_s: float = 60.0, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        self._launcher, self._http = launcher, http
        self._specs = list(services)
        self._compiled = _compiled() if chart is None else Compiled(chart)
        self.stop_limit_s = stop_limit_s
        self._rng = rng or random.Random()
        self.log = LogRing(_LOG_BYTES)
        self.scheduler = Scheduler(policy=policy, limits=queue or QueueLimits())
        self._lives: dict[str, Lifecycle] = {}
        self._listeners: list[Listener] = []
        self._decisions: deque[Decision] = deque()
        self._is_deciding = False
        self._is_closing = False
        self._exit = AsyncExitStack()
        self._world: World | None = None

    # ---- the block
    async def __aenter__(self) -> Self:
        """Begin; nothing is started yet."""
        tasks = await self._exit.enter_async_context(anyio.create_task_group())
        self._timers = TimerService()
        self._tick = self._timers.timer(self._on_tick)
        tasks.start_soon(self._timers.run)
        self._tasks: TaskGroup = tasks
        self._world = World(
            launcher=self._launcher, http=self._http, tasks=tasks, timers=self._timers,
            rng=self._rng, notify=self._notify,
        )  # fmt: skip
        for spec in self._specs:
            self.add(spec)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Stop everything, then end; on cancellation too."""
        with anyio.CancelScope(shield=True):
            await self.shutdown(self.stop_limit_s)
        self._tasks.cancel_scope.cancel()
        return await self._exit.__aexit__(kind, error, traceback)

    def add(self, spec: ServiceSpec) -> Lifecycle:
        """Make a service known.

        Raises:
            ConfigError: There is one of that name.
        """
        if spec.name in self._lives:
            raise ConfigError(spec.name, "expected a new name, got one that is taken")
        assert self._world is not None, "enter the supervisor first"
        self.scheduler.add(spec.name, limit=spec.concurrency_limit, is_pinned=spec.pinned)
        life = Lifecycle(
            spec, self._compiled, self._world, on_change=self._on_change, log_to=self.log
        )
        self._lives[spec.name] = life
        return life

    async def remove(self, name: str, cause: str = "removed") -> None:
        """Stop *name* and forget it; requests that wait for it are refused."""
        life = self[name]
        life.post("shutdown", cause=cause)
        await life.wait_for("shut_down")
        self._decide(self.scheduler.remove(name))
        del self._lives[name]

    def __getitem__(self, name: str) -> Lifecycle:
        """Return the lifecycle of *name*.

        Raises:
            KeyError: There is no such service.
        """
        return self._lives[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a service of that name."""
        return name in self._lives

    def lifecycles(self) -> Sequence[Lifecycle]:
        """Return all lifecycles, in the order in which they were added."""
        return list(self._lives.values())

    # ---- requests
    @asynccontextmanager
    async def lease(self, name: str, *, priority: int = 0) -> AsyncIterator[Lease]:
        """Hold service *name* ready: starts it, and evicts what must go, if need be.

        Raises:
            KeyError: There is no such service.
            RequestError: It could not be had.
        """
        await self.acquire(name, priority=priority)
        try:
            life = self._lives[name]
            pid = life.process.pid if life.process is not None else None
            yield Lease(name, life.spec.endpoint, pid, life.incarnation)
        finally:
            self.release(name)

    def acquire_nowait(self, name: str) -> bool:
        """Hold *name* if that is possible at once; the hot path. Pair with `release`."""
        seat = self.scheduler.seats[name]
        if not seat.is_open or not seat.has_room or self._is_closing:
            return False
        seat.granted += 1
        waiter = Waiter()
        self._lives[name].request(waiter)
        if waiter.admitted:
            return True
        self._lives[name].withdraw(waiter)  # it left the ready state within this very turn
        seat.granted -= 1
        return False

    async def acquire(self, name: str, *, priority: int = 0) -> None:
        """As `lease`, without the block: pair with `release`."""
        life = self._lives[name]
        if self.acquire_nowait(name):
            return
        if self._is_closing:
            raise RequestError("shutting_down", "shutting down", status_hint=503)
        waiter = Waiter()
        ticket, decisions = self.scheduler.submit(name, waiter, self._now(), priority=priority)
        self._decide(decisions)
        self._rearm()
        try:
            await waiter.wait()
        except anyio.get_cancelled_exc_class():
            self._withdraw(ticket, life)
            raise
        except RequestError:
            if ticket.was_granted:
                self._decide(self.scheduler.finished(name, self._now()))
            raise

    def _withdraw(self, ticket: Ticket, life: Lifecycle) -> None:
        now = self._now()
        if ticket.is_queued:
            self._decide(self.scheduler.cancel(ticket, now))
        elif ticket.was_granted:
            life.withdraw(ticket.waiter)
            self._decide(self.scheduler.finished(ticket.service, now))

    def release(self, name: str) -> None:
        """One request that was acquired has ended, however it did."""
        life = self._lives.get(name)
        if life is not None:
            life.finish()
        self._decide(self.scheduler.finished(name, self._now()))

    # ---- commands
    async def load(self, name: str) -> None:
        """Bring *name* up, as a request would, and let it be.

        Raises:
            RequestError: It could not be had.
        """
        await self.acquire(name)
        self.release(name)

    async def unload(self, name: str, cause: str = "unloaded") -> None:
        """Stop *name*; returns when the process that was found is gone."""
        life = self._lives[name]
        error = RequestError("model_unloaded", f"{name} was unloaded", retry_after_s=1.0)
        for ticket in [t for t in self.scheduler.queue if t.service == name]:
            decisions = self.scheduler.cancel(ticket, self._now())
            ticket.waiter.refuse(error)
            self._decide(decisions)
        await life.stop(cause)

    async def unload_all(self, cause: str = "unloaded") -> None:
        """Stop all services, side by side."""
        async with anyio.create_task_group() as tasks:
            for name in list(self._lives):
                tasks.start_soon(self.unload, name, cause)

    def close(self) -> None:
        """Refuse new requests from now on; what is in flight goes on."""
        self._is_closing = True
        error = RequestError("shutting_down", "shutting down")
        for ticket in list(self.scheduler.queue):
            self.scheduler.cancel(ticket, self._now())
            ticket.waiter.refuse(error)

    async def shutdown(self, limit_s: float | None = None) -> None:
        """Drain, run the stop hooks, terminate; after *limit_s* seconds kill what is left."""
        self.close()
        for life in self._lives.values():
            life.post("shutdown", cause="shutting down")
        with anyio.move_on_after(math.inf if limit_s is None else limit_s) as scope:
            await self._wait_final()
        if scope.cancelled_caught:
            self.kill()
            with anyio.move_on_after(15.0):
                await self._wait_final()
        for life in self._lives.values():
            if not life.is_final:
                log.error("%s did not end: %s", life.spec.name, life.state)

    def kill(self, cause: str = "asked to hurry") -> None:
        """End everything now: no stop hooks any more, and SIGKILL."""
        for life in self._lives.values():
            life.post("kill", cause=cause)

    async def _wait_final(self) -> None:
        for life in list(self._lives.values()):
            await life.wait_for("shut_down")
            await life.wait_activities()

    # ---- events
    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call *listener* with every transition, at once; it must not wait or raise.

        Returns:
            A function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def events(self, *, limit: int = 1024) -> AsyncIterator[Transition]:
        """Yield transitions from now on; a reader that is *limit* behind loses the oldest."""
        waiting: deque[Transition] = deque(maxlen=limit)
        wake = anyio.Event()

        def take(record: Transition) -> None:
            waiting.append(record)
            wake.set()

        end = self.listen(take)
        try:
            while True:
                while waiting:
                    yield waiting.popleft()
                wake = anyio.Event()
                await wake.wait()
        finally:
            end()

    def _notify(self, record: Transition) -> None:
        for listener in self._listeners:
            listener(record)

    # ---- scheduling
    def _now(self) -> float:
        return self._timers.now()

    def _on_change(self, life: Lifecycle) -> None:
        name = life.spec.name
        if name in self.scheduler.seats:
            self._decide(self.scheduler.phase_changed(name, phase_of(life), self._now()))
            self._rearm()

    def _on_tick(self) -> None:
        self._decide(self.scheduler.tick(self._now()))
        self._rearm()

    def _rearm(self) -> None:
        at = self.scheduler.next_tick(self._now())
        if at is None:
            self._tick.disarm()
        else:
            self._tick.arm(max(at - self._now(), 0.0))

    def _decide(self, decisions: Iterable[Decision]) -> None:
        self._decisions.extend(decisions)
        if self._is_deciding:
            return
        self._is_deciding = True
        try:
            while self._decisions:
                self._do(self._decisions.popleft())
        finally:
            self._is_deciding = False

    def _do(self, decision: Decision) -> None:
        match decision:
            case Grant(ticket=ticket):
                if ticket.waiter.admitted is None:
                    ticket.was_granted = True
                    self._lives[ticket.service].request(ticket.waiter)
            case Evict(service=service, target=target):
                self._lives[service].stop_nowait(cause=f"evicted for {target}")
            case Refuse(ticket=ticket, error=error):
                ticket.waiter.refuse(error)
            case _:
                assert_never(decision)
