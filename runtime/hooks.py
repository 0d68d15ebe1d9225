"""Runs the actions of a hook point, in order, each with its own limit and policy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio

from .errors import LaunchError
from .log_ring import LogRing
from .ports import Command, HttpClient, Launcher
from .spec import CallAction, Hook, HookContext, HttpAction, RunAction
from .timers import TimerService

_LONGEST_BODY = 500
#: So long the line of those that wait for a place may stand still.
PATIENCE_S = 10.0
#: What runs for so long gives its place on: it may mean to run for as long as its service.
OUTLAST_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookResult:
    """How one action of a hook point went.

    Attributes:
        point: The hook point.
        action: What was done, in words without arguments.
        outcome: ``ok``, ``failed``, ``timeout`` or ``cancelled``.
        detail: What went wrong, in words; empty when nothing did.
        seconds: How long it took, all attempts and pauses included.
        attempts: How often it was tried; >= 1.
    """

    point: str
    action: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    attempts: int = 1


class _FailedError(Exception):
    """One attempt failed; the text says why."""


class HookDeadline:
    """Cuts the hooks of one phase short, also one that runs already.

    Attributes:
        limit_s: Each hook gets so long, all attempts and pauses included; None: its own limits.
    """

    __slots__ = ("_scope", "limit_s")

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self._scope: anyio.CancelScope | None = None

    def hurry(self, limit_s: float) -> None:
        """From now on each hook gets *limit_s* seconds, the running one counted from now."""
        self.limit_s = limit_s
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, anyio.current_time() + limit_s)

    def scope(self) -> anyio.CancelScope:
        """Make the scope of the next hook."""
        self._scope = anyio.move_on_after(self.limit_s)
        return self._scope


class HookLimiter:
    """Lets so many hook commands run at a time, over all services; first come, first served.

    One that asks our own API for another service may wait for a hook of that one, which waits for
    a place here. So that this never wedges, the first in the line starts beyond the limit whenever
    none has ended for `PATIENCE_S` seconds; and what has run for `OUTLAST_S` counts no more. HTTP
    calls and functions need no place.

    Args:
        limit: So many at a time; None: any number.
        timers: Tell when the line has stood still for too long.

    Attributes:
        running: How many run and count.
    """

    def __init__(self, limit: int | None, timers: TimerService) -> None:
        self._limit = limit
        self._line: dict[anyio.Event, None] = {}
        self._timers = timers
        self._standstill = timers.timer(self._relieve)
        self.running = 0

    @property
    def limit(self) -> int | None:
        """So many at a time; may be changed, and those that run go on."""
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self._limit = limit
        self._fill()

    @property
    def waiting(self) -> int:
        """How many stand in the line."""
        return len(self._line)

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold a place for as long as the block lasts."""
        if self._line or not self._has_room:
            await self._queue()
        else:
            self.running += 1
        outlast = self._timers.timer(self._leave)
        outlast.arm(OUTLAST_S)
        try:
            yield
        finally:
            if outlast.deadline is not None:  # else it has given its place on
                outlast.disarm()
                self._leave()

    @property
    def _has_room(self) -> bool:
        return self._limit is None or self.running < self._limit

    async def _queue(self) -> None:
        turn = anyio.Event()
        if not self._line:
            self._standstill.arm(PATIENCE_S)
        self._line[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # at this very moment
                self._leave()
            else:
                del self._line[turn]
            raise

    def _leave(self) -> None:
        self.running -= 1
        self._fill()

    def _fill(self) -> None:
        while self._line and self._has_room:
            self._admit()
        if self._line:
            self._standstill.arm(PATIENCE_S)
        else:
            self._standstill.disarm()

    def _admit(self) -> None:
        turn = next(iter(self._line))
        del self._line[turn]
        self.running += 1
        turn.set()

    def _relieve(self) -> None:
        if self._line:
            self._admit()
            self._standstill.arm(PATIENCE_S)


class HookRunner:
    """Runs hooks where the process lives, and HTTP calls through a client.

    Args:
        launcher: Runs the commands.
        http: Makes the HTTP calls; None: http actions fail with a clear text.
        command: The service's own command: hooks share its environment and directory.
        log: The service's log; each hook's output goes there.
        places: Where the commands of all services get a place to run in.
    """

    def __init__(
        self, launcher: Launcher, http: HttpClient | None, command: Command, log: LogRing,
        places: HookLimiter,
    ) -> None:  # fmt: skip
        self._launcher, self._http = launcher, http
        self._command, self._log = command, log
        self._places = places

    async def run(
        self, hooks: Sequence[Hook], context: HookContext, results: list[HookResult],
        haste: HookDeadline | None = None,
    ) -> bool:  # fmt: skip
        """Run *hooks* in order; whether the phase may go on.

        Args:
            hooks: Actions of one point.
            context: What they get to know.
            results: Each outcome is appended as soon as it is known, also when cancelled.
            haste: Cuts them short when somebody is in a hurry; None: nobody ever is.

        Returns:
            False as soon as one with ``on_error: fail`` has failed.
        """
        haste = haste or HookDeadline()
        for hook in hooks:
            result = await self._one(hook, context, results, haste)
            results.append(result)
            if result.outcome == "ok":
                continue
            if hook.on_error != "ignore":
                self._log.line(
                    f"[swapchart] {context.point} hook {result.outcome}: "
                    f"{result.action}: {result.detail}"
                )
            if hook.on_error == "fail":
                return False
        return True

    async def try_once(self, hook: Hook, context: HookContext, began: Callable[[], None]) -> str:
        """Do *hook* once, silently; returns its outcome. *began* is called when it starts."""
        async with self._place(hook):
            began()
            outcome, _ = await self._attempt(hook, context)
        return outcome

    def _place(self, hook: Hook) -> AbstractAsyncContextManager[None]:
        return self._places.hold() if isinstance(hook.action, RunAction) else nullcontext()

    async def _one(
        self, hook: Hook, context: HookContext, results: list[HookResult], haste: HookDeadline
    ) -> HookResult:
        began = anyio.current_time()
        attempts = started = 0
        outcome, detail = "failed", ""

        def result() -> HookResult:
            return HookResult(
                point=context.point, action=str(hook.action), outcome=outcome, detail=detail,
                seconds=anyio.current_time() - began, attempts=attempts,
            )  # fmt: skip

        try:
            with haste.scope():
                while True:
                    attempts += 1
                    async with self._place(hook):
                        started += 1
                        outcome, detail = await self._attempt(hook, context)
                    if outcome == "ok" or attempts > hook.retries:
                        return result()
                    await anyio.sleep(hook.delay_s)
            what = "killed" if started else "never started: others ran; given up"
            outcome = "timeout"
            detail = f"{what} after {haste.limit_s:g} s: somebody is in a hurry"
            return result()
        except anyio.get_cancelled_exc_class():
            outcome, detail = "cancelled", "the phase it belonged to ended"
            if not started:
                detail += " before it started: others ran"
            results.append(result())
            raise

    async def _attempt(self, hook: Hook, context: HookContext) -> tuple[str, str]:
        with anyio.move_on_after(hook.timeout_s):
            try:
                await self._act(hook, context)
            except _FailedError as error:
                return "failed", str(error)
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                return "failed", f"{type(error).__name__}: {error}"
            return "ok", ""
        return "timeout", f"killed after {hook.timeout_s:g} s"

    async def _act(self, hook: Hook, context: HookContext) -> None:
        match hook.action:
            case RunAction() as action:
                await self._run(action.with_pid(context.pid).argv, context)
            case HttpAction() as action:
                await self._call(action.with_pid(context.pid), hook.timeout_s)
            case CallAction(function=function):
                await function(context)

    async def _run(self, argv: tuple[str, ...], context: HookContext) -> None:
        command = Command(
            argv=argv,
            env={**self._command.env, **_variables(context)},
            cwd=self._command.cwd,
            label=self._command.label,
        )
        try:
            ended = await self._launcher.run(command, self._log)
        except LaunchError as error:
            raise _FailedError(str(error)) from error
        if not ended.is_clean:
            raise _FailedError(str(ended))

    async def _call(self, action: HttpAction, timeout_s: float) -> None:
        if self._http is None:
            raise _FailedError("http actions need an HTTP client, and this supervisor has none")
        call = action.call
        try:
            status, body = await self._http.call(call, timeout_s=timeout_s)
        except OSError as error:
            raise _FailedError(str(error)) from error
        expected = call.expect or range(200, 300)
        if status not in expected:
            text = body[:_LONGEST_BODY].decode("utf-8", "replace")
            raise _FailedError(f"status {status}: {text}")


def _variables(context: HookContext) -> dict[str, str]:
    port = urlsplit(context.endpoint).port
    return {
        "SWAPCHART_MODEL": context.service,
        "SWAPCHART_PORT": "" if port is None else str(port),
        "SWAPCHART_PID": "" if context.pid is None else str(context.pid),
        "SWAPCHART_HOOK": context.point,
        "SWAPCHART_REASON": context.reason,
        "SWAPCHART_EXIT": context.exit,
        "SWAPCHART_AFTER_HEALTHY": context.after_healthy,
        "SWAPCHART_INCARNATION": str(context.incarnation),
        "SWAPCHART_HOOK_ID": context.hook_id,
    }
