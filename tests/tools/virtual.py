"""One supervisor in a scripted world on virtual time, and clients who say what became of them.

    async def story(world: World) -> None:
        client = world.client("a")
        await world.until("a", "ready")
        ...

    tell(story, service("a"), servers={"a": ServerScript(healthy_s=5.0)})

When the story ends, the supervisor has shut down, and it is checked that nothing is left and that
every event was one the chart expects.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import anyio
from anyio.abc import TaskGroup

from swapchart.runtime import (
    Hook,
    Lifecycle,
    RequestError,
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

#: Long enough for everything that is ready to run, too short for any timer of a test.
A_MOMENT_S = 1e-6


class Client:
    """One request.

    Attributes:
        service: What it wants.
        outcome: ``waiting``, ``served`` (holds it now), ``finished``, ``left``, or the code of a
            refusal.
        error: The refusal, or None.
        asked_at: Virtual seconds, as are the next two.
        served_at: When it was admitted, or None.
        ended_at: When it was refused, left or finished, or None.
    """

    def __init__(self, service: str, asked_at: float) -> None:
        self.service, self.asked_at = service, asked_at
        self.outcome = "waiting"
        self.error: RequestError | None = None
        self.served_at: float | None = None
        self.ended_at: float | None = None
        self.scope = anyio.CancelScope()
        self.enough = anyio.Event()

    def finish(self) -> None:
        """Let go of the service; nothing happens unless it is served."""
        self.enough.set()

    def leave(self) -> None:
        """Go away, wherever it is."""
        self.scope.cancel()

    async def run(self, supervisor: Supervisor, hold_s: float | None, priority: int) -> None:
        """Ask, hold for *hold_s* seconds or until `finish`, and go."""
        try:
            with self.scope:
                await supervisor.acquire(self.service, priority=priority)
                try:
                    self.outcome, self.served_at = "served", anyio.current_time()
                    with anyio.move_on_after(float("inf") if hold_s is None else hold_s):
                        await self.enough.wait()
                finally:
                    supervisor.release(self.service)
            self.outcome = "left" if self.scope.cancelled_caught else "finished"
        except RequestError as error:
            self.outcome, self.error = error.code, error
        self.ended_at = anyio.current_time()


class World:
    """What a story is told in.

    Attributes:
        supervisor: The one under test.
        launcher: Its world.
        http: Answers the calls of its hooks.
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
        """Seconds since the story began."""
        return anyio.current_time() - self._began

    def client(self, service: str, *, hold_s: float | None = None, priority: int = 0) -> Client:
        """Begin a request that holds *service* for *hold_s* seconds (None: until told)."""
        client = Client(service, anyio.current_time())
        self.clients.append(client)
        self._tasks.start_soon(client.run, self.supervisor, hold_s, priority)
        return client

    def spawn(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run *function* beside the story."""
        self._tasks.start_soon(function, *args)

    async def moment(self) -> None:
        """Let everything run that is ready now; no timer fires."""
        await anyio.sleep(A_MOMENT_S)

    async def at(self, seconds: float) -> None:
        """Wait until *seconds* after the story began."""
        await anyio.sleep_until(self._began + seconds)

    async def until(self, name: str, *states: str, limit_s: float = 10_000.0) -> float:
        """Wait for a state of *name*; returns how long it took in virtual seconds."""
        began = anyio.current_time()
        with anyio.fail_after(limit_s):
            await self.supervisor[name].wait_for(*states)
        return anyio.current_time() - began

    def states(self, name: str) -> list[str]:
        """Return the states that *name* has been in since the story began, in order."""
        return [record.target for record in self.trace if record.service == name]

    def outcomes(self) -> dict[str, int]:
        """Count what became of the clients."""
        counts: dict[str, int] = {}
        for client in self.clients:
            counts[client.outcome] = counts.get(client.outcome, 0) + 1
        return counts

    def assert_consistent(self) -> None:
        """Check what holds whenever nobody is in the middle of something."""
        for life in self.supervisor.lifecycles():
            name = life.spec.name
            assert life.unhandled == [], name
            entry = self.supervisor.scheduler.services[name]
            assert entry.phase == phase_of(life), f"{name}: {entry.phase} is not {life.state}"
            if not life.is_final:  # it hears no more of those that finish
                assert entry.granted >= life.waiting + life.in_flight, name
        self.launcher.assert_sound()


def hook(program: str, **fields: Any) -> Hook:
    """Make a hook that runs *program*."""
    return Hook(action=RunAction(argv=(program,)), **fields)


def tell(
    story: Callable[[World], Awaitable[None]], *services: ServiceSpec,
    servers: Mapping[str, ServerScripts] | None = None,
    commands: Mapping[str, CommandScripts] | None = None, seed: int | None = None,
    is_left_in_peace: bool = True, **options: Any,
) -> ScriptedLauncher:  # fmt: skip
    """Run *story* in a world of *services*; returns the launcher and what it wrote down.

    Args:
        story: What happens.
        services: What may run.
        servers: How their processes behave.
        commands: How hooks behave.
        seed: Order of what happens at the same instant.
        is_left_in_peace: Nothing may be left at the end.
        options: For the supervisor.
    """
    launcher = ScriptedLauncher(servers, commands)
    http = ScriptedHttp()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(
                launcher, services, http=http, rng=random.Random(seed or 0), **options
            )
            async with supervisor:
                world = World(supervisor, launcher, http, tasks)
                try:
                    await story(world)
                    await world.moment()
                    world.assert_consistent()
                    lives = supervisor.lifecycles()
                finally:
                    for client in world.clients:
                        client.finish()
        for life in lives:
            assert life.unhandled == [], life.spec.name
            assert life.waiting == 0, life.spec.name
        if is_left_in_peace:
            launcher.assert_ended()

    run_virtual(main, seed=seed)
    return launcher


def stand_still(seconds: float) -> None:
    """As SIGSTOP and SIGCONT do: nothing of us runs, the processes go on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.skip(seconds)
