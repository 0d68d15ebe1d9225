"""Actions of hooks: what a hook can do, one class for each kind.

`HookRunner` gives an action its timeout, its retries and a slot of the hook limit; it does not know
the kinds. A kind says how it is performed (``perform``), whether it needs a slot (``needs_slot``)
and how logs name it (``__str__``), which shows neither arguments nor credentials.

A new kind of action touches these five files, and a test holds them to it:

1. ``runtime/hook_actions.py``: the class, and its name in `HookAction`;
2. ``runtime/__init__.py``: the export;
3. ``adapters/config/schema/hooks.py``: the keys that its author writes;
4. ``adapters/config/build_hooks.py``: the class made from the keys;
5. ``runtime/leaving.py``: how it is performed at an end that no proxy watches.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import AnyStr, ClassVar, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from ..dataclass import dataclass, field
from .arguments import require, require_flag, require_kind, require_text, shown, texts
from .errors import LaunchError
from .log_ring import LogRing
from .pid_placeholder import fill_pid
from .ports import (
    Command,
    Endpoint,
    Exit,
    HttpCall,
    HttpClient,
    Launcher,
    NodeProcess,
    ProcessHandle,
)

_LONGEST_BODY = 500
_USER = re.compile(r"(?<=://)[^/?#]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookContext:
    """Facts about the service that a hook receives.

    Attributes:
        service: Name of the service.
        point: The hook point.
        endpoint: Base URL of the service, where its process is reached.
        pid: Process id of the leader; None while there is no process.
        incarnation: Number of this run of the service, counted from 1.
        reason: Reason for the last change of state, in words.
        exit: How the process ended, in words; empty while it lives.
        after_healthy: ``none``, ``completed``, ``failed`` or ``interrupted``: the outcome of
            afterHealthy in this incarnation. A hook that saves state can use it to avoid
            overwriting a good copy.
        hook_id: Idempotency key, the same for every attempt of one (incarnation, point).
        configured_endpoint: Base URL of its specification; empty means the same.
        node: Node of the process, for launchers that know nodes; else empty.
        process: The process; None while there is none.
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
    configured_endpoint: str = ""
    node: str = ""
    process: ProcessHandle | None = field(default=None, repr=False, compare=False)

    def fill(self, text: AnyStr) -> AnyStr:
        """Return *text* with ``${PID}``, ``${HOST}``, ``${PORT}`` and ``${NODE}`` filled in."""
        text = fill_pid(text, self.pid)
        if (b"${" if isinstance(text, bytes) else "${") not in text:
            return text
        url = urlsplit(self.endpoint)
        port = url.port or (443 if url.scheme == "https" else 80)
        return Endpoint(url.hostname or "localhost", port, self.node).fill(text)

    def reached(self, url: str) -> str:
        """Return *url* for where the process is reached, if it is a URL of the specification."""
        before = urlsplit(self.configured_endpoint)
        given = urlsplit(url)
        if (given.scheme, given.netloc) != (before.scheme, before.netloc):
            return url
        return urlunsplit(given._replace(netloc=urlsplit(self.endpoint).netloc))


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEnvironment:
    """Everything an action may use.

    Attributes:
        launcher: Runs commands.
        http: Makes HTTP calls; None if the supervisor has no HTTP client.
        command: The service's own command: hooks share its environment and directory.
        log: Log of the service; receives the output of commands.
    """

    launcher: Launcher
    http: HttpClient | None
    command: Command
    log: LogRing


class HookFailedError(Exception):
    """An action failed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAction:
    """Run a command.

    Attributes:
        argv: Program and arguments; ``${PID}``, ``${HOST}``, ``${PORT}`` and ``${NODE}`` in one
            become those of the service.
        is_inside: Run it inside of what encloses the process, such as its container, and not
            beside the process on its node.
        title: Words for it in logs; empty takes the program.
    """

    needs_slot: ClassVar[bool] = True

    argv: tuple[str, ...] = field(repr=False)
    is_inside: bool = False
    title: str = ""

    def __post_init__(self) -> None:
        """Check the command; a list becomes a tuple.

        Raises:
            ConfigError: It is no sequence of texts, or has no program; or a flag is none.
        """
        require_flag("run.is_inside", self.is_inside)
        object.__setattr__(self, "argv", texts("run.argv", self.argv, least=1))
        require_text("run.title", self.title)

    def __str__(self) -> str:
        """Name the program only, unless there is a title: arguments may hold secrets."""
        return self.title or f"run {self.argv[0]}"

    def command(self, context: HookContext, service: Command) -> Command:
        """Return the command to run beside *service*, with its placeholders filled."""
        return Command(
            argv=tuple(context.fill(item) for item in self.argv),
            env={**service.env, **_variables(context)},
            cwd=service.cwd,
            label=service.label,
            launcher=service.launcher,
            node=context.node,
        )

    async def perform(
        self, context: HookContext, environment: HookEnvironment, timeout_s: float
    ) -> None:
        """Run the command to its end.

        Raises:
            HookFailedError: It could not be started, or its exit status is not 0.
        """
        run = self._inside(context) if self.is_inside else environment.launcher.run
        command = self.command(context, environment.command)
        try:
            ended = await run(command, environment.log)
        except LaunchError as error:
            raise HookFailedError(str(error)) from error
        if not ended.is_clean:
            raise HookFailedError(str(ended))

    @staticmethod
    def _inside(context: HookContext) -> Callable[[Command, LogRing], Awaitable[Exit]]:
        if not isinstance(context.process, NodeProcess):
            raise HookFailedError(f"there is no container to run it in at {context.point}")
        return context.process.run


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAction:
    """Make an HTTP request.

    Attributes:
        call: The request; ``${PID}``, ``${HOST}``, ``${PORT}`` and ``${NODE}`` in its URL, a
            header or its body become those of the service.
    """

    needs_slot: ClassVar[bool] = False

    call: HttpCall = field(repr=False)

    def __post_init__(self) -> None:
        """Check the call.

        Raises:
            ConfigError: It is no `HttpCall`.
        """
        require_kind("http.call", self.call, HttpCall, "an HttpCall")

    def __str__(self) -> str:
        """Name method and URL, without its credentials and query."""
        url = _USER.sub("", self.call.url.partition("?")[0])
        return f"{self.call.method} {url}"

    def filled(self, context: HookContext) -> HttpCall:
        """Return the request with its placeholders filled."""
        call = self.call
        return replace(
            call,
            url=context.reached(context.fill(call.url)),
            headers={name: context.fill(value) for name, value in call.headers.items()},
            body=None if call.body is None else context.fill(call.body),
        )

    async def perform(
        self, context: HookContext, environment: HookEnvironment, timeout_s: float
    ) -> None:
        """Make the request, for at most *timeout_s* seconds.

        Raises:
            HookFailedError: There is no HTTP client, no response, or an unexpected status.
        """
        if environment.http is None:
            raise HookFailedError("http actions need an HTTP client; this supervisor has none")
        call = self.filled(context)
        try:
            status, body = await environment.http.call(call, timeout_s=timeout_s)
        except OSError as error:
            raise HookFailedError(str(error)) from error
        if status not in (call.expect or range(200, 300)):
            text = body[:_LONGEST_BODY].decode("utf-8", "replace")
            raise HookFailedError(f"status {status}: {text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallAction:
    """Await a function of the embedding program.

    Attributes:
        function: Receives the context; an exception means failure.
    """

    needs_slot: ClassVar[bool] = False

    function: Callable[[HookContext], Awaitable[None]]

    def __post_init__(self) -> None:
        """Check the function.

        Raises:
            ConfigError: It cannot be called.
        """
        require("call.function", self.function, callable(self.function), "an async function")

    def __str__(self) -> str:
        """Name the function."""
        return f"call {getattr(self.function, '__qualname__', self.function)}"

    async def perform(
        self, context: HookContext, environment: HookEnvironment, timeout_s: float
    ) -> None:
        """Await the function; whatever it raises passes through.

        Raises:
            HookFailedError: The function is not async.
        """
        found: object = self.function(context)
        if not inspect.isawaitable(found):
            raise HookFailedError(f"expected an async function, {self} returned {shown(found)}")
        await found


HookAction: TypeAlias = RunAction | HttpAction | CallAction


def _variables(context: HookContext) -> dict[str, str]:
    url = urlsplit(context.endpoint)
    port = url.port
    return {
        "SWAPCHART_MODEL": context.service,
        "SWAPCHART_HOST": url.hostname or "",
        "SWAPCHART_PORT": "" if port is None else str(port),
        "SWAPCHART_NODE": context.node,
        "SWAPCHART_PID": "" if context.pid is None else str(context.pid),
        "SWAPCHART_HOOK": context.point,
        "SWAPCHART_REASON": context.reason,
        "SWAPCHART_EXIT": context.exit,
        "SWAPCHART_AFTER_HEALTHY": context.after_healthy,
        "SWAPCHART_INCARNATION": str(context.incarnation),
        "SWAPCHART_HOOK_ID": context.hook_id,
    }
