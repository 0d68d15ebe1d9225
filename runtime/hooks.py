"""Hook runner: runs the actions of a hook point in order, with timeouts, retries and a limit.

`HookRunner` runs the hooks of one service, `HookLimiter` limits how many commands run at once over
all services, and `HookDeadline` shortens hooks that already run. `hook_actions` has the actions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace

import anyio

from ..dataclass import dataclass, field
from .hook_actions import HookContext, HookEnvironment, HookFailedError
from .log_ring import LogRing
from .spec import Hook
from .timers import TimerService

#: Seconds for which no slot may come free before a waiting command starts beyond the limit.
STANDSTILL_LIMIT_S = 10.0
_OUTPUT_BYTES = 2000  # of a hook, for its result
#: Seconds after which a running command frees its slot: it may run as long as its service.
LONG_RUNNING_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookResult:
    """Outcome of one action of a hook point.

    Attributes:
        point: The hook point.
        action: What was done, in words without arguments.
        outcome: ``ok``, ``failed``, ``timeout`` or ``cancelled``.
        detail: What went wrong, in words; empty after ``ok``.
        seconds: Duration, with all attempts and pauses.
        attempts: Number of attempts; >= 1.
        output: End of the output of all attempts; at most 2000 bytes of it.
        ended_at: When it ended, in seconds on the loop's clock; 0 if that is unknown.
    """

    point: str
    action: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0
    attempts: int = 1
    output: str = ""
    ended_at: float = field(default=0.0, compare=False)


class HookDeadline:
    """Deadline that shortens the hooks of one phase, including the one that runs.

    Attributes:
        limit_s: Seconds for each hook, with all attempts and pauses; None leaves it its own
            limits.
    """

    __slots__ = ("_scope", "limit_s")

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self._scope: anyio.CancelScope | None = None

    def expedite(self, limit_s: float) -> None:
        """Limit each hook to *limit_s* seconds from now on; the running one from this moment."""
        self.limit_s = limit_s
        if self._scope is not None:
            self._scope.deadline = min(self._scope.deadline, anyio.current_time() + limit_s)

    def scope(self) -> anyio.CancelScope:
        """Return the cancel scope of the next hook."""
        self._scope = anyio.move_on_after(self.limit_s)
        return self._scope


class HookLimiter:
    """Limits how many hook commands run at once, over all services; first come, first served.

    A command that requests another service from our own API may wait for a hook of that service,
    which waits for a slot here. To prevent this deadlock, the first command in the queue starts
    beyond the limit when no slot came free for `STANDSTILL_LIMIT_S`, and a command that has run
    for `LONG_RUNNING_S` frees its slot. Only actions with ``needs_slot`` are counted.

    Args:
        limit: Maximum number of commands at once; None means unlimited.
        timers: Measure how long the queue has not moved.

    Attributes:
        running: Number of commands that hold a slot.
    """

    def __init__(self, limit: int | None, timers: TimerService) -> None:
        self._limit = limit
        self._queue: dict[anyio.Event, None] = {}
        self._timers = timers
        self._standstill = timers.timer(self._admit_beyond_limit)
        self.running = 0

    @property
    def limit(self) -> int | None:
        """Maximum number of commands at once; a new value does not end those that run."""
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self._limit = limit
        self._admit_waiting()

    @property
    def waiting(self) -> int:
        """Number of commands in the queue."""
        return len(self._queue)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot for the duration of the block."""
        if self._queue or not self._has_room:
            await self._wait()
        else:
            self.running += 1
        long_running = self._timers.timer(self._release)
        long_running.arm(LONG_RUNNING_S)
        try:
            yield
        finally:
            if long_running.deadline is not None:  # else the slot was released by the timer
                long_running.disarm()
                self._release()

    @property
    def _has_room(self) -> bool:
        return self._limit is None or self.running < self._limit

    async def _wait(self) -> None:
        turn = anyio.Event()
        if not self._queue:
            self._standstill.arm(STANDSTILL_LIMIT_S)
        self._queue[turn] = None
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():  # admitted and canceled in the same turn of the loop
                self._release()
            else:
                del self._queue[turn]
            raise

    def _release(self) -> None:
        self.running -= 1
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._queue and self._has_room:
            self._admit()
        if self._queue:
            self._standstill.arm(STANDSTILL_LIMIT_S)
        else:
            self._standstill.disarm()

    def _admit(self) -> None:
        turn = next(iter(self._queue))
        del self._queue[turn]
        self.running += 1
        turn.set()

    def _admit_beyond_limit(self) -> None:
        if self._queue:
            self._admit()
            self._standstill.arm(STANDSTILL_LIMIT_S)


class HookRunner:
    """Runs the hooks of one service.

    Args:
        environment: What actions may use.
        limiter: Gives the commands of all services their slots.
    """

    def __init__(self, environment: HookEnvironment, limiter: HookLimiter) -> None:
        self._environment, self._limiter = environment, limiter

    async def run(
        self, hooks: Sequence[Hook], context: HookContext, results: list[HookResult],
        deadline: HookDeadline | None = None,
    ) -> bool:  # fmt: skip
        """Run *hooks* in order and return whether the phase may continue.

        Args:
            hooks: Actions of one point.
            context: Facts that each action receives.
            results: Receives each outcome as soon as it is known, also on cancellation.
            deadline: Shortens the hooks when the phase must end; None leaves them their limits.

        Returns:
            False as soon as one with ``on_error: fail`` has failed.
        """
        deadline = deadline or HookDeadline()
        for hook in hooks:
            result = await self._run_hook(hook, context, results, deadline)
            results.append(result)
            if result.outcome == "ok":
                continue
            if hook.on_error != "ignore":
                self._environment.log.line(
                    f"[swapchart] {context.point} hook {result.outcome}: "
                    f"{result.action}: {result.detail}"
                )
            if hook.on_error == "fail":
                return False
        return True

    async def try_once(self, hook: Hook, context: HookContext, began: Callable[[], None]) -> str:
        """Run *hook* once without logging and return its outcome.

        Args:
            hook: The hook.
            context: Facts that the action receives.
            began: Called when the action starts, after any wait for a slot.
        """
        environment, log = self._recording()
        try:
            async with self._slot(hook):
                began()
                outcome, _ = await self._attempt(hook, context, environment)
        finally:
            _ended(log)
        return outcome

    def _recording(self) -> tuple[HookEnvironment, LogRing]:
        """Return the environment of one hook, and the log that keeps the end of its output."""
        log = LogRing(_OUTPUT_BYTES, forward=self._environment.log)
        return replace(self._environment, log=log), log

    def _slot(self, hook: Hook) -> AbstractAsyncContextManager[None]:
        return self._limiter.slot() if hook.action.needs_slot else nullcontext()

    async def _run_hook(
        self, hook: Hook, context: HookContext, results: list[HookResult], deadline: HookDeadline
    ) -> HookResult:
        began = anyio.current_time()
        attempts = started = 0
        outcome, detail = "failed", ""
        environment, log = self._recording()

        def result() -> HookResult:
            now = anyio.current_time()
            return HookResult(
                point=context.point, action=str(hook.action), outcome=outcome, detail=detail,
                seconds=now - began, attempts=attempts, output=_ended(log), ended_at=now,
            )  # fmt: skip

        try:
            with deadline.scope():
                while True:
                    attempts += 1
                    async with self._slot(hook):
                        started += 1
                        outcome, detail = await self._attempt(hook, context, environment)
                    if outcome == "ok" or attempts > hook.retries:
                        return result()
                    await anyio.sleep(hook.delay_s)
            what = "killed" if started else "never started, no free hook slot; given up"
            outcome = "timeout"
            detail = f"{what} after {deadline.limit_s:g} s: a kill was requested"
            return result()
        except anyio.get_cancelled_exc_class():
            outcome, detail = "cancelled", "the phase it belonged to ended"
            if not started:
                detail += " while it waited for a free hook slot"
            results.append(result())
            raise

    async def _attempt(
        self, hook: Hook, context: HookContext, environment: HookEnvironment
    ) -> tuple[str, str]:
        with anyio.move_on_after(hook.timeout_s):
            try:
                await hook.action.perform(context, environment, hook.timeout_s)
            except HookFailedError as error:
                is_late = isinstance(error.__cause__, TimeoutError)  # of an HTTP client: same limit
                return "timeout" if is_late else "failed", str(error)
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                return "failed", f"{type(error).__name__}: {error}"
            return "ok", ""
        return "timeout", f"killed after {hook.timeout_s:g} s"


def _ended(log: LogRing) -> str:
    """End the last line in *log*, so that the next output begins a line; return what it keeps."""
    output = log.history()
    if output and not output.endswith(b"\n"):
        log.write(b"\n")
    return output.decode("utf-8", "replace").strip("\n")
