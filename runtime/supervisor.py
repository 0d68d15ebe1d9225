"""Supervisor: runs many services side by side.

    async with Supervisor(launcher, services) as supervisor:
        async with supervisor.lease("qwen") as lease:
            ...  # the service is ready, and stays ready until the block ends

It is composed of a `ServiceTable` with a `Lifecycle` for each service, the `Scheduler`, the
`Dispatcher` between these two, and the `ServiceUpdater`, which applies new specifications. All run
on one event loop and one thread; a method that is not a coroutine never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import anyio

from .adoption import RunFacts
from .arguments import (
    require,
    require_flag,
    require_function,
    require_items,
    require_kind,
    require_one_of,
    require_seconds,
    require_text,
    require_whole,
)
from .checked_policy import checked_policy
from .dispatcher import Dispatcher
from .engine import HostStateError
from .errors import RequestError
from .hook_recovery import HookRecovery
from .hooks import HookLimiter
from .idle_loader import IdleLoader
from .lease import Lease, leased
from .leaving import adopt, detach_kept
from .lifecycle import Lifecycle
from .memory_watch import MemoryWatch
from .memory_yielding import MemoryYielding
from .node_watch import NodeWatch
from .ports import ProcessHandle
from .request_wait import SWAP_CAUSES, RequestWait, SwapCause
from .scheduling import EvictionPolicy, QueueLimits
from .service_memory import ServiceMemory
from .service_state import RuntimeContext
from .service_updater import Change, ServiceUpdater, check_specs
from .shutdown import begin_shutdown, kill_all, kill_processes, shut_down
from .spec import ServiceSpec
from .spec_diff import Difference
from .supervisor_state import SupervisorState
from .timers import TimerService
from .waiter import PendingRequest

__all__ = ["Change", "Supervisor"]


class Supervisor(SupervisorState):
    """Supervises services; an async context manager.

    ``supervisor["web"]`` is the `Lifecycle` of service ``web``, ``supervisor.get("web")`` is None
    if there is no such service, and ``"web" in supervisor`` tells which of both is the case.

    Args:
        launcher: Starts the processes.
        services: Specifications of the services. More can be added later.
        http: Makes the HTTP calls of hooks and inference probes; None means that there are none.
        policy: Names the services to evict for a target; see `Policy`. By default one service
            runs at a time: starting one evicts the others.
        queue: Limits of the request queue.
        chart: Chart of every service without one of its own (`ServiceSpec.chart`); None means
            the shipped one. Any other chart is checked with one set of parameters, once for all
            supervisors; see `require_checked`.
        checked: Report of `check` for *chart*, which is then not checked here.
        stop_limit_s: Time in seconds for drains, hooks and grace periods when the block ends;
            after it, all processes are killed.
        hook_limit: Maximum number of hook commands running at once across all services; None
            means unlimited. The wait for a place does not count toward a hook's own timeout, but
            does count toward the limit of a stop.
        rng: Source of jitter; a seeded one makes a run repeatable.
        memory: Pools that the services share; None means that memory is no condition.
        meter: Reads these pools; None means that only what was granted is known.

    Attributes:
        hook_limiter: Limits the hook commands that run at once; its limit may be changed.
        has_own_chart: The chart is not the shipped one.
        log: Output of all services together.
        scheduler: Decides on requests and evictions.
        idle_loader: Loads a given service when there are no requests.
        hook_recovery: Runs the ``afterStop`` hooks of runs that were killed.
        memory_watch: Reads the memory pools; None without a meter.
        memory_yielding: Leaves memory to other programs; None without pools.
        nodes: Nodes of the launcher, and what may still run on lost ones.
        swaps: The swaps under way.
    """

    # ---- the block
    async def __aenter__(self) -> Self:
        """Add the services, and begin to start those with ``autostart``.

        Raises:
            ConfigError: Two services have one name.
            ChartError: The chart of a service breaks a promise.
            HostStateError: The supervisor was entered before.
        """
        if self._updater is not None:
            raise HostStateError("a supervisor is entered once; make another one")
        check_specs(self._specs, self._compiled.document)
        tasks = await self._shelter.open()
        self._timers = TimerService()
        self._dispatcher = Dispatcher(self.scheduler, self._services, self._timers, self.swaps)
        tasks.keep(self._timers.run)
        self.idle_loader = IdleLoader(self, self._timers)
        self.hook_recovery = HookRecovery(self)
        self._tasks = tasks
        self.hook_limiter = HookLimiter(self._hook_limit, self._timers)
        memory = self.scheduler.memory
        if self._meter is not None and memory is not None:
            self.memory_watch = MemoryWatch(self, self._services, memory, self._meter)
            self._dispatcher.on_memory_change = self.memory_watch.notice
        if memory is not None:
            self.memory_yielding = MemoryYielding(self, self._services, memory)
        self.nodes = NodeWatch(self._launcher, memory, self._dispatcher.review)
        self.nodes.open()
        context = RuntimeContext(
            launcher=self._launcher, http=self._http, tasks=tasks, timers=self._timers,
            hook_limiter=self.hook_limiter, rng=self._rng, notify=self._listeners.notify,
            memory=ServiceMemory(memory, self.memory_watch, self._dispatcher.take_back),
            nodes=self.nodes, swaps=self.swaps,
        )  # fmt: skip
        self._updater = ServiceUpdater(
            self, self._services, self.scheduler, self._dispatcher, self._compiled, context,
            self.log,
        )  # fmt: skip
        for spec in self._specs:
            self._updater.add(spec)
        for part in (self.memory_watch, self.memory_yielding):
            if part is not None:
                tasks.keep(part.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        """Stop everything, on cancellation too."""
        if self._shelter.is_broken:
            kill_processes(self._lifecycles)
        else:
            with anyio.CancelScope(shield=True):
                await self.shutdown(self.stop_limit_s)
        self.nodes.close()
        # *error* is not passed on: it would come out wrapped in an exception group.
        await self._shelter.close()

    # ---- specifications
    def add(self, spec: ServiceSpec) -> Lifecycle:
        """Add a service.

        Raises:
            ConfigError: There is one of that name.
            RequestError: The supervisor is shutting down.
        """
        require_kind("spec", spec, ServiceSpec, "a ServiceSpec")
        return self._entered().add(spec)

    def update(self, spec: ServiceSpec, cause: str = "its specification changed") -> Difference:
        """Change the service of that name into *spec*; never waits. See `Difference`.

        Its log, its counters and its waiting requests stay. If its process has to be replaced,
        the process drains and stops first, while requests wait for the new one.

        Raises:
            UnknownServiceError: There is no service of that name.
        """
        require_kind("spec", spec, ServiceSpec, "a ServiceSpec")
        require_text("cause", cause)
        return self._entered().update(spec, cause)

    def apply(
        self, services: Iterable[ServiceSpec], *, policy: EvictionPolicy | None = None,
        queue: QueueLimits | None = None, cause: str = "its specification changed",
    ) -> dict[str, Change]:  # fmt: skip
        """Replace all services by *services*; never waits.

        Services that are not among them stop and are then forgotten; requests that wait for them
        are refused. See `update` for the others.

        Args:
            services: Specifications of all services.
            policy: Names the services to evict for a target; None keeps the present one.
            queue: Limits of the request queue; None keeps the present ones.
            cause: Reason of the change, in words.

        Returns:
            Name -> change, for each service that changes.

        Raises:
            ConfigError: Two services have one name; nothing was changed.
            RequestError: The supervisor is shutting down.
        """
        specs = require_items("services", services, ServiceSpec)
        if policy is not None:
            require_function("policy", policy)
            policy = checked_policy(policy)
        require_kind("queue", queue, QueueLimits, "QueueLimits", or_none=True)
        require_text("cause", cause)
        return self._entered().apply(specs, policy, queue, cause)

    def retire(self, name: str, cause: str = "removed") -> None:
        """Begin to remove *name*; requests that wait for it are refused."""
        require_text("cause", cause)
        self._entered().retire(name, cause)

    async def remove(self, name: str, cause: str = "removed") -> None:
        """Stop *name* and forget it; requests that wait for it are refused.

        Returns when its process is gone and no request holds it: the name can be used again.
        """
        require_text("cause", cause)
        await self._entered().retire(name, cause).completed.wait()

    # ---- requests
    def lease(
        self, name: str, *, priority: int = 0, client: str = ""
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold service *name* ready for a block; starts it and evicts others if necessary.

        Higher priorities are granted first; clients of a service with a limit take turns.

        Raises:
            RequestError: The request was refused; an `UnknownServiceError` if there is no such
                service.
        """
        require_whole("priority", priority)
        require_text("client", client)
        return leased(self, name, priority, client)

    def acquire_nowait(self, name: str) -> bool:
        """Hold *name* if it is ready and no request waits for it; pair with `release`.

        This is the hot path. Return False if the request has to go through `acquire`.
        """
        try:
            entry, lifecycle = self.scheduler.services[name], self._lifecycles[name]
        except (KeyError, TypeError) as error:  # unknown, or not hashable
            self._entered()
            raise self._services.unknown(name) from error
        if (
            not entry.is_open
            or not entry.has_room
            or lifecycle.is_stepping
            or self._services.is_closing
        ):
            return False
        waiter = PendingRequest()
        lifecycle.request(waiter)
        if waiter.admitted:
            entry.granted += 1
            return True
        lifecycle.withdraw(waiter)  # not reached as long as an entry is open only while ready
        return False

    async def acquire(
        self, name: str, *, priority: int = 0, client: str = "", may_start: bool = True,
        wait: RequestWait | None = None,
    ) -> None:  # fmt: skip
        """Wait until *name* is ready and hold it, as `lease` does; pair with `release`.

        With *may_start* false nothing is started: unless *name* is ready, and stays so while the
        request waits for its turn, the request is refused with the code ``model_not_loaded``.
        *wait* says for whom, and is filled in with why that took long, if the request has to wait.
        """
        require_whole("priority", priority)
        require_text("client", client)
        require_flag("may_start", may_start)
        require_kind("wait", wait, RequestWait, "a RequestWait", or_none=True)
        if not self.acquire_nowait(name):
            await self._dispatcher.acquire(name, priority, client, may_start=may_start, wait=wait)

    def release(self, name: str) -> None:
        """Release one hold of *name*, however its request ended."""
        lifecycle = self._lifecycles.get(name)
        if lifecycle is not None:
            lifecycle.finish()
        self._dispatcher.finished(name)
        if self.idle_loader.service is not None:
            self.idle_loader.touch()

    def hold(self, name: str, count: int) -> int:
        """Hold *name* by *count* uses that are counted elsewhere, such as players of a game.

        Each one counts as a lease that is held: the service is not evicted and not stopped for
        being idle, and a stop drains until the count is 0. A service that is not ready takes no
        further uses, so that a count can only fall during a drain; report it again, as a poll
        does. When the process ends, its count is dropped.

        Args:
            name: Name of the service, which is not started by this.
            count: Number of uses at present, >= 0, in place of the number given before. It counts
                toward ``concurrency_limit``, but is not limited by it.

        Returns:
            The number of uses that hold it now. A call of a listener takes effect after it.

        Raises:
            ConfigError: *count* is negative, or no whole number.
            UnknownServiceError: There is no such service.
        """
        return self._entered().holds.set(name, count)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        """Run *function* until it ends or the supervisor does; an exception is logged."""
        self._entered()
        require("function", function, callable(function), "an async function")
        self._tasks.start_soon(function, *args)

    def review(self) -> None:
        """Decide again on waiting requests: a condition that they wait for has changed."""
        self._entered()
        self._dispatcher.review()

    # ---- commands
    async def load(self, name: str, *, cause: SwapCause = "load") -> None:
        """Start *name* as a request would, and leave it running; resets the failure count.

        *cause* is that of the swap, if one begins.

        Raises:
            RequestError: The request was refused.
        """
        lifecycle = self[name]
        require_one_of("cause", cause, SWAP_CAUSES)
        if "failed" in lifecycle.configuration:
            lifecycle.stop_nowait("asked to start")  # a stop resets a tripped breaker
        await self.acquire(name, wait=RequestWait(cause=cause))
        self.release(name)

    async def unload(self, name: str, cause: str = "unloaded") -> bool:
        """Stop *name*; earlier requests that still wait for it are refused.

        Returns:
            True once the process is gone; False if the service was still busy at its drain
            limit and is configured to refuse the stop then.
        """
        self._entered()
        require_text("cause", cause)
        lifecycle = self[name]
        self._dispatcher.refuse_unloaded(name)
        lifecycle.stop_nowait(cause)
        self._dispatcher.review()
        return await lifecycle.wait_stopped()

    async def unload_all(self, cause: str = "unloaded") -> None:
        """Stop all services, side by side."""
        require_text("cause", cause)
        lifecycles = list(self._lifecycles.values())
        for lifecycle in lifecycles:
            self._dispatcher.refuse_unloaded(lifecycle.spec.name)
        async with anyio.create_task_group() as tasks:
            for lifecycle in lifecycles:
                tasks.start_soon(lifecycle.stop, cause)

    # ---- runs of another supervisor
    def adopt(self, name: str, process: ProcessHandle, facts: RunFacts) -> bool:
        """Make *process*, which an earlier supervisor has left running, that of service *name*.

        See `leaving.adopt`. Call it before the first request; the caller ends the process if the
        result is False.
        """
        self._entered()
        return adopt(self._lifecycles, self.scheduler, name, process, facts, self._timers.now())

    def begin_leave(self) -> None:
        """Refuse requests from now on, and stop what cannot be left running; see `leave`."""
        self.close()
        begin_shutdown(self._leaving(), self.stop_limit_s)

    async def leave(self, limit_s: float | None = None) -> None:
        """End without the processes that may outlive this supervisor, and stop all others.

        A process may if its launcher remembers facts about it (`NodeProcess.remember`) and its
        service is ready or asleep. Wait for the requests in flight before.
        """
        require_seconds("limit_s", limit_s, or_none=True)
        self.close()
        await shut_down(self._leaving(), limit_s)
        self._left = detach_kept(self._lifecycles, self.scheduler)

    # ---- shutdown
    def close(self) -> None:
        """Refuse queued and new requests from now on; in-flight requests continue."""
        self._services.is_closing = True
        for request in self.scheduler.clear():
            request.waiter.refuse(RequestError("shutting_down", "shutting down"))

    async def shutdown(self, limit_s: float | None = None) -> None:
        """Drain, run the stop hooks and terminate; after *limit_s* seconds kill the rest."""
        require_seconds("limit_s", limit_s, or_none=True)
        self.close()
        others = {name: each for name, each in self._lifecycles.items() if name not in self._left}
        await shut_down(others if self._left else self._lifecycles, limit_s)

    def kill(self, cause: str = "asked to kill") -> None:
        """Kill all processes (SIGKILL) and skip the remaining stop hooks."""
        require_text("cause", cause)
        kill_all(self._lifecycles, cause)
