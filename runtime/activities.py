"""What takes time in a life: launching, probing, hooks, terminating, sweeping, settling.

Each activity is a coroutine that ends by posting its answer. The chart decides what the answer
means; nothing here decides anything.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio

from .errors import LaunchError
from .hooks import Haste
from .pace import ProbePace
from .ports import Command, ProcessHandle
from .spec import Hook

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

log = logging.getLogger(__name__)

_SETTLE_PAUSE_S = 0.1

Body = Callable[[], Awaitable[None]]


class Activity:
    """One activity: cancelled at most once, and its answers are dropped from then on.

    Attributes:
        name: Such as ``hooks``.
        is_preceded: An earlier one of that name has not ended yet, and must before this begins.
        is_dead: It was cancelled.
        ended: Set at the end of its task; None while it has none, as for an answer at once.
    """

    __slots__ = ("_scope", "ended", "is_dead", "is_preceded", "name")

    def __init__(self, name: str, *, is_preceded: bool) -> None:
        self.name, self.is_preceded = name, is_preceded
        self.is_dead = False
        self.ended: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    @property
    def is_running(self) -> bool:
        """Tell whether its task has not ended, cancelled or not."""
        return self.ended is not None and not self.ended.is_set()

    def begin(self) -> None:
        """Note that a task is about to run it."""
        self.ended = anyio.Event()

    async def live(self, previous: Activity | None, body: Body) -> None:
        """Run *body* once *previous* has ended, its cleanup included."""
        if previous is not None and previous.ended is not None:
            await previous.ended.wait()  # outside the scope: who follows us waits for it too
        if self.is_dead:
            return
        with anyio.CancelScope() as self._scope:
            await body()

    def cancel(self) -> None:
        """Cancel it; a no-op when it has ended."""
        self.is_dead = True
        if self._scope is not None:
            self._scope.cancel()


class Activities:
    """The activities of one lifecycle."""

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._haste = Haste()
        self._settling: anyio.CancelScope | None = None
        self._is_begun = False
        self.stall = anyio.Event()

    def body(self, activity: Activity, name: str, point: str) -> Body | None:
        """Return what to run for activity *name*, or None when there is nothing to wait for.

        In that case its answer, if it has one, was posted already.
        """
        match name:
            case "spawn":
                if not self._is_begun:
                    self._begin_incarnation()
                self._is_begun = False
                return partial(self._spawn, activity)
            case "health":
                return self._health_body(activity)
            case "hooks":
                if point == "beforeStart":
                    self._begin_incarnation()
                return self._hooks_body(activity, point)
            case "announce":
                hooks = self._life.spec.hooks.get(point, ())
                return partial(self._announce, hooks, point) if hooks else None
            case "liveness":
                return partial(self._liveness, activity) if self._life.spec.liveness else None
            case "terminate":
                return self._terminate_body()
            case "sweep":
                return partial(self._sweep, activity)
            case "settle":
                return self._settle_body(activity)
        log.error("%s: unknown activity %r", self._life.spec.name, name)
        return None

    def hurry(self) -> None:
        """Cut short what runs, if the chart says that somebody asked to kill."""
        life = self._life
        if not life.datum("hurried"):
            return
        self._haste.hurry(life.spec.timings.hurry)
        if self._settling is not None:
            self._settling.cancel()
        if life.is_running("sweep") and life.process is not None:
            life.process.kill()

    def notified(self, name: str) -> None:
        """Take a ``notify`` effect of a user's own chart."""
        log.info("%s: %s", self._life.spec.name, name)

    def why_fired(self, timer: str) -> str:
        """Say in words why the event of *timer* comes."""
        life = self._life
        seconds = life.world.timers.now() - life.since
        match timer:
            case "start_limit" | "stall_limit":
                probe = f"; last probe: {life.probe_detail}" if life.probe_detail else ""
                what = "not healthy" if timer == "start_limit" else "no output and not healthy"
                return f"{what} after {seconds:.1f} s{probe}"
            case "idle_limit" | "asleep_limit":
                return "idle for too long"
            case "doze_limit":
                return "idle: sleep"
        return ""

    # ---- launching
    def _begin_incarnation(self) -> None:
        life = self._life
        if life.next_spec is not None:
            life.adopt(life.next_spec)
        life.incarnation += 1
        life.after_healthy = "none"
        life.last_exit = None
        life.terminated_at = None
        self._is_begun = True

    async def _spawn(self, activity: Activity) -> None:
        life = self._life
        try:
            with anyio.CancelScope(shield=True):
                process = await life.world.launcher.start(life.spec.command, life.log)
        except LaunchError as error:
            life.post(
                "spawn_failed", {"permanent": error.permanent}, source=activity, cause=str(error)
            )
            return
        life.process = process
        life.world.tasks.keep(self._reap, process)
        life.post("spawned", source=activity, cause=f"pid {process.pid}")

    async def _reap(self, process: ProcessHandle) -> None:
        life = self._life
        ended = await process.wait()
        if life.process is process:  # else an earlier incarnation: nobody waits for that any more
            life.last_exit = ended
            life.post("proc_exited", {"abnormal": not ended.is_clean}, cause=str(ended))

    # ---- readiness and liveness
    def _health_body(self, activity: Activity) -> Body | None:
        life = self._life
        life.probe_detail = ""
        if life.spec.check_url is None:
            life.post("healthy", source=activity, cause="no check configured")
            return None
        return partial(self._health, activity, life.spec.check_url)

    async def _health(self, activity: Activity, url: str) -> None:
        await self._probe_until_ok(activity, url)
        self._life.post("healthy", source=activity, cause="the health check passed")

    async def _probe_until_ok(self, activity: Activity, url: str) -> None:
        life = self._life
        now = life.world.timers.now
        pace = ProbePace(now())
        heard = anyio.Event()

        def hear() -> None:
            if pace.hear(now()):
                heard.set()

        life.log.watch(hear)
        try:
            while not await self._probe_in_time(activity, url, pace):
                while now() < pace.due:
                    heard = anyio.Event()
                    with anyio.CancelScope(deadline=pace.due):
                        await heard.wait()
        finally:
            life.log.unwatch(hear)

    async def _probe_in_time(self, activity: Activity, url: str, pace: ProbePace) -> bool:
        life = self._life
        now, process = life.world.timers.now, life.process
        pace.ask(now())
        if process is not None:
            probe = await process.probe(url, timeout_s=life.spec.timings.probe)
            if probe.is_ok:
                return True
            life.probe_detail = probe.detail
            if probe.is_final:  # the time that is left cannot help
                life.post("start_expired", source=activity, cause=probe.detail)
        pace.answer(now())
        return False

    async def _liveness(self, activity: Activity) -> None:
        life = self._life
        liveness = life.spec.liveness
        assert liveness is not None, "checked by body()"
        failures = 0
        self.stall = anyio.Event()
        while failures < liveness.failures:
            with anyio.move_on_after(liveness.every_s):
                await self.stall.wait()
                life.post("unhealthy", source=activity, cause="a stream has stalled")
                return
            detail = await self._probe_once()
            failures = failures + 1 if detail else 0
        cause = f"{failures} liveness probes failed in a row; the last: {detail}"
        life.post("unhealthy", source=activity, cause=cause)

    async def _probe_once(self) -> str:
        life = self._life
        liveness, process = life.spec.liveness, life.process
        assert liveness is not None, "checked by body()"
        if process is None:
            return "no process"
        if liveness.request is None or life.world.http is None:
            probe = await process.probe(liveness.url, timeout_s=liveness.timeout_s)
            return "" if probe.is_ok else probe.detail
        try:
            status, _ = await life.world.http.call(liveness.request, timeout_s=liveness.timeout_s)
        except OSError as error:
            return str(error)
        return "" if status in (liveness.request.expect or range(200, 300)) else f"status {status}"

    # ---- hooks
    def _hooks_body(self, activity: Activity, point: str) -> Body | None:
        hooks = self._life.spec.hooks.get(point, ())
        if point == "wake":
            return partial(self._wake, activity, hooks)
        if not hooks and not activity.is_preceded:
            self._life.post("hooks_done", source=activity)
            return None
        return partial(self._hooks, activity, hooks, point)

    async def _hooks(self, activity: Activity, hooks: tuple[Hook, ...], point: str) -> None:
        life = self._life
        if point == "afterHealthy" and hooks:
            life.after_healthy = "interrupted"
        is_fine = await self._run_hooks(hooks, point)
        if point == "afterHealthy" and hooks:
            all_ok = all(result.outcome == "ok" for result in life.hook_results)
            life.after_healthy = "completed" if all_ok else "failed"
        if is_fine:
            life.post("hooks_done", source=activity)
        else:
            failed = life.hook_results[-1]
            cause = f"{point} hook {failed.outcome}: {failed.action}: {failed.detail}"
            life.post("hooks_failed", source=activity, cause=cause)

    async def _run_hooks(self, hooks: tuple[Hook, ...], point: str) -> bool:
        life = self._life
        self._haste = Haste(life.spec.timings.hurry if life.datum("hurried") else None)
        return await life.hooks.run(hooks, life.context(point), life.hook_results, self._haste)

    async def _announce(self, hooks: tuple[Hook, ...], point: str) -> None:
        life = self._life
        await life.hooks.run(hooks, life.context(point), life.hook_results)

    async def _wake(self, activity: Activity, hooks: tuple[Hook, ...]) -> None:
        if not await self._run_hooks(hooks, "wake"):
            self._life.post("hooks_failed", source=activity, cause="the wake hooks failed")
            return
        if self._life.spec.check_url is not None:
            await self._probe_until_ok(activity, self._life.spec.check_url)
        self._life.post("hooks_done", source=activity, cause="awake")

    # ---- ending
    def _terminate_body(self) -> Body | None:
        life = self._life
        life.terminated_at = life.world.timers.now()
        if life.process is None:
            return None
        if not life.spec.stop_argv:
            life.process.terminate()
            return None
        return partial(self._stop_command, life.process)

    async def _stop_command(self, process: ProcessHandle) -> None:
        life = self._life
        argv = tuple(item.replace("${PID}", str(process.pid)) for item in life.spec.stop_argv)
        command = Command(
            argv=argv, env=life.spec.command.env, cwd=life.spec.command.cwd,
            label=life.spec.command.label,
        )  # fmt: skip
        try:
            ended = await life.world.launcher.run(command, life.log)
        except Exception as error:
            problem = str(error)
            if not isinstance(error, LaunchError):
                log.exception("%s: cmdStop", life.spec.name)
        else:
            if ended.is_clean:
                return
            problem = str(ended)
        life.log.line(f"[swapchart] cmdStop failed ({problem}): sending SIGTERM")
        process.terminate()

    async def _sweep(self, activity: Activity) -> None:
        life = self._life
        process = life.process
        if process is not None:
            grace = life.spec.timings.grace
            left = 0.0
            if life.terminated_at is not None and grace is not None:
                left = max(life.terminated_at + grace - life.world.timers.now(), 0.0)
            with anyio.CancelScope(shield=True):
                killed = await process.sweep(left)
            if killed:
                life.log.line(f"[swapchart] killed {killed} processes that were left behind")
            life.process = None
        life.post("swept", source=activity)

    def _settle_body(self, activity: Activity) -> Body | None:
        life = self._life
        if life.spec.settle is None or life.datum("hurried"):
            life.post("settled", source=activity)
            return None
        return partial(self._settle, activity, life.spec.settle)

    async def _settle(self, activity: Activity, hook: Hook) -> None:
        life = self._life
        seconds = life.spec.timings.settle
        is_free = False

        def began() -> None:  # its time begins with the first look: it may have waited for a place
            if scope.deadline == math.inf:
                scope.deadline = anyio.current_time() + seconds

        with anyio.CancelScope() as scope:
            self._settling = scope
            while not is_free:
                outcome = await life.hooks.try_once(hook, life.context("settle"), began)
                is_free = outcome == "ok"
                if not is_free:
                    await anyio.sleep(_SETTLE_PAUSE_S)
        self._settling = None
        if not is_free:
            life.log.line(f"[swapchart] resources not seen free within {seconds:g} s: going on")
        life.post("settled", source=activity)
