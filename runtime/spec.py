"""What a service is: its command, its hooks, its limits. Values, made by whoever embeds us.

Seconds everywhere; a limit of None is never reached. Nothing here starts anything.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypeAlias, get_args

from .errors import ConfigError
from .ports import Command, HttpCall

OnError: TypeAlias = Literal["warn", "ignore", "fail"]
Point: TypeAlias = Literal[
    "beforeStart", "afterStart", "afterHealthy", "afterReady", "beforeStop", "afterStop",
    "onFailure", "suspend", "wake",
]  # fmt: skip


def _check(where: str, found: object, is_fine: bool, expected: str) -> None:
    if not is_fine:  # comparisons that nan fails, too
        raise ConfigError(where, f"expected {expected}, got {found}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """What a hook gets to know.

    Attributes:
        service: Name of the service.
        point: The hook point.
        endpoint: Base URL of the service.
        pid: Process id of the leader; None while there is no process.
        incarnation: Which run of the service this is, counted from 1.
        reason: Why the lifecycle is where it is, in words.
        exit: How the process ended, in words; empty while it lives.
        after_healthy: ``none``, ``completed``, ``failed`` or ``interrupted``: how the afterHealthy
            of this incarnation went. A save that would overwrite a good one may look at it.
        hook_id: The same for every attempt of one (incarnation, point): a key for idempotency.
    """

    service: str
    point: str
    endpoint: str
    pid: int | None
    incarnation: int
    reason: str
    exit: str = ""
    after_healthy: str = "none"
    hook_id: str = ""


_PID = "${PID}"


def argv_with_pid(argv: Iterable[str], pid: int | None) -> tuple[str, ...]:
    """Return *argv* with *pid* in place of ``${PID}``; nothing in its place if None."""
    text = "" if pid is None else str(pid)
    return tuple(item.replace(_PID, text) for item in argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAction:
    """Run a command. ``${PID}`` in an argument becomes the process id of the service."""

    argv: tuple[str, ...]

    def with_pid(self, pid: int | None) -> RunAction:
        """Return the action as it runs beside process *pid*; None if there is none."""
        return RunAction(argv=argv_with_pid(self.argv, pid))

    def __str__(self) -> str:
        """Name the program only: arguments may hold secrets."""
        return f"run {self.argv[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAction:
    """Make an HTTP request.

    ``${PID}`` in the URL, a header or the body becomes the process id of the service.
    """

    call: HttpCall

    def with_pid(self, pid: int | None) -> HttpAction:
        """Return the action as it runs beside process *pid*; None if there is none."""
        text, call = "" if pid is None else str(pid), self.call
        return HttpAction(
            call=replace(
                call,
                url=call.url.replace(_PID, text),
                headers={name: value.replace(_PID, text) for name, value in call.headers.items()},
                body=None if call.body is None else call.body.replace(_PID.encode(), text.encode()),
            )
        )

    def __str__(self) -> str:
        """Name method and URL, without its query."""
        return f"{self.call.method} {self.call.url.partition('?')[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAction:
    """Await a function of the embedding program; raising means failure."""

    function: Callable[[HookContext], Awaitable[None]]

    def __str__(self) -> str:
        """Name the function."""
        return f"call {getattr(self.function, '__qualname__', self.function)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One action of a hook point, and what becomes of its failure.

    Attributes:
        action: What is done.
        timeout_s: Each attempt is killed, with all it started, after so long; seconds > 0.
        retries: Further attempts after a failure; >= 0.
        delay_s: Pause before each further attempt; seconds >= 0.
        on_error: ``warn`` logs and goes on, ``ignore`` goes on, ``fail`` ends the phase: the start
            fails, or the stop goes on without the hooks that would have followed.
    """

    action: RunAction | HttpAction | CallAction
    timeout_s: float = 30.0
    retries: int = 0
    delay_s: float = 1.0
    on_error: OnError = "warn"

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            ConfigError: A number is.
        """
        _check("hook.timeout_s", self.timeout_s, self.timeout_s > 0, "> 0 seconds")
        _check("hook.retries", self.retries, self.retries >= 0, ">= 0")
        _check("hook.delay_s", self.delay_s, self.delay_s >= 0, ">= 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """When a ready service counts as unhealthy.

    Attributes:
        every_s: Pause between probes; seconds > 0.
        url: Probed with GET; expected 200.
        timeout_s: Limit of one probe.
        failures: That many bad probes in a row make it unhealthy; >= 1.
        request: A real inference instead of the GET: sent, and expected to answer 2xx.
        stalled_s: A stream that carries no byte for so long makes it unhealthy too; None: never.
    """

    every_s: float
    url: str
    timeout_s: float = 2.0
    failures: int = 3
    request: HttpCall | None = None
    stalled_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range.

        Raises:
            ConfigError: A number is.
        """
        _check("liveness.every_s", self.every_s, self.every_s > 0, "> 0 seconds")
        _check("liveness.timeout_s", self.timeout_s, self.timeout_s > 0, "> 0 seconds")
        _check("liveness.failures", self.failures, self.failures >= 1, ">= 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """How long each thing may take; seconds, None is without limit.

    Attributes:
        start_limit: From the first probe to the first healthy answer.
        stall_limit: The same, but every output of the process begins it anew.
        idle_limit: A ready service without a request for so long is stopped.
        doze_limit: A ready service without a request for so long is put to sleep.
        asleep_limit: A sleeping service is stopped after so long.
        stable: Ready for so long, earlier failures are forgiven.
        drain_limit: Requests in flight get so long before a stop that was asked for goes on.
        grace: From SIGTERM (or cmdStop) to SIGKILL.
        kill_limit: From SIGKILL to the state stuck.
        backoff: Before the first restart; doubles with each failure in a row, with jitter.
        backoff_max: The longest backoff.
        cooldown: How long the breaker refuses before one trial.
        settle: At most so long for resources to come free after a stop.
        probe: Limit of one readiness probe.
        hurry: Limit of each hook once somebody asked to kill.
    """

    start_limit: float | None = 120.0
    stall_limit: float | None = None
    idle_limit: float | None = None
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
        """Refuse what is out of range.

        Raises:
            ConfigError: A number is: negative, not a number, or zero where a limit that is always
                reached would be reached again and again.
        """
        for field_ in fields(self):
            seconds = getattr(self, field_.name)
            if field_.name in ("kill_limit", "cooldown", "probe"):
                _check(f"timings.{field_.name}", seconds, seconds is None or seconds > 0, "> 0")
            else:
                _check(f"timings.{field_.name}", seconds, seconds is None or seconds >= 0, ">= 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """One service: everything its lifecycle needs to know.

    Attributes:
        name: Unique among the services of a supervisor.
        command: What is launched.
        endpoint: Base URL where it serves, such as ``http://127.0.0.1:5800``.
        check_url: Probed until it answers 200; None: ready as soon as it runs.
        stop_argv: Run instead of SIGTERM; ``${PID}`` becomes the process id. Empty: SIGTERM.
        hooks: Hook point -> actions, run in order.
        timings: See `Timings`.
        restart: temporary never restarts by itself, transient after a failure, permanent always.
        intensity: That many failures in a row (none forgiven) trip the breaker; >= 1.
        abandon: What becomes of a start that nobody waits for any more.
        drain: What happens when the drain limit is reached: cut the requests, wait for them all
            the same, or refuse the stop.
        liveness: None: a ready service is never probed.
        settle: Run until it succeeds, within ``timings.settle``, after each stop; None: no wait.
        pinned: Never evicted by another service, never stopped for being idle.
        concurrency_limit: Requests in flight at a time; None is without limit.
        log_limit_bytes: How much output is kept.
        parameters: Further parameters of the chart, for charts of one's own.
    """

    name: str
    command: Command
    endpoint: str
    check_url: str | None = None
    stop_argv: tuple[str, ...] = ()
    hooks: Mapping[str, tuple[Hook, ...]] = field(default_factory=dict)
    timings: Timings = Timings()
    restart: Literal["temporary", "transient", "permanent"] = "temporary"
    intensity: int = 5
    abandon: Literal["finish", "abort"] = "finish"
    drain: Literal["cut", "wait", "refuse"] = "cut"
    liveness: Liveness | None = None
    settle: Hook | None = None
    pinned: bool = False
    concurrency_limit: int | None = None
    log_limit_bytes: int = 1 << 20
    parameters: Mapping[str, str | int | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what can never run.

        Raises:
            ConfigError: A field is out of range.
        """
        name, limit = self.name, self.concurrency_limit
        _check("name", repr(name), bool(name), "a name")
        _check(f"{name}.intensity", self.intensity, self.intensity >= 1, ">= 1")
        _check(f"{name}.concurrency_limit", limit, limit is None or limit >= 1, ">= 1")

    def longest_stop_s(self) -> float:
        """How long a stop may take once it has drained: its hooks, grace and settling; seconds.

        Points of a chart of one's own may be part of a stop, so they count.
        """
        others = {*get_args(Point)} - {"beforeStop", "afterStop"}
        hooks = [h for point, hung in self.hooks.items() if point not in others for h in hung]
        tries = sum(h.timeout_s * (h.retries + 1) + h.delay_s * h.retries for h in hooks)
        grace = math.inf if self.timings.grace is None else self.timings.grace
        return tries + grace + (0.0 if self.settle is None else self.timings.settle)
