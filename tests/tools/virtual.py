"""Scenarios: one supervisor with scripted processes and clients, on virtual time.

    async def scenario(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        ...

    run_scenario(scenario, service("a"), servers={"a": ServerScript(healthy_s=5.0)})

At the end of a scenario the supervisor shuts down, and it is checked that no process is left and
that the chart handled every event.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

import anyio
from anyio.abc import TaskGroup

from swapchart.runtime import (
    Hook,
    Lifecycle,
    RequestError,
    RequestWait,
    RunAction,
    ServiceSpec,
    Supervisor,
    Transition,
)
from swapchart.runtime.phase import phase_of
from swapchart.runtime.testing import (
    CommandScripts,
    ScriptedHttp,
    ScriptedLauncher,
    ServerScripts,
    VirtualLoop,
    run_virtual,
)

#: Long enough for all ready tasks to run, shorter than any timer of a test.
MOMENT_S = 1e-6


class Client:
    """One request.

    Attributes:
        service: Name of the service.
        outcome: ``waiting``, ``served`` (holds the service), ``finished``, ``left``, or the code of
            the error.
        error: Error of a refused request, or None.
        wait: How it waited.
        requested_at: Time of the request, in virtual seconds.
        served_at: Time of the admission, in virtual seconds, or None.
        ended_at: Time of its end, in virtual seconds, or None.
    """

    def __init__(self, service: str, requested_at: float) -> None:
        self.service, self.requested_at = service, requested_at
        self.outcome = "waiting"
        self.wait = RequestWait(request_id=f"for-{service}")
        self.error: RequestError | None = None
        self.served_at: float | None = None
        self.ended_at: float | None = None
        self.scope = anyio.CancelScope()
        self.released = anyio.Event()

    def finish(self) -> None:
        """Release the service; a no-op if the request is not served."""
        self.released.set()

    def leave(self) -> None:
        """Cancel the request at any point."""
        self.scope.cancel()

    async def run(self, supervisor: Supervisor, hold_s: float | None, priority: int) -> None:
        """Acquire the service, hold it for *hold_s* seconds or until `finish`, and release it."""
        try:
            with self.scope:
                await supervisor.acquire(self.service, priority=priority, wait=self.wait)
                try:
                    self.outcome, self.served_at = "served", anyio.current_time()
                    with anyio.move_on_after(float("inf") if hold_s is None else hold_s):
                        await self.released.wait()
                finally:
                    supervisor.release(self.service)
            self.outcome = "left" if self.scope.cancelled_caught else "finished"
        except RequestError as error:
            self.outcome, self.error = error.code, error
        self.ended_at = anyio.current_time()


class World:
    """The supervisor, processes and clients of a scenario.

    Attributes:
        supervisor: The supervisor under test.
        launcher: Starts its processes.
        http: Responds to the calls of its hooks.
        trace: Every transition so far.
        clients: Every client so far.
    """

    def __init__(self, supervisor: Supervisor, launcher: ScriptedLauncher, http: ScriptedHttp,
                 tasks: TaskGroup) -> None:  # fmt: skip
        self.supervisor, self.launcher, self.http = supervisor, launcher, http
        self.trace: list[Transition] = []
        self.clients: list[Client] = []
        self._tasks = tasks
        self._began = anyio.current_time()
        supervisor.listen(self.trace.append)

    def __getitem__(self, name: str) -> Lifecycle:
        """Return the lifecycle of service *name*."""
        return self.supervisor[name]

    @property
    def now(self) -> float:
        """Seconds since the scenario began."""
        return anyio.current_time() - self._began

    def client(self, service: str, *, hold_s: float | None = None, priority: int = 0) -> Client:
        """Begin a request that holds *service* for *hold_s* seconds (None: until `finish`)."""
        client = Client(service, anyio.current_time())
        self.clients.append(client)
        self._tasks.start_soon(client.run, self.supervisor, hold_s, priority)
        return client

    def spawn(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run *function* beside the scenario."""
        self._tasks.start_soon(function, *args)

    async def moment(self) -> None:
        """Run all ready tasks; no timer fires."""
        await anyio.sleep(MOMENT_S)

    async def at(self, seconds: float) -> None:
        """Wait until *seconds* after the scenario began."""
        await anyio.sleep_until(self._began + seconds)

    async def until(self, name: str, *states: str, limit_s: float = 10_000.0) -> float:
        """Wait for a state of *name* and return the time it took in virtual seconds."""
        began = anyio.current_time()
        with anyio.fail_after(limit_s):
            await self.supervisor[name].wait_for(*states)
        return anyio.current_time() - began

    def states(self, name: str) -> list[str]:
        """Return the states that *name* has been in since the scenario began, in order."""
        return [record.target for record in self.trace if record.service == name]

    def outcomes(self) -> dict[str, int]:
        """Return the number of clients by outcome."""
        counts: dict[str, int] = {}
        for client in self.clients:
            counts[client.outcome] = counts.get(client.outcome, 0) + 1
        return counts

    def assert_consistent(self) -> None:
        """Check the invariants that hold between steps."""
        for lifecycle in self.supervisor.lifecycles():
            name = lifecycle.spec.name
            assert lifecycle.unhandled == [], name
            entry = self.supervisor.scheduler.services[name]
            assert entry.phase == phase_of(lifecycle), (
                f"{name}: {entry.phase} is not {lifecycle.state}"
            )
            if not lifecycle.is_final:  # its counters do not change any more
                assert entry.granted >= lifecycle.waiting + lifecycle.in_flight, name
        self.launcher.assert_sound()


def hook(program: str, **fields: Any) -> Hook:
    """Return a hook that runs *program*."""
    return Hook(action=RunAction(argv=(program,)), **fields)


def run_scenario(
    scenario: Callable[[World], Awaitable[None]], *services: ServiceSpec,
    servers: Mapping[str, ServerScripts] | None = None,
    commands: Mapping[str, CommandScripts] | None = None, seed: int | None = None,
    expects_end: bool = True, nodes: Iterable[str] = (),
    kind: type[ScriptedLauncher] = ScriptedLauncher, **options: Any,
) -> ScriptedLauncher:  # fmt: skip
    """Run *scenario* with *services* and return the launcher with its records.

    Args:
        scenario: Async function that acts on the world.
        services: Services of the supervisor.
        servers: Behavior of their processes.
        commands: Behavior of hook commands.
        seed: Shuffles tasks that are ready at the same instant.
        expects_end: No process may be left at the end.
        nodes: Nodes of the launcher.
        kind: Class of the launcher.
        options: Arguments of the supervisor.
    """
    launcher = kind(servers, commands, nodes)
    http = ScriptedHttp()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(
                launcher, services, http=http, rng=random.Random(seed or 0), **options
            )
            async with supervisor:
                world = World(supervisor, launcher, http, tasks)
                try:
                    await scenario(world)
                    await world.moment()
                    world.assert_consistent()
                    lifecycles = supervisor.lifecycles()
                finally:
                    for client in world.clients:
                        client.finish()
        for lifecycle in lifecycles:
            assert lifecycle.unhandled == [], lifecycle.spec.name
            assert lifecycle.waiting == 0, lifecycle.spec.name
        if expects_end:
            launcher.assert_ended()

    run_virtual(main, seed=seed)
    return launcher


async def swap_and_unload(world: World) -> None:
    """Load ``a`` for a request, swap it for ``b`` after 20 s, and unload ``b``."""
    world.client("a", hold_s=1.0)
    await world.until("a", "ready")
    await world.at(20.0)
    world.client("b", hold_s=1.0)
    await world.until("b", "ready")
    await world.supervisor.unload("b")


def suspend(seconds: float) -> None:
    """Suspend the proxy as SIGSTOP and SIGCONT do, while the processes run."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.skip(seconds)
