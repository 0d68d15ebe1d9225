"""Specification of a service: its command, hooks, timings and limits, as immutable values.

The embedding program makes them. Durations are in seconds, and a limit of None means unlimited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ..dataclass import dataclass, field
from ..machine import Document
from .arguments import (
    require,
    require_count,
    require_document,
    require_flag,
    require_kind,
    require_mapping,
    require_name,
    require_one_of,
    require_report,
    require_seconds,
    require_url,
    texts,
)
from .hook_actions import HookAction
from .memory import MemoryNeed
from .ports import Command, HttpCall

if TYPE_CHECKING:
    from ..machine import Report

OnError: TypeAlias = Literal["warn", "ignore", "fail"]
Restart: TypeAlias = Literal["temporary", "transient", "permanent"]
Abandon: TypeAlias = Literal["finish", "abort"]
Drain: TypeAlias = Literal["cut", "wait", "refuse"]
Point: TypeAlias = Literal[
    "beforeStart", "afterStart", "afterHealthy", "afterReady", "beforeStop", "afterStop",
    "onFailure", "suspend", "wake",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One action of a hook point, with its limits and the effect of its failure.

    Attributes:
        action: The action.
        timeout_s: Limit of each attempt, which is killed with all it started; seconds > 0.
        retries: Number of further attempts after a failure; >= 0.
        delay_s: Pause before each further attempt; seconds >= 0.
        on_error: ``warn`` logs the failure and continues, ``ignore`` continues, ``fail`` ends the
            phase: the start fails, or the stop continues without the remaining hooks.
    """

    action: HookAction
    timeout_s: float = 30.0
    retries: int = 0
    delay_s: float = 1.0
    on_error: OnError = "warn"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type or is out of range.
        """
        expected = "a RunAction, HttpAction or CallAction"
        require_kind("hook.action", self.action, get_args(HookAction), expected)
        require_seconds("hook.timeout_s", self.timeout_s, above_zero=True)
        require_count("hook.retries", self.retries)
        require_seconds("hook.delay_s", self.delay_s)
        require_one_of("hook.on_error", self.on_error, get_args(OnError))


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """Liveness probe of a ready service.

    Attributes:
        every_s: Pause between probes; seconds > 0.
        url: URL of the probe, a GET request that must return 200.
        timeout_s: Limit of one probe; seconds > 0. A probe of the URL of the readiness probe may
            take twice as long as the latter took, if that is longer.
        failures: Number of failed probes in a row that make the service unhealthy; >= 1.
        request: Inference request that is sent instead of the GET and must return 2xx; None sends
            the GET.
        stalled_s: Seconds without a byte on a response stream that make the service unhealthy;
            None means unlimited.
        first_byte_s: Seconds until a response has begun; longer makes the service unhealthy. None
            means unlimited.
    """

    every_s: float
    url: str
    timeout_s: float = 2.0
    failures: int = 3
    request: HttpCall | None = None
    stalled_s: float | None = None
    first_byte_s: float | None = None

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type or is out of range.
        """
        require_seconds("liveness.every_s", self.every_s, above_zero=True)
        require_url("liveness.url", self.url)
        require_seconds("liveness.timeout_s", self.timeout_s, above_zero=True)
        require_count("liveness.failures", self.failures, 1)
        require_kind("liveness.request", self.request, HttpCall, "an HttpCall", or_none=True)
        for name in ("stalled_s", "first_byte_s"):
            seconds = getattr(self, name)
            require_seconds(f"liveness.{name}", seconds, above_zero=True, or_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Limits and delays of a lifecycle; seconds, and a limit of None means unlimited.

    Attributes:
        start_limit: From the first probe to the first healthy response.
        stall_limit: The same, restarted by each line of output of the process.
        idle_limit: Time without a request after which a ready service is stopped.
        keep_limit: Longest idle limit that `Lifecycle.keep_for` sets.
        doze_limit: Time without a request after which a ready service is put to sleep.
        asleep_limit: Time after which a sleeping service is stopped.
        stable: Time in ``ready`` after which the failure count is reset.
        drain_limit: Time that in-flight requests have before a requested stop continues.
        grace: From SIGTERM (or cmdStop) to SIGKILL.
        kill_limit: From SIGKILL to the state ``stuck``.
        backoff: Delay before the first restart; doubles with each failure in a row, with jitter.
        backoff_max: Longest backoff.
        cooldown: Time for which the open circuit breaker rejects requests before one trial.
        settle: Longest wait for resources to come free after a stop.
        probe: Limit of the first readiness probe, which grows; see `probe_schedule`.
        hurry: Limit of each hook once a kill was requested.
    """

    start_limit: float | None = 120.0
    stall_limit: float | None = None
    idle_limit: float | None = None
    keep_limit: float | None = None
    doze_limit: float | None = None
    asleep_limit: float | None = None
    stable: float | None = 60.0
    drain_limit: float | None = 30.0
    grace: float | None = 10.0
    kill_limit: float | None = 10.0
    backoff: float = 1.0
    backoff_max: float = 60.0
    cooldown: float | None = 60.0
    settle: float = 10.0
    probe: float = 2.0
    hurry: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A number is negative or not a number, or it is zero where a limit of zero
                would be reached again and again.
        """
        for field_ in fields(self):
            require_seconds(
                f"timings.{field_.name}", getattr(self, field_.name),
                above_zero=field_.name in ("kill_limit", "cooldown", "probe"),
                or_none="None" in str(field_.type),
            )  # fmt: skip


_CHOICES = {
    "restart": get_args(Restart), "abandon": get_args(Abandon), "drain": get_args(Drain),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """One service, with everything that its lifecycle needs.

    Attributes:
        name: Unique among the services of a supervisor.
        command: Command that is launched.
        endpoint: Base URL at which it serves, such as ``http://127.0.0.1:5800``.
        check_url: URL of the readiness probe, which must return 200; None means that the service
            is ready as soon as its process runs.
        stop_argv: Command that runs instead of SIGTERM; ``${PID}`` becomes the process id. Empty
            means SIGTERM.
        hooks: Hook point -> hooks, run in order.
        timings: Limits and delays.
        restart: What follows when its process ends: ``temporary`` never restarts by itself,
            ``transient`` after a failure, ``permanent`` always. None of these starts the service
            for the first time; see *autostart*.
        autostart: Start it as soon as the supervisor has it, unless another service would have to
            be evicted for that; else it starts with its first request.
        intensity: Number of failures in a row that open the circuit breaker; >= 1.
        abandon: What happens to a start that no request waits for any more.
        drain: What happens at the drain limit: ``cut`` aborts the requests, ``wait`` waits for
            their ends, ``refuse`` cancels the stop.
        liveness: Liveness probe; None means that a ready service is not probed.
        settle: Repeated after each stop until it succeeds, for at most ``timings.settle``; None
            means no wait.
        pinned: The service is never evicted by another one and never stopped for being idle.
        concurrency_limit: Maximum number of in-flight requests, >= 1; None means unlimited.
        log_limit_bytes: Size of the log that is kept in memory; bytes.
        parameters: Values for additional parameters of a custom chart, out of their domains, and
            limits of its own timers in seconds, as ``warm_limit_s`` for timer ``warm_limit``.
        chart: Chart of this service; None means the supervisor's. It is checked as that one is. To
            change it replaces the service: its requests are refused until it has drained and
            stopped, and its log and counters begin anew.
        checked: Report of `check` for *chart*, which is then not checked again; see `Supervisor`.
        memory: Memory that it needs; None means that memory is no condition for its start.
    """

    name: str
    command: Command
    endpoint: str
    check_url: str | None = None
    stop_argv: tuple[str, ...] = ()
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    timings: Timings = Timings()
    restart: Restart = "temporary"
    autostart: bool = False
    intensity: int = 5
    abandon: Abandon = "finish"
    drain: Drain = "cut"
    liveness: Liveness | None = None
    settle: Hook | None = None
    pinned: bool = False
    concurrency_limit: int | None = None
    log_limit_bytes: int = 1 << 20
    parameters: Mapping[str, str | int | bool] = field(default_factory=dict)
    memory: MemoryNeed | None = None
    chart: Document | None = None
    checked: Report | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: A field has a wrong type or is out of range.
        """
        name = self.name
        require_name("name", name)
        self._check_command()
        require_kind(f"{name}.timings", self.timings, Timings, "Timings")
        for key, known in _CHOICES.items():
            require_one_of(f"{name}.{key}", getattr(self, key), known)
        for key in ("autostart", "pinned"):
            require_flag(f"{name}.{key}", getattr(self, key))
        require_count(f"{name}.intensity", self.intensity, 1)
        require_count(f"{name}.concurrency_limit", self.concurrency_limit, 1, or_none=True)
        require_count(f"{name}.log_limit_bytes", self.log_limit_bytes)
        require_kind(f"{name}.liveness", self.liveness, Liveness, "a Liveness", or_none=True)
        require_kind(f"{name}.settle", self.settle, Hook, "a Hook", or_none=True)
        require_kind(f"{name}.memory", self.memory, MemoryNeed, "a MemoryNeed", or_none=True)
        require_document(f"{name}.chart", self.chart)
        require_report(f"{name}.checked", self.checked, self.chart)
        require_mapping(f"{name}.parameters", self.parameters, "a mapping of names to values")
        for key, value in self.parameters.items():
            require_kind(f"{name}.parameters.{key}", value, (str, int), "a text, number or flag")

    def _check_command(self) -> None:
        name = self.name
        do = "write Command(argv=('program', 'argument'))"
        require_kind(f"{name}.command", self.command, Command, "a Command", do=do)
        require_url(f"{name}.endpoint", self.endpoint)
        require_url(f"{name}.check_url", self.check_url, or_none=True)
        object.__setattr__(self, "stop_argv", texts(f"{name}.stop_argv", self.stop_argv))
        require_mapping(f"{name}.hooks", self.hooks, "a mapping of hook points to tuples of hooks")
        for point, hooks in self.hooks.items():
            where = f"{name}.hooks.{point}"
            is_valid = isinstance(hooks, (tuple, list))
            require(where, hooks, is_valid, "a tuple of hooks", "write (hook,)")
            for index, hook in enumerate(hooks):
                require_kind(f"{where}[{index}]", hook, Hook, "a Hook")

    @property
    def is_unstoppable(self) -> bool:
        """True if its server runs outside of its process tree, and no command stops it."""
        return self.command.is_external and not self.stop_argv

    def longest_stop_s(self) -> float:
        """Return the longest time from drained to the end of a shutdown, in seconds.

        That is hooks, grace period and the settle hook; a shutdown does not wait for memory.
        Points that a custom chart adds may be part of a stop, so they count.
        """
        others = {*get_args(Point)} - {"beforeStop", "afterStop"}
        hooks = [h for point, group in self.hooks.items() if point not in others for h in group]
        attempts = sum(h.timeout_s * (h.retries + 1) + h.delay_s * h.retries for h in hooks)
        grace = math.inf if self.timings.grace is None else self.timings.grace
        settle = 0.0 if self.settle is None else self.timings.settle
        return attempts + grace + settle
