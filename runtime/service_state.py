"""What is known of one service beside its chart: its declaration, its process, its output.

`Lifecycle` owns one; its activities and its timers read and write it. A concrete class and not a
protocol: the timers are on the path of every request, and attributes of a protocol are looked up
slowly in compiled code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .activity import Activity
from .fence import Fence
from .hook_actions import HookContext, HookEnvironment
from .hooks import HookLimiter, HookResult, HookRunner
from .log_ring import LogRing
from .ports import Exit, HttpClient, Launcher, ProcessHandle
from .spec import ServiceSpec
from .timers import TimerService
from .transition import Transition

NO_DATA: Mapping[str, str | int | bool] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What all lifecycles of a supervisor share.

    Attributes:
        launcher: Starts processes.
        http: Makes the HTTP calls of hooks; None where there are none.
        tasks: Activities run here.
        timers: The one heap.
        hook_limiter: Limits the hook commands of all services.
        rng: Jitter of backoffs.
        notify: Gets every transition, synchronously; must not raise.
    """

    launcher: Launcher
    http: HttpClient | None
    tasks: Fence
    timers: TimerService
    hook_limiter: HookLimiter
    rng: random.Random
    notify: Callable[[Transition], None]


class Post(Protocol):
    """Takes an event for the chart; see ``Lifecycle.post``."""

    def __call__(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *,
        source: Activity | None = None, cause: str = "",
    ) -> None:  # fmt: skip
        """Take *event*; never waits, never raises."""
        ...


class ServiceState:
    """The facts of one service that its activities and timers share.

    Attributes:
        spec: What the service is; of the incarnation, where there is one.
        next_spec: What it is from its next start on; None means the same.
        world: What all lifecycles of a supervisor share.
        log: Its output, hooks included.
        hooks: Runs the hooks of *spec*.
        process: The running incarnation, or None.
        incarnation: Count of launches; the first is 1.
        last_exit: How the last incarnation ended.
        after_healthy: How the ``afterHealthy`` hooks of this incarnation ended; ``none`` at first.
        hook_results: Of the hooks since the last transition.
        probe_detail: Why the last health check failed; empty when it did not.
        terminated_at: When it was asked to end; seconds on the loop's clock, or None.
        cause: Why the lifecycle is where it is, in words.
        since: When the current configuration was entered; seconds on the loop's clock.
        end_limit_s: The supervisor ends, and kills after so many seconds; None while it does not.
    """

    def __init__(self, spec: ServiceSpec, world: RuntimeContext, log: LogRing) -> None:
        self.spec, self.world, self.log = spec, world, log
        self.next_spec: ServiceSpec | None = None
        self.process: ProcessHandle | None = None
        self.incarnation = 0
        self.last_exit: Exit | None = None
        self.cause = ""
        self.end_limit_s: float | None = None
        self.hook_results: list[HookResult] = []
        self.after_healthy = "none"
        self.probe_detail = ""
        self.terminated_at: float | None = None
        self.since = world.timers.now()
        self.hooks = self._hook_runner(spec)

    def adopt(self, spec: ServiceSpec) -> None:
        """Take *spec* as what the service is from now on."""
        self.spec, self.next_spec = spec, None
        self.hooks = self._hook_runner(spec)

    def _hook_runner(self, spec: ServiceSpec) -> HookRunner:
        world = self.world
        environment = HookEnvironment(
            launcher=world.launcher, http=world.http, command=spec.command, log=self.log
        )
        return HookRunner(environment, world.hook_limiter)

    def context(self, point: str) -> HookContext:
        """What the hooks of *point* get to know now."""
        return HookContext(
            service=self.spec.name, point=point, endpoint=self.spec.endpoint,
            pid=self.process.pid if self.process else None, incarnation=self.incarnation,
            reason=self.cause, exit="" if self.last_exit is None else str(self.last_exit),
            after_healthy=self.after_healthy,
            hook_id=f"{self.spec.name}:{self.incarnation}:{point}",
        )  # fmt: skip

    def why_fired(self, timer: str) -> str:
        """Return in words why the event of *timer* comes."""
        seconds = self.world.timers.now() - self.since
        match timer:
            case "start_limit" | "stall_limit":
                probe = f"; last probe: {self.probe_detail}" if self.probe_detail else ""
                what = "not healthy" if timer == "start_limit" else "no output and not healthy"
                return f"{what} after {seconds:.1f} s{probe}"
            case "idle_limit" | "asleep_limit":
                return "idle for too long"
            case "doze_limit":
                return "idle: sleep"
        return ""
