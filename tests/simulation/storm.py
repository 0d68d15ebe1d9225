"""A storm: many services, users and operators who do at random whatever they may, one seed.

Everything is drawn from one generator and runs on virtual time, so that a seed is the whole
story: the same seed gives the same trace, to the last float.
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
NOISE_S, SILENCE_S = 400.0, 2000.0
#: Nothing a script does takes longer than this to die.
LONGEST_DEATH_S = 12.0


def nobody_goes(target: str, running: frozenset[str]) -> frozenset[str]:
    """Let all run side by side."""
    del target, running
    return frozenset()


def in_pairs(target: str, running: frozenset[str]) -> frozenset[str]:
    """Let neighbours exclude each other: s0 and s1, s2 and s3, and so on."""
    return frozenset(n for n in running - {target} if int(n[1:]) // 2 == int(target[1:]) // 2)


@dataclass(slots=True)
class Report:
    """What a storm came to.

    Attributes:
        seed: Where it all comes from.
        trace: Everything that happened, line by line.
        outcomes: What became of the requests, counted.
        problems: Promises that were broken, in words.
    """

    seed: int
    trace: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def hash(self) -> str:
        """A fingerprint of the whole story."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class Storm:
    """One storm; `run` it as the main function of `run_virtual`."""

    def __init__(self, seed: int) -> None:
        self.report = Report(seed)
        self.rng = rng = random.Random(seed)
        self.names = [f"s{number}" for number in range(rng.randint(2, 6))]
        self.policy: EvictionPolicy = rng.choice([one_at_a_time, in_pairs, nobody_goes])
        self.launcher = ScriptedLauncher(
            dict.fromkeys(self.names, self.server), dict.fromkeys(POINTS, self.command)
        )
        self.launcher.commands |= {"settle": self.command, "ctl": self.command}
        self.is_noisy = True
        self.waiting = 0
        self.lives: list[Lifecycle] = []

    # ---- what the world is like
    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def server(self, command: Command, number: int) -> ServerScript:
        del command, number
        rng = self.rng
        if not self.is_noisy or self.chance(0.4):
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
            kill_s=rng.uniform(0, LONGEST_DEATH_S) if self.chance(0.1) else 0.0,
            leaves=rng.choice([0, 0, 0, 2]),
            leaves_s=rng.choice([None, 1.0, 20.0]),
            output=tuple((rng.uniform(0, 60), b"output\n") for _ in range(rng.randint(0, 3))),
        )

    def command(self, command: Command, number: int) -> CommandScript:
        del command, number
        rng = self.rng
        if not self.is_noisy or self.chance(0.5):
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
            stall_limit = 15.0  # without any limit a server that is never healthy may take for ever
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

    # ---- who lives in it
    async def user(self, supervisor: Supervisor) -> None:
        rng = self.rng
        name, patience_s = rng.choice(self.names), rng.choice([0.0, 1.0, 20.0, 1e6])
        hold_s, priority = rng.expovariate(1 / 4), rng.choice([0, 0, 0, 5])
        self.waiting += 1
        outcome = "left"
        try:
            with anyio.move_on_after(patience_s):
                client = f"client {self.waiting % 3}"
                await supervisor.acquire(name, priority=priority, client=client)
                outcome = "served"
                try:
                    await anyio.sleep(hold_s)
                finally:
                    supervisor.release(name)
        except RequestError as error:
            outcome = error.code
        except KeyError:
            outcome = "unknown"
        self.waiting -= 1
        self.report.outcomes[outcome] += 1
        self.say(f"{name} {outcome}")

    async def operator(self, supervisor: Supervisor) -> None:
        name = self.rng.choice(self.names)
        if name not in supervisor:
            supervisor.add(self.spec(name))
            return
        life = supervisor[name]
        orders: list[Callable[[], Awaitable[object]]] = [
            lambda: supervisor.unload(name), lambda: supervisor.load(name),
            lambda: supervisor.remove(name), supervisor.unload_all,
            lambda: life.stop("for no reason"), life.wait_stopped,
        ]  # fmt: skip
        deeds: list[Callable[[], object]] = [
            lambda: life.post("kill"), lambda: life.post("sleep"), life.note_stall,
            lambda: self.launcher.crash(name), lambda: self.launcher.crash(name, Exit(code=0)),
            lambda: supervisor.update(self.spec(name)), lambda: supervisor.kill(),
        ]  # fmt: skip
        pick = self.rng.randrange(len(orders) + 2 * len(deeds))
        try:
            if pick < len(orders):
                await orders[pick]()
            else:
                deeds[(pick - len(orders)) % len(deeds)]()
        except (RequestError, KeyError):
            return

    async def crowd(self, supervisor: Supervisor, tasks: TaskGroup) -> None:
        rng = self.rng
        pace = rng.uniform(0.3, 2.0)
        end = anyio.current_time() + NOISE_S
        while anyio.current_time() < end:
            for _ in range(rng.choice([1, 1, 1, 8])):
                tasks.start_soon(self.user, supervisor)
            if self.chance(0.25):
                tasks.start_soon(self.operator, supervisor)
            await anyio.sleep(rng.expovariate(pace))

    # ---- the story
    async def run(self) -> Report:
        """Rage, fall silent, end; then look for what is left."""
        queue = QueueLimits(
            length=self.rng.choice([5, 512]), timeout_s=self.rng.choice([10.0, 100.0]),
            max_wait_s=self.rng.choice([1.0, 30.0]),
            min_residency_s=self.rng.choice([0.0, 5.0]),
        )  # fmt: skip
        is_cut_short = self.chance(0.3)
        async with anyio.create_task_group() as tasks:
            supervisor = Supervisor(
                self.launcher, [self.spec(name) for name in self.names], policy=self.policy,
                queue=queue, rng=random.Random(self.report.seed), stop_limit_s=60.0,
            )  # fmt: skip
            async with supervisor:
                supervisor.listen(lambda record: self.heard(supervisor, record))
                with anyio.move_on_after(NOISE_S / 2 if is_cut_short else 1e9):
                    await self.crowd(supervisor, tasks)
                    self.is_noisy = False
                    await self.fall_silent(supervisor)
        self.look_back()
        return self.report

    async def fall_silent(self, supervisor: Supervisor) -> None:
        """Without users and accidents, all settle within their limits."""
        for _ in range(20):
            await anyio.sleep(SILENCE_S / 20)
            self.look(supervisor)
        if self.waiting:
            self.complain(f"{self.waiting} requests still wait or are served")
        for life in supervisor.lifecycles():
            name, quiet = life.spec.name, ("stopped", "ready", "asleep", "tripped", "half_open")
            if life.state not in quiet and anyio.current_time() - life.since > 200.0:
                self.complain(f"{name} does not come to rest: {life.state}")
            entry = supervisor.scheduler.services[name]
            if entry.granted or life.in_flight or life.waiting:
                self.complain(f"{name}: counters are not zero")
        if supervisor.scheduler.queue or supervisor.scheduler.swaps:
            self.complain("the queue is not empty")

    # ---- what must hold
    def heard(self, supervisor: Supervisor, record: Transition) -> None:
        self.say(f"{record.service} {record.source} {record.event} {record.target}")
        active = [
            life.spec.name
            for life in supervisor.lifecycles()
            if phase_of(life) in ("starting", "ready") and life.state != "backoff"
        ]
        for name in active:
            others = self.policy(name, frozenset(active) - {name})
            if others:
                self.complain(f"{name} and {', '.join(sorted(others))} are up together")
        self.lives += [life for life in supervisor.lifecycles() if life not in self.lives]

    def look(self, supervisor: Supervisor) -> None:
        """Check what holds when nobody is in the middle of anything."""
        for life in supervisor.lifecycles():
            entry = supervisor.scheduler.services[life.spec.name]
            if entry.phase != phase_of(life):
                self.complain(f"{entry.name}: the scheduler thinks {entry.phase}: {life.state}")
            if not life.is_final and entry.granted < life.waiting + life.in_flight:
                self.complain(f"{entry.name}: {entry.granted} granted, more than that are there")

    def look_back(self) -> None:
        """Check what holds when all is over."""
        if self.waiting:
            self.complain(f"{self.waiting} requests were never answered")
        for life in self.lives:
            for configuration, event in life.unhandled:
                self.complain(f"{life.spec.name}: {event} is unhandled in {configuration[-1]}")
            if life.waiting:
                self.complain(f"{life.spec.name}: somebody waits there for ever")
        try:
            self.launcher.assert_ended()
        except AssertionError as error:
            self.complain(str(error))
        self.report.trace += [
            f"{r.at!r} {r.what} {r.name} {r.pid} {r.detail}" for r in self.launcher.records
        ]

    def say(self, text: str) -> None:
        self.report.trace.append(f"{anyio.current_time()!r} {text}")

    def complain(self, text: str) -> None:
        if len(self.report.problems) < 20:
            self.report.problems.append(text)
