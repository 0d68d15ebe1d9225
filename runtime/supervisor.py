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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import cache
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, assert_never

import anyio
import anyio.lowlevel

from ..machine import Compiled, Document, lifecycle
from .errors import ConfigError, RequestError
from .hook_recovery import HookRecovery
from .hooks import HookLimiter
from .idle_loader import IdleLoader
from .lease import Lease, leased
from .lifecycle import Lifecycle
from .listeners import Listener, Listeners
from .log_ring import LogRing
from .phase import phase_of
from .ports import HttpClient, Launcher
from .retirement import Retired, after_leaving
from .scheduler import Scheduler
from .scheduling import (
    Decision,
    Evict,
    EvictionPolicy,
    Grant,
    QueuedRequest,
    QueueLimits,
    Refuse,
    one_at_a_time,
)
from .service_state import RuntimeContext
from .shielded_tasks import ShieldedTasks
from .spec import ServiceSpec
from .spec_diff import Difference, compare
from .timers import TimerService
from .transition import Transition
from .waiter import PendingRequest

log = logging.getLogger(__name__)

#: What becomes of a service when others are declared.
Change: TypeAlias = Difference | Literal["added", "removed"]

_LOG_BYTES = 1 << 20


@cache
def _compiled() -> Compiled:
    return Compiled(lifecycle())


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
        hook_limit: So many hook commands at a time, over all services; None: any number. Waiting
            for a place is no part of a hook's own limit, but of a stop's.
        rng: Source of jitter; a seeded one makes a run repeatable.

    Attributes:
        hook_limiter: Where hook commands get a place to run in; its limit may be changed.
        has_own_chart: It is not the shipped one.
        log: The output of all services, together.
        idle_loader: Goes back to one of them when nobody wants any.
        hook_recovery: Runs hooks that a killed supervisor owes.
    """

    def __init__(
        self, launcher: Launcher, services: Iterable[ServiceSpec] = (), *,
        http: HttpClient | None = None, policy: EvictionPolicy = one_at_a_time,
        queue: QueueLimits | None = None, chart: Document | None = None,
        stop_limit_s: float = 60.0, hook_limit: int | None = 8, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        if hook_limit is not None and hook_limit < 1:
            raise ConfigError("hook_limit", f"expected >= 1 or None, got {hook_limit}")
        self._launcher, self._http = launcher, http
        self._specs = list(services)
        self.has_own_chart = chart is not None
        self._compiled = _compiled() if chart is None else Compiled(chart)
        self.stop_limit_s = stop_limit_s
        self._hook_limit = hook_limit
        self._rng = rng or random.Random()
        self.log = LogRing(_LOG_BYTES)
        self.scheduler = Scheduler(policy=policy, limits=queue or QueueLimits())
        self._policy = policy
        self._lives: dict[str, Lifecycle] = {}
        self._listeners = Listeners()
        self._decisions: deque[Decision] = deque()
        self._is_deciding = False
        self._is_closing = False
        self._retiring: dict[str, Retired] = {}
        self._removed: set[str] = set()
        self._is_anything_leaving = False
        self._waiting: dict[PendingRequest, QueuedRequest] = {}
        self._world: RuntimeContext | None = None
        self._shelter = ShieldedTasks()

    # ---- the block
    async def __aenter__(self) -> Self:
        """Begin; nothing is started yet.

        Raises:
            ConfigError: Two services have one name.
        """
        _check_names(self._specs)
        tasks = await self._shelter.open()
        self._timers = TimerService()
        self._tick = self._timers.timer(self.review)
        tasks.keep(self._timers.run)
        self.idle_loader = IdleLoader(self, self._timers)
        self.hook_recovery = HookRecovery(self)
        self._tasks = tasks
        self.hook_limiter = HookLimiter(self._hook_limit, self._timers)
        self._world = RuntimeContext(
            launcher=self._launcher, http=self._http, tasks=tasks, timers=self._timers,
            places=self.hook_limiter, rng=self._rng, notify=self._listeners.tell,
        )  # fmt: skip
        for spec in self._specs:
            self.add(spec)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything, then end; on cancellation too."""
        if self._shelter.is_broken:
            for life in self._lives.values():
                if life.process is not None:
                    life.process.kill()
        else:
            with anyio.CancelScope(shield=True):
                await self.shutdown(self.stop_limit_s)
        # Not told of *error*: it would come out wrapped in an exception group.
        await self._shelter.close()

    def add(self, spec: ServiceSpec) -> Lifecycle:
        """Make a service known.

        Raises:
            ConfigError: There is one of that name.
            RequestError: The supervisor is shutting down.
        """
        if self._is_closing:
            raise RequestError("shutting_down", "shutting down")
        if spec.name in self._lives:
            raise ConfigError(spec.name, "expected a new name, got one that is taken")
        assert self._world is not None, "enter the supervisor first"
        self.scheduler.add(spec.name, limit=spec.concurrency_limit, is_pinned=spec.pinned)
        life = Lifecycle(
            spec, self._compiled, self._world, on_change=self._on_change, log_to=self.log
        )
        self._lives[spec.name] = life
        return life

    def update(self, spec: ServiceSpec, cause: str = "its declaration changed") -> Difference:
        """Make the service of that name what *spec* says; see `Difference`. Never waits.

        Its log, its counters and whoever waits for it stay. Where its process has to go for it,
        that drains and stops first; requests wait meanwhile and get the new one.

        Raises:
            KeyError: There is no service of that name.
        """
        life = self._lives[spec.name]
        retired = self._retiring.get(spec.name)
        if retired is not None:
            retired.returns = spec
            return "restart"
        with self._batch():
            difference = compare(life.spec, spec)
            is_other = difference != "same" or life.next_spec is not None
            if difference == "restart" or (is_other and life.is_quiet):
                self._requeue_waiters(life, cause)
            life.update_spec(spec, cause)
            entry = self.scheduler.add(
                spec.name, limit=spec.concurrency_limit, is_pinned=spec.pinned
            )
            entry.closed_reason = ""
            is_stopping = "stopping" in life.configuration and life.state != "stuck"
            if life.next_spec is not None and is_stopping:
                entry.closed_reason = f"{spec.name} stops first, since {cause}"
        return difference

    def _requeue_waiters(self, life: Lifecycle, cause: str) -> None:
        """Let requests that wait for a start wait in the queue again."""
        for waiter in life.waiters:
            request = self._waiting.get(waiter)
            if request is not None:
                self.scheduler.requeue(request)
                life.withdraw(waiter, cause)

    def apply(
        self, services: Iterable[ServiceSpec], *, policy: EvictionPolicy | None = None,
        queue: QueueLimits | None = None, cause: str = "its declaration changed",
    ) -> dict[str, Change]:  # fmt: skip
        """Run *services* from now on instead of what there was; never waits.

        Those that are not among them stop, and are forgotten once they are gone; requests that
        wait for them are refused. See `update` for those that stay.

        Args:
            services: All of them.
            policy: Which services must go for which; None: as before.
            queue: What the request queue bears; None: as before.
            cause: Why, in words.

        Returns:
            What changes: name -> how.

        Raises:
            ConfigError: Two services have one name; nothing was changed.
            RequestError: The supervisor is shutting down.
        """
        specs = list(services)
        _check_names(specs)
        if self._is_closing:
            raise RequestError("shutting_down", "shutting down")
        names = {spec.name for spec in specs}
        changes: dict[str, Change] = {}
        with self._batch():
            self._policy = policy or self._policy
            self.scheduler.limits = queue or self.scheduler.limits
            for name in self._lives.keys() - names:
                if name not in self._retiring:
                    changes[name] = "removed"
                self.retire(name)
            for spec in specs:
                if spec.name in self._lives:
                    is_back = spec.name in self._retiring
                    difference = self.update(spec, cause)
                    if difference != "same":
                        changes[spec.name] = "added" if is_back else difference
                else:
                    self.add(spec)
                    changes[spec.name] = "added"
        return changes

    def retire(self, name: str, cause: str = "removed") -> None:
        """Begin to stop *name* for good; requests that wait for it are refused."""
        life, retired = self._lives[name], self._retiring.get(name)
        if retired is not None:
            retired.returns = None
            return
        retired = self._retiring[name] = Retired()
        with self._batch():
            for request in self.scheduler.clear(name):
                request.waiter.refuse(self._removed_error(name))
            life.retire(self._removed_error(name), cause)
        if self.scheduler.services[name].granted == 0:
            retired.unheld.set()
        self._tasks.start_soon(self._forget, life, retired)

    async def remove(self, name: str, cause: str = "removed") -> None:
        """Stop *name* and forget it; requests that wait for it are refused.

        Returns when it is gone and nobody holds it any more: the name can be given again.
        """
        self.retire(name, cause)
        await self._retiring[name].gone.wait()

    async def _forget(self, life: Lifecycle, retired: Retired) -> None:
        name = life.spec.name
        try:
            await life.wait_for("shut_down")
            await life.wait_activities()
            await retired.unheld.wait()
            if not self._is_closing:  # else all end together, in the block's own end
                self._replace(name, retired.returns)
        finally:
            retired.gone.set()

    def _replace(self, name: str, successor: ServiceSpec | None) -> None:
        del self._lives[name], self._retiring[name]
        self._removed.add(name)
        with self._batch():
            self._decide(self.scheduler.remove(name, self._now()))
            if successor is not None:
                self.add(successor)

    def _unknown(self, name: str) -> Exception:
        return self._removed_error(name) if name in self._removed else KeyError(name)

    def _removed_error(self, name: str) -> RequestError:
        retired = self._retiring.get(name)
        wait_s = None if retired is None or retired.returns is None else 1.0
        return RequestError("model_removed", f"{name} was removed", retry_after_s=wait_s)

    @contextmanager
    def _batch(self) -> Iterator[None]:
        """Decide nothing before the block ends: in the middle of a change it would be wrong."""
        if self.scheduler.is_paused:
            yield
            return
        self.scheduler.is_paused = True
        try:
            yield
        finally:
            self.scheduler.is_paused = False
            self._update_policy()
            self._decide(self.scheduler.tick(self._now()))
            self._rearm()

    def _update_policy(self) -> None:
        """See to it that nothing starts at the address of what is about to leave it."""
        self.scheduler.policy = after_leaving(self._policy, self._lives, self._retiring)
        self._is_anything_leaving = self.scheduler.policy is not self._policy

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
    def lease(
        self, name: str, *, priority: int = 0, client: str = ""
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold service *name* ready: starts it, and evicts what must go, if need be.

        Args:
            name: Of the service.
            priority: Higher goes first.
            client: Who asks; where the service's limit makes requests wait, clients take turns.

        Raises:
            KeyError: There is no such service.
            RequestError: It could not be had.
        """
        return leased(self, name, priority, client)

    def acquire_nowait(self, name: str) -> bool:
        """Hold *name* if that is possible at once; the hot path. Pair with `release`."""
        try:
            entry, life = self.scheduler.services[name], self._lives[name]
        except KeyError as error:
            raise self._unknown(name) from error
        if not entry.is_open or not entry.has_room or self._is_closing or life.is_stepping:
            return False
        waiter = PendingRequest()
        life.request(waiter)
        if waiter.admitted:
            entry.granted += 1
            return True
        life.withdraw(waiter)  # not reached while a entry is open only when its service is ready
        return False

    async def acquire(self, name: str, *, priority: int = 0, client: str = "") -> None:
        """As `lease`, without the block: pair with `release`."""
        if self.acquire_nowait(name):
            return
        life = self._lives[name]
        await anyio.lowlevel.checkpoint_if_cancelled()  # nothing starts for who has left already
        if self._is_closing:
            raise RequestError("shutting_down", "shutting down")
        if name in self._retiring:
            raise self._removed_error(name)
        waiter = PendingRequest()
        request, decisions = self.scheduler.submit(
            name, waiter, self._now(), priority=priority, client=client
        )
        self._waiting[waiter] = request
        self._decide(decisions)
        self._rearm()
        try:
            await waiter.wait()
        except anyio.get_cancelled_exc_class():
            self._withdraw(request, life)
            raise
        except RequestError:
            if request.was_granted:
                self._finished(name)
            raise
        finally:
            del self._waiting[waiter]

    def _withdraw(self, request: QueuedRequest, life: Lifecycle) -> None:
        if request.is_queued:
            self._decide(self.scheduler.cancel(request, self._now()))
        elif request.was_granted:
            life.withdraw(request.waiter)
            self._finished(request.service)
            self._on_change(life)  # without anybody who waits, a backoff may hold no place

    def _finished(self, name: str) -> None:
        decisions = self.scheduler.finished(name, self._now())
        if decisions:
            self._decide(decisions)
        if self._retiring and name in self._retiring and self.scheduler.services[name].granted == 0:
            self._retiring[name].unheld.set()

    def release(self, name: str) -> None:
        """One request that was acquired has ended, however it did."""
        life = self._lives.get(name)
        if life is not None:
            life.finish()
        self._finished(name)
        if self.idle_loader.service is not None:
            self.idle_loader.touch()

    def spawn(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        """Run *function* until it ends or the supervisor does; an exception is logged."""
        self._tasks.start_soon(function, *args)

    # ---- commands
    async def load(self, name: str) -> None:
        """Bring *name* up, as a request would, and let it be; earlier failures are forgiven.

        Raises:
            RequestError: It could not be had.
        """
        life = self._lives[name]
        if "failed" in life.configuration:
            life.stop_nowait("asked to start")  # which is how a tripped breaker is reset
        await self.acquire(name)
        self.release(name)

    async def unload(self, name: str, cause: str = "unloaded") -> bool:
        """Stop *name*; requests that came before are refused, so nothing starts it for them.

        Returns:
            True when the process that was found is gone; False when the service was busy for as
            long as its drain limit, and then refuses to stop.
        """
        life = self._lives[name]
        self._refuse_queued(name)
        life.stop_nowait(cause)
        self._decide(self.scheduler.tick(self._now()))
        return await life.wait_stopped()

    async def unload_all(self, cause: str = "unloaded") -> None:
        """Stop all services, side by side."""
        lives = list(self._lives.values())
        for life in lives:
            self._refuse_queued(life.spec.name)
        async with anyio.create_task_group() as tasks:
            for life in lives:
                tasks.start_soon(life.stop, cause)

    def _refuse_queued(self, name: str) -> None:
        for request in self.scheduler.clear(name):
            error = RequestError("model_unloaded", f"{name} was unloaded", retry_after_s=1.0)
            request.waiter.refuse(error)

    def close(self) -> None:
        """Refuse new requests from now on; what is in flight goes on."""
        self._is_closing = True
        for request in self.scheduler.clear():
            request.waiter.refuse(RequestError("shutting_down", "shutting down"))

    async def shutdown(self, limit_s: float | None = None) -> None:
        """Drain, run the stop hooks, terminate; after *limit_s* seconds kill what is left."""
        self.close()
        for life in self._lives.values():
            life.end_within(limit_s)
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
        """Call *listener* with every transition, at once; it must not wait.

        What it posts is taken right after the transition it was told of. An exception of its own
        is logged and goes no further.

        Returns:
            A function that ends it; calling it again does nothing.
        """
        return self._listeners.add(listener)

    def events(self, *, limit: int = 1024) -> AsyncIterator[Transition]:
        """Yield transitions from now on; a reader that is *limit* behind loses the oldest."""
        return self._listeners.events(limit)

    # ---- scheduling
    def _now(self) -> float:
        return self._timers.now()

    def _on_change(self, life: Lifecycle) -> None:
        name = life.spec.name
        entry = self.scheduler.services.get(name)
        if entry is None:
            return
        if self._is_anything_leaving:
            self._update_policy()
        is_reopened = bool(entry.closed_reason) and (
            life.next_spec is None or life.state in ("ready", "stuck")
        )
        if is_reopened:
            entry.closed_reason = ""
        self._decide(self.scheduler.phase_changed(name, phase_of(life), self._now()))
        if is_reopened:
            self._decide(self.scheduler.tick(self._now()))
        self._rearm()

    def review(self) -> None:
        """Decide anew: time has passed, or somebody has changed what requests wait for."""
        self._decide(self.scheduler.tick(self._now()))
        self._rearm()

    def _rearm(self) -> None:
        at = self.scheduler.next_tick(self._now())
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

    def _apply(self, decision: Decision) -> None:
        match decision:
            case Grant(request=request):
                request.was_granted = True
                life = self._lives[request.service]
                life.request(request.waiter)
                if request.waiter.admitted is False:
                    self._on_change(life)  # it did not start, though the scheduler counted on it
            case Evict(service=service, target=target):
                life = self._lives[service]
                life.evict(f"evicted for {target}")
                self._on_change(life)  # it may have given way without a transition
            case Refuse(request=request, error=error):
                request.waiter.refuse(error or self._lives[request.service].refusal_now())
            case _:
                assert_never(decision)


def _check_names(specs: Sequence[ServiceSpec]) -> None:
    known: set[str] = set()
    for spec in specs:
        if spec.name in known:
            raise ConfigError(spec.name, "expected different names, got this one twice")
        known.add(spec.name)
