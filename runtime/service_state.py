"""State of one service beside its chart: its specification, its process, its output.

A `Lifecycle` owns one; its activities and timers read and write it. It is a concrete class and not
a protocol, since the timers are on the path of every request and compiled code looks up the
attributes of a protocol slowly.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from .activity import Activity
from .adoption import RunFacts
from .errors import LaunchError
from .fence import Fence
from .hook_actions import HookContext, HookEnvironment
from .hooks import HookLimiter, HookResult, HookRunner
from .log_ring import LogRing
from .memory_failures import MemoryFailure
from .node_watch import NodeWatch
from .ports import (
    Command,
    Endpoint,
    Exit,
    HttpClient,
    Launcher,
    NodeProcess,
    ProcessHandle,
)
from .service_memory import ServiceMemory
from .spec import ServiceSpec
from .swaps import SwapLedger
from .timers import TimerService
from .transition import Transition

NO_DATA: Mapping[str, str | int | bool] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """Services that all lifecycles of a supervisor share.

    Attributes:
        launcher: Starts processes.
        http: Makes the HTTP calls of hooks; None means that there are none.
        tasks: Runs the activities.
        timers: Makes the timers.
        hook_limiter: Limits the hook commands of all services.
        rng: Source of the jitter of backoffs.
        notify: Called with every transition; must not wait or raise.
        memory: Places of services, and the memory that they give back.
        nodes: Nodes of the launcher, and what may still run on lost ones.
        swaps: The swaps under way.
    """

    launcher: Launcher
    http: HttpClient | None
    tasks: Fence
    timers: TimerService
    hook_limiter: HookLimiter
    rng: random.Random
    notify: Callable[[Transition], None]
    memory: ServiceMemory
    nodes: NodeWatch
    swaps: SwapLedger = field(default_factory=SwapLedger)


class Post(Protocol):
    """Takes an event for the chart; see `LifecycleDriver.tell`."""

    def __call__(
        self, event: str, data: Mapping[str, str | int | bool] = NO_DATA, *,
        source: Activity | None = None, cause: str = "",
    ) -> object:  # fmt: skip
        """Process *event*; never waits, never raises."""
        ...


class ServiceState:
    """The state of one service that its activities and timers share.

    Attributes:
        spec: Specification of the service; of its process, if there is one.
        next_spec: Specification from the next start on; None means the same.
        runtime: Shared by all lifecycles of a supervisor.
        log: Output of the service and of its hooks.
        log_start_bytes: `LogRing.total_bytes` of *log* when the present incarnation began.
        launched_at: Time of the start of *process* in seconds on the loop's clock, or None.
        hooks: Runs the hooks of *spec*.
        process: The running process, or None.
        endpoint: Base URL of the service: of its last process, or of *spec*.
        location: Host, port and node of the last process; None means those of *spec*.
        node: Node of the last process; empty means that there was none, or no node is known.
        is_unreachable: Neither a request nor the launcher reaches the process.
        start_error: Why the last start failed, or None.
        incarnation: Number of launches; the first one is 1.
        last_exit: How the last process ended, or None.
        memory_failure: Set if it ended because memory ran out.
        after_healthy: Outcome of the ``afterHealthy`` hooks of this incarnation; ``none`` before
            they ran.
        hook_results: Results of the hooks since the last transition.
        hooks_s: Duration of all hooks that have ended by then, in seconds.
        probe_detail: Reason why the last health check failed; empty if it passed.
        terminated_at: Time of the SIGTERM or stop command in seconds on the loop's clock, or None.
        cause: Reason of the last transition, in words.
        since: Time of the last transition, in seconds on the loop's clock.
        kept: Incarnation and the idle limit in seconds that its last request with one set;
            infinity is no limit, and None means that no request has.
        place: Variables that name the GPUs of this incarnation; None before it has a place.
        idle_since: Time of the last use in seconds of a run that was adopted; None after its first
            request here, and for other runs.
        end_limit_s: Time in seconds after which the supervisor kills; None means no shutdown.
    """

    __slots__ = (
        "after_healthy", "cause", "end_limit_s", "endpoint", "hook_results", "hooks", "hooks_s",
        "idle_since", "incarnation", "is_unreachable", "kept", "last_exit", "launched_at",
        "location", "log", "log_start_bytes", "memory_failure", "next_spec", "node", "place",
        "probe_detail", "process", "runtime", "since", "spec", "start_error", "terminated_at",
    )  # fmt: skip

    def __init__(self, spec: ServiceSpec, runtime: RuntimeContext, log: LogRing) -> None:
        self.spec, self.runtime, self.log = spec, runtime, log
        self.next_spec: ServiceSpec | None = None
        self.process: ProcessHandle | None = None
        self.endpoint, self.node = spec.endpoint, ""
        self.location: Endpoint | None = None
        self.is_unreachable = False
        self.start_error: LaunchError | None = None
        self.log_start_bytes = log.total_bytes
        self.launched_at: float | None = None
        self.incarnation = 0
        self.last_exit: Exit | None = None
        self.memory_failure: MemoryFailure | None = None
        self.cause = ""
        self.kept: tuple[int, float] | None = None
        self.idle_since: float | None = None
        self.end_limit_s: float | None = None
        self.place: Mapping[str, str] | None = None
        self.hook_results: list[HookResult] = []
        self.hooks_s = 0.0
        self.after_healthy = "none"
        self.probe_detail = ""
        self.terminated_at: float | None = None
        self.since = runtime.timers.now()
        self.hooks = self._hook_runner(spec)

    def adopt(self, spec: ServiceSpec) -> None:
        """Make *spec* the specification of the service."""
        self.spec, self.next_spec = spec, None
        if self.process is None:
            self.locate(None)
        self.hooks = self._hook_runner(spec)

    def take_over(self, process: ProcessHandle, facts: RunFacts) -> None:
        """Make *process*, which an earlier supervisor has started, the process of the service."""
        self.process = process
        self.incarnation, self.after_healthy = facts.incarnation, facts.after_healthy
        self.launched_at, self.idle_since = facts.launched_at, facts.idle_since
        self.place = dict(facts.place)
        self.log.begin_section(facts.incarnation)
        self.locate(process)
        if facts.kept_s is not None:
            self.kept = facts.incarnation, facts.kept_s
        self.hooks = self._hook_runner(self.spec)

    def _hook_runner(self, spec: ServiceSpec) -> HookRunner:
        runtime = self.runtime
        environment = HookEnvironment(
            launcher=runtime.launcher, http=runtime.http, command=self._with_place(spec),
            log=self.log,
        )  # fmt: skip
        return HookRunner(environment, runtime.hook_limiter)

    def locate(self, process: ProcessHandle | None) -> None:
        """Reach the service where *process* is; None means at the URL of the specification."""
        self.location = process.endpoint if isinstance(process, NodeProcess) else None
        self.node = process.node if isinstance(process, NodeProcess) else ""
        self.endpoint = self.url(self.spec.endpoint)
        self.is_unreachable = False

    def url(self, configured: str) -> str:
        """Return a URL of the service, as the specification has it, for where it is reached."""
        return configured if self.location is None else self.location.at(configured)

    def placed(self) -> Command:
        """Return the command at the place that was granted; hooks get its variables from now on.

        Both keep the place of the first call in an incarnation, whatever is granted later: a
        service that sleeps holds memory elsewhere.
        """
        command = self.spec.command
        placed = self.runtime.memory.placed(self.spec.name, command)
        if self.place is None:
            self.place = {
                name: value for name, value in placed.env.items() if command.env.get(name) != value
            }
            self.hooks = self._hook_runner(self.spec)
        return replace(
            placed, incarnation=self.incarnation,
            placement=self.runtime.nodes.without_lost(self.spec.name, placed.placement),
        )  # fmt: skip

    def helper(self, argv: tuple[str, ...]) -> Command:
        """Return a command that runs beside the process, in its environment and directory."""
        at = self.context("").fill
        return replace(
            self._with_place(self.spec), argv=tuple(at(item) for item in argv), node=self.node,
            listens_at=None, is_external=False,
        )  # fmt: skip

    def _with_place(self, spec: ServiceSpec) -> Command:
        env = {**spec.command.env, **(self.place or {})}
        return replace(spec.command, env=env)

    def context(self, point: str) -> HookContext:
        """Return the context of the hooks of *point* at this moment."""
        return HookContext(
            service=self.spec.name, point=point, endpoint=self.endpoint,
            configured_endpoint=self.spec.endpoint, node=self.node, process=self.process,
            pid=self.process.pid or None if self.process else None, incarnation=self.incarnation,
            reason=self.cause, exit="" if self.last_exit is None else str(self.last_exit),
            after_healthy=self.after_healthy,
            hook_id=f"{self.spec.name}:{self.incarnation}:{point}",
        )  # fmt: skip

    def why_fired(self, timer: str) -> str:
        """Return the reason for the event of *timer*, in words."""
        seconds = self.runtime.timers.now() - self.since
        match timer:
            case "start_limit" | "stall_limit":
                probe = f"; last probe: {self.probe_detail}" if self.probe_detail else ""
                what = "not healthy" if timer == "start_limit" else "not healthy and no output"
                return f"{what} after {seconds:.1f} s{probe}"
            case "idle_limit" | "asleep_limit":
                return "idle for too long"
            case "doze_limit":
                return "idle: sleep"
        return ""
