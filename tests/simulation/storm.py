"""Random simulation: many services, clients and operators, controlled by one seed.

All random choices come from one generator, and the simulation runs on virtual time, so that the
same seed gives the same trace, to the last float.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup

from swapchart.runtime import (
    Command,
    EngineError,
    EvictionPolicy,
    Exit,
    Hook,
    Lifecycle,
    Liveness,
    QueueLimits,
    RequestError,
    RunAction,
    ServiceSpec,
    SpecError,
    Supervisor,
    Timings,
    Transition,
    one_at_a_time,
)
from swapchart.runtime.phase import phase_of
from swapchart.runtime.testing import CommandScript, ScriptedLauncher, ServerScript, service

POINTS = ("beforeStart", "afterStart", "afterHealthy", "afterReady", "beforeStop", "afterStop",
          "onFailure", "suspend", "wake")  # fmt: skip
LOAD_S, RECOVERY_S = 400.0, 2000.0
#: Longest time from SIGKILL to the end of a scripted process.
LONGEST_KILL_S = 12.0


def no_eviction(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return no service: all may run side by side."""
    del target, running
    return frozenset()


def in_pairs(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return the neighbor of *target*: s0 and s1 exclude each other, and s2 and s3, and so on."""
    return frozenset(n for n in running - {target} if int(n[1:]) // 2 == int(target[1:]) // 2)


@dataclass(slots=True)
class Report:
    """Result of a simulation.

    Attributes:
        seed: Seed of all random choices.
        trace: All events, one line each.
        outcomes: Outcome of a request -> number of requests.
        problems: Violated invariants, in words.
    """

    seed: int
    trace: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """Digest of the trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class Storm:
    """One simulation; its `run` is the main function of `run_virtual`."""

    def __init__(self, seed: int) -> None:
        self.report = Report(seed)
        self.rng = rng = random.Random(seed)
        self.names = [f"s{number}" for number in range(rng.randint(2, 6))]
        self.policy: EvictionPolicy = rng.choice([one_at_a_time, in_pairs, no_eviction])
        self.launcher = ScriptedLauncher(
            dict.fromkeys(self.names, self.server), dict.fromkeys(POINTS, self.command)
        )
        self.launcher.commands |= {"settle": self.command, "ctl": self.command}
        self.has_faults = True
        self.open_requests = 0
        self.lifecycles: list[Lifecycle] = []

    # ---- behavior of services and hooks
    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def server(self, command: Command, number: int) -> ServerScript:
        del command, number
        rng = self.rng
        if not self.has_faults or self.chance(0.4):
            return ServerScript(spawn_s=0.01, healthy_s=rng.uniform(0, 5), terminate_s=0.5)
        errors = [SpecError("no such file"), EngineError("no memory")]
        return ServerScript(
            spawn_s=rng.choice([0.0, 0.01, 3.0]),
            error=rng.choice(errors) if self.chance(0.1) else None,
            healthy_s=None if self.chance(0.1) else rng.uniform(0, 30),
            sick_s=rng.uniform(0, 100) if self.chance(0.1) else None,
            probe_s=rng.choice([0.0, 0.0, 1.0, 5.0]),
            exit_s=rng.expovariate(1 / 30) if self.chance(0.3) else None,
            exit=rng.choice([Exit(code=0), Exit(code=1), Exit(signal=11)]),
            terminate_s=None if self.chance(0.15) else rng.expovariate(1),
            kill_s=rng.uniform(0, LONGEST_KILL_S) if self.chance(0.1) else 0.0,
            leaves=rng.choice([0, 0, 0, 2]),
            leaves_s=rng.choice([None, 1.0, 20.0]),
            output=tuple((rng.uniform(0, 60), b"output\n") for _ in range(rng.randint(0, 3))),
        )

    def command(self, command: Command, number: int) -> CommandScript:
        del command, number
        rng = self.rng
        if not self.has_faults or self.chance(0.5):
            return CommandScript(takes_s=rng.choice([0.0, 0.1]))
        return CommandScript(
            takes_s=None if self.chance(0.1) else rng.expovariate(1 / 3),
            exit=Exit(code=1) if self.chance(0.2) else Exit(code=0),
            error=EngineError("no memory") if self.chance(0.05) else None,
            kill_s=rng.choice([0.0, 0.0, 2.0]),
        )

    def hook(self, point: str) -> Hook:
        rng = self.rng
        return Hook(
            action=RunAction(argv=(point,)), timeout_s=rng.uniform(1, 20),
            retries=rng.choice([0, 0, 2]), delay_s=rng.choice([0.0, 1.0]),
            on_error=rng.choice(["warn", "ignore", "fail"]),
        )  # fmt: skip

    def spec(self, name: str) -> ServiceSpec:
        rng = self.rng
        hooks = {
            point: tuple(self.hook(point) for _ in range(rng.randint(1, 2)))
            for point in POINTS
            if self.chance(0.3)
        }
        start_limit, stall_limit = rng.choice([None, 20.0, 60.0]), rng.choice([None, 15.0])
        if start_limit is None:
            stall_limit = 15.0  # without a limit, a server that is never healthy starts forever
        timings = Timings(
            start_limit=start_limit, stall_limit=stall_limit,
            idle_limit=rng.choice([None, 5.0, 30.0]), doze_limit=rng.choice([None, 3.0, 20.0]),
            asleep_limit=rng.choice([None, 10.0]), stable=rng.choice([None, 10.0, 60.0]),
            drain_limit=rng.choice([0.0, 5.0, 30.0]), grace=rng.choice([0.0, 2.0, 10.0]),
            kill_limit=rng.choice([1.0, 10.0]), backoff=rng.choice([0.1, 1.0]), backoff_max=20.0,
            cooldown=rng.choice([5.0, 60.0]), settle=rng.choice([1.0, 10.0]),
        )  # fmt: skip
        liveness = Liveness(every_s=rng.uniform(1, 10), url="http://x/", failures=2)
        return service(
            name, hooks=hooks, timings=timings, restart=rng.choice(
                ["temporary", "transient", "permanent"]
            ), intensity=rng.randint(1, 5), abandon=rng.choice(["finish", "abort"]),
            drain=rng.choice(["cut", "wait", "refuse"]),
            liveness=liveness if self.chance(0.4) else None,
            settle=self.hook("settle") if self.chance(0.2) else None,
            pinned=self.chance(0.05), concurrency_limit=rng.choice([None, None, 1, 3]),
            stop_argv=("ctl",) if self.chance(0.1) else (),
            check_url=None if self.chance(0.1) else "http://x/",
        )  # fmt: skip

    # ---- clients and operators
    async def client(self, supervisor: Supervisor) -> None:
        rng = self.rng
        name, timeout_s = rng.choice(self.names), rng.choice([0.0, 1.0, 20.0, 1e6])
        hold_s, priority = rng.expovariate(1 / 4), rng.choice([0, 0, 0, 5])
        self.open_requests += 1
        outcome = "left"
        try:
            with anyio.move_on_after(timeout_s):
                identity = f"client {self.open_requests % 3}"
                await supervisor.acquire(name, priority=priority, client=identity)
                outcome = "served"
                try:
                    await anyio.sleep(hold_s)
                finally:
                    supervisor.release(name)
        except RequestError as error:
            outcome = error.code
        except KeyError:
            outcome = "unknown"
        self.open_requests -= 1
        self.report.outcomes[outcome] += 1
        self.record(f"{name} {outcome}")

    async def operator(self, supervisor: Supervisor) -> None:
        name = self.rng.choice(self.names)
        if name not in supervisor:
            supervisor.add(self.spec(name))
            return
        lifecycle = supervisor[name]
        coroutines: list[Callable[[], Awaitable[object]]] = [
            lambda: supervisor.unload(name), lambda: supervisor.load(name),
            lambda: supervisor.remove(name), supervisor.unload_all,
            lambda: lifecycle.stop("by the operator"), lifecycle.wait_stopped,
        ]  # fmt: skip
        functions: list[Callable[[], object]] = [
            lambda: lifecycle.post("kill"), lambda: lifecycle.post("sleep"), lifecycle.note_stall,
            lambda: self.launcher.crash(name), lambda: self.launcher.crash(name, Exit(code=0)),
            lambda: supervisor.update(self.spec(name)), lambda: supervisor.kill(),
        ]  # fmt: skip
        pick = self.rng.randrange(len(coroutines) + 2 * len(functions))
        try:
            if pick < len(coroutines):
                await coroutines[pick]()
            else:
                functions[(pick - len(coroutines)) % len(functions)]()
        except (RequestError, KeyError):
            return

    async def load(self, supervisor: Supervisor, tasks: TaskGroup) -> None:
        rng = self.rng
        rate = rng.uniform(0.3, 2.0)
        end = anyio.current_time() + LOAD_S
        while anyio.current_time() < end:
            for _ in range(rng.choice([1, 1, 1, 8])):
                tasks.start_soon(self.client, supervisor)
            if self.chance(0.25):
                tasks.start_soon(self.operator, supervisor)
            await anyio.sleep(rng.expovariate(rate))

    # ---- the simulation
    async def run(self) -> Report:
        """Run under load, recover and shut down; then check the end."""
        queue = QueueLimits(
            length=self.rng.choice([5, 512]), timeout_s=self.rng.choice([10.0, 100.0]),
            max_wait_s=self.rng.choice([1.0, 30.0]),
            min_residency_s=self.rng.choice([0.0, 5.0]),
        )  # fmt: skip
        ends_early = self.chance(0.3)
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(
                self.launcher, [self.spec(name) for name in self.names], policy=self.policy,
                queue=queue, rng=random.Random(self.report.seed), stop_limit_s=60.0,
            )  # fmt: skip
            async with supervisor:
                supervisor.listen(lambda transition: self.on_transition(supervisor, transition))
                with anyio.move_on_after(LOAD_S / 2 if ends_early else 1e9):
                    await self.load(supervisor, tasks)
                    self.has_faults = False
                    await self.recover(supervisor)
        self.check_end()
        return self.report

    async def recover(self, supervisor: Supervisor) -> None:
        """Without clients and faults, all services reach a state of rest within their limits."""
        for _ in range(20):
            await anyio.sleep(RECOVERY_S / 20)
            self.check(supervisor)
        if self.open_requests:
            self.report_problem(f"{self.open_requests} requests still wait or are in flight")
        for lifecycle in supervisor.lifecycles():
            name, quiet = (
                lifecycle.spec.name,
                ("stopped", "ready", "asleep", "tripped", "half_open"),
            )
            if lifecycle.state not in quiet and anyio.current_time() - lifecycle.since > 200.0:
                self.report_problem(f"{name} does not reach a state of rest: {lifecycle.state}")
            entry = supervisor.scheduler.services[name]
            if entry.granted or lifecycle.in_flight or lifecycle.waiting:
                self.report_problem(f"{name}: counters are not zero")
        if supervisor.scheduler.queue or supervisor.scheduler.swaps:
            self.report_problem("the queue is not empty")

    # ---- invariants
    def on_transition(self, supervisor: Supervisor, transition: Transition) -> None:
        source, target = transition.source, transition.target
        self.record(f"{transition.service} {source} {transition.event} {target}")
        active = [
            lifecycle.spec.name
            for lifecycle in supervisor.lifecycles()
            if phase_of(lifecycle) in ("starting", "ready") and lifecycle.state != "backoff"
        ]
        for name in active:
            others = self.policy(name, frozenset(active) - {name})
            if others:
                self.report_problem(f"{name} and {', '.join(sorted(others))} are up together")
        self.lifecycles += [
            lifecycle for lifecycle in supervisor.lifecycles() if lifecycle not in self.lifecycles
        ]

    def check(self, supervisor: Supervisor) -> None:
        """Check the invariants that hold between steps."""
        for lifecycle in supervisor.lifecycles():
            entry = supervisor.scheduler.services[lifecycle.spec.name]
            if entry.phase != phase_of(lifecycle):
                self.report_problem(f"{entry.name}: phase {entry.phase} in state {lifecycle.state}")
            if not lifecycle.is_final and entry.granted < lifecycle.waiting + lifecycle.in_flight:
                self.report_problem(f"{entry.name}: {entry.granted} granted, but more requests")

    def check_end(self) -> None:
        """Check the invariants that hold after the shutdown."""
        if self.open_requests:
            self.report_problem(f"{self.open_requests} requests never ended")
        for lifecycle in self.lifecycles:
            for configuration, event in lifecycle.unhandled:
                state = configuration[-1]
                self.report_problem(f"{lifecycle.spec.name}: {event} is unhandled in {state}")
            if lifecycle.waiting:
                self.report_problem(f"{lifecycle.spec.name}: a request waits forever")
        try:
            self.launcher.assert_ended()
        except AssertionError as error:
            self.report_problem(str(error))
        self.report.trace += [
            f"{r.at!r} {r.what} {r.name} {r.pid} {r.detail}" for r in self.launcher.records
        ]

    def record(self, text: str) -> None:
        self.report.trace.append(f"{anyio.current_time()!r} {text}")

    def report_problem(self, text: str) -> None:
        if len(self.report.problems) < 20:
            self.report.problems.append(text)
