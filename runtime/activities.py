"""Activities of a lifecycle: launching, probing, hooks, terminating, sweeping, settling.

Each activity is a coroutine that ends by posting an event. The chart decides what the event
means; no decision is made here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import anyio

from .activity import Activity, Body
from .adoption import RunFacts
from .errors import LaunchError, PlacementError
from .hooks import HookDeadline
from .liveness import LivenessWatch
from .pid_placeholder import fill_pid
from .ports import Exit, Probe, ProcessHandle
from .probe_schedule import ProbeSchedule
from .service_state import Post, ServiceState
from .settling import Settling
from .spec import Hook, ServiceSpec

log = logging.getLogger(__name__)


class Activities:
    """The activities of one lifecycle.

    Args:
        state: Facts of the service.
        post: Takes the events by which activities end.
        variable: Returns one variable of the chart.
        apply_spec: Makes a specification that of the service.
        health_failed: Event of a health check that cannot succeed; empty if the chart has none.

    Attributes:
        liveness: Watches whether the ready service still works.
    """

    __slots__ = (
        "_apply_spec", "_has_begun", "_health_failed", "_hook_deadline", "_is_sweeping", "_post",
        "_probing", "_settling", "_state", "_variable", "liveness",
    )  # fmt: skip

    def __init__(
        self, state: ServiceState, post: Post, variable: Callable[[str], object],
        apply_spec: Callable[[ServiceSpec], None], health_failed: str,
    ) -> None:  # fmt: skip
        self._state, self._post = state, post
        self._variable, self._apply_spec = variable, apply_spec
        self._health_failed = health_failed
        self._is_sweeping = False
        self._hook_deadline = HookDeadline()
        self._settling = Settling(state, post, variable)
        self._has_begun = False
        self._probing: anyio.CancelScope | None = None
        self.liveness = LivenessWatch(state, post)

    def body(self, activity: Activity, name: str, point: str) -> Body | None:
        """Return what to run for activity *name*, or None if there is nothing to wait for.

        In the second case its event, if it has one, is already posted.
        """
        match name:
            case "spawn":
                if not self._has_begun:
                    self._begin_incarnation()
                self._has_begun = False
                return partial(self._spawn, activity)
            case "health":
                return self._health_body(activity)
            case "hooks":
                if point == "beforeStart":
                    self._begin_incarnation()
                return self._hooks_body(activity, point)
            case "announce":
                hooks = self._state.spec.hooks.get(point, ())
                return partial(self._announce, hooks, point) if hooks else None
            case "liveness":
                return self.liveness.body(activity)
            case "terminate":
                return self._terminate_body()
            case "sweep":
                return partial(self._sweep, activity)
            case "settle":
                return self._settling.body(activity)
        log.error("%s: unknown activity %r", self._state.spec.name, name)
        return None

    def expedite(self) -> None:
        """Shorten the running activities if a kill was requested."""
        state = self._state
        if not self._variable("hurried"):
            return
        self._hook_deadline.expedite(state.spec.timings.hurry)
        self._settling.expedite()
        if self._is_sweeping and state.process is not None:
            state.process.kill()

    def notified(self, name: str) -> None:
        """Log a ``notify`` effect of a custom chart."""
        log.info("%s: %s", self._state.spec.name, name)

    # ---- launching
    def _begin_incarnation(self) -> None:
        state = self._state
        if state.next_spec is not None:
            self._apply_spec(state.next_spec)
        state.incarnation += 1
        state.place = None
        state.locate(None)
        state.start_error = None
        state.log_start_bytes = state.log.total_bytes
        state.log.begin_section(state.incarnation)
        state.launched_at = None
        state.after_healthy = "none"
        state.last_exit = state.memory_failure = None
        state.terminated_at = None
        self._has_begun = True

    async def _spawn(self, activity: Activity) -> None:
        state = self._state
        command = state.placed()
        state.runtime.memory.read_output(state.spec.name, state.log)
        try:
            with anyio.CancelScope(shield=True):
                process = await state.runtime.launcher.start(command, state.log)
        except LaunchError as error:
            self._end_output()
            state.start_error = error
            if isinstance(error, PlacementError):
                state.runtime.memory.plan_anew(state.spec.name)
            self._post(
                "spawn_failed", {"permanent": error.permanent}, source=activity, cause=str(error)
            )
            return
        state.process = process
        state.locate(process)
        state.launched_at = state.runtime.timers.now()
        state.runtime.tasks.keep(self._reap, process)
        cause = f"pid {process.pid}" if process.pid else "external server"
        if state.location is not None:
            cause = f"{cause}, node {state.node}" if state.node else cause
        self._post("spawned", source=activity, cause=cause)

    def adopt(self, process: ProcessHandle, facts: RunFacts) -> None:
        """Take *process* for the one of the service, and report its end as that of any other."""
        self._state.take_over(process, facts)
        self._state.runtime.tasks.keep(self._reap, process)

    def _end_output(self) -> None:
        state = self._state
        state.runtime.memory.end_output(state.spec.name, state.incarnation, state.log)

    async def _reap(self, process: ProcessHandle) -> None:
        state = self._state
        ended = await process.wait()
        if state.process is process:  # else it belongs to an earlier incarnation
            self._end_output()
            state.last_exit = ended
            if ended.is_lost and not ended.certain:
                state.runtime.nodes.note_lost(state.spec.name, state.node)
            if ended.is_lost:
                state.is_unreachable = True  # hooks on its node are not waited for
                state.runtime.memory.plan_anew(state.spec.name)
            cause = str(ended)
            if self._ran_out_of_memory(ended) and not ended.out_of_memory:
                cause = f"out of memory, {cause}"
            self._post("proc_exited", {"abnormal": not ended.is_clean}, cause=cause)

    def _ran_out_of_memory(self, ended: Exit) -> bool:
        state = self._state
        now, began = state.runtime.timers.now(), state.launched_at
        state.memory_failure = state.runtime.memory.examine(
            state.spec.name, ended, partial(state.log.tail, since_bytes=state.log_start_bytes),
            now=now, ran_s=None if began is None else now - began,
        )  # fmt: skip
        return state.memory_failure is not None

    # ---- readiness
    def _health_body(self, activity: Activity) -> Body | None:
        state = self._state
        state.probe_detail = ""
        if state.spec.check_url is None:
            self._end_output()
            self._post("healthy", source=activity, cause="no check configured")
            return None
        return partial(self._health, activity, state.url(state.spec.check_url))

    async def _health(self, activity: Activity, url: str) -> None:
        await self._probe_until_ok(activity, url)
        self._end_output()
        self._post("healthy", source=activity, cause="the health check passed")

    async def _probe_until_ok(self, activity: Activity, url: str) -> None:
        state = self._state
        now = state.runtime.timers.now
        schedule = ProbeSchedule(now(), state.spec.timings.probe)
        moved_up = anyio.Event()

        def on_output() -> None:
            if schedule.output(now()):
                moved_up.set()
            if self._probing is not None:
                self._probing.deadline = schedule.ends

        state.log.watch(on_output)
        try:
            while not await self._probe_is_ok(activity, url, schedule):
                while now() < schedule.due:
                    moved_up = anyio.Event()
                    with anyio.CancelScope(deadline=schedule.due):
                        await moved_up.wait()
        finally:
            state.log.unwatch(on_output)

    async def _probe_is_ok(self, activity: Activity, url: str, schedule: ProbeSchedule) -> bool:
        state = self._state
        now, process = state.runtime.timers.now, state.process
        schedule.sent(now())
        if process is not None:
            probe = Probe(is_ok=False, detail="timeout")
            sent_at = now()
            with anyio.CancelScope(deadline=schedule.ends) as self._probing:
                probe = await process.probe(url, timeout_s=schedule.ends - sent_at)
            self._probing = None
            if probe.is_ok:
                self.liveness.check_s = now() - sent_at
                return True
            state.probe_detail = probe.detail
            if probe.is_final:  # further probes cannot succeed
                self._post(self._health_failed, source=activity, cause=probe.detail)
        schedule.failed(now())
        return False

    # ---- hooks
    def _hooks_body(self, activity: Activity, point: str) -> Body | None:
        hooks = self._state.spec.hooks.get(point, ())
        if point == "wake":
            return partial(self._wake, activity, hooks)
        if not hooks and not activity.is_preceded:
            self._post("hooks_done", source=activity)
            return None
        return partial(self._hooks, activity, hooks, point)

    async def _hooks(self, activity: Activity, hooks: tuple[Hook, ...], point: str) -> None:
        state = self._state
        if point == "afterHealthy" and hooks:
            state.after_healthy = "interrupted"
        has_passed = await self._run_hooks(hooks, point)
        if point == "afterHealthy" and hooks:
            own = (result for result in state.hook_results if result.point == point)
            are_all_ok = all(result.outcome == "ok" for result in own)
            state.after_healthy = "completed" if are_all_ok else "failed"
        if has_passed:
            self._post("hooks_done", source=activity)
        else:
            failed = state.hook_results[-1]
            cause = f"{point} hook {failed.outcome}: {failed.action}: {failed.detail}"
            self._post("hooks_failed", source=activity, cause=cause)

    async def _run_hooks(self, hooks: tuple[Hook, ...], point: str) -> bool:
        state = self._state
        is_hurried = self._variable("hurried") or state.is_unreachable
        limit_s = state.spec.timings.hurry if is_hurried else None
        deadline = self._hook_deadline = HookDeadline(limit_s)
        if state.place is None:
            state.placed()
        return await state.hooks.run(hooks, state.context(point), state.hook_results, deadline)

    async def _announce(self, hooks: tuple[Hook, ...], point: str) -> None:
        state = self._state
        await state.hooks.run(hooks, state.context(point), state.hook_results)

    async def _wake(self, activity: Activity, hooks: tuple[Hook, ...]) -> None:
        if not await self._run_hooks(hooks, "wake"):
            self._post("hooks_failed", source=activity, cause="the wake hooks failed")
            return
        if self._state.spec.check_url is not None:
            url = self._state.url(self._state.spec.check_url)
            await self._probe_until_ok(activity, url)
        self._post("hooks_done", source=activity, cause="awake")

    # ---- ending
    def _terminate_body(self) -> Body | None:
        state = self._state
        state.terminated_at = state.runtime.timers.now()
        if state.process is None:
            return None
        if not state.spec.stop_argv:
            if state.spec.command.is_external:  # the server runs on, so its end is not waited for
                state.process.kill()
            else:
                state.process.terminate()
            return None
        return partial(self._stop_command, state.process)

    async def _stop_command(self, process: ProcessHandle) -> None:
        state = self._state
        is_external = state.spec.command.is_external
        argv = tuple(fill_pid(item, process.pid or None) for item in state.spec.stop_argv)
        command = state.helper(argv)
        try:
            ended = await state.runtime.launcher.run(command, state.log)
        except Exception as error:
            problem = str(error)
            if not isinstance(error, LaunchError):
                log.exception("%s: cmdStop raised an exception", state.spec.name)
        else:
            problem = "" if ended.is_clean else str(ended)
        if problem:
            then = "the server may still run" if is_external else "sending SIGTERM"
            state.log.line(f"[swapchart] cmdStop failed ({problem}): {then}")
        if problem or is_external:
            process.terminate()

    async def _sweep(self, activity: Activity) -> None:
        state = self._state
        process = state.process
        if process is not None:
            grace = state.spec.timings.grace
            left = 0.0
            if state.terminated_at is not None and grace is not None:
                left = max(state.terminated_at + grace - state.runtime.timers.now(), 0.0)
            self._is_sweeping = True
            try:
                with anyio.CancelScope(shield=True):
                    killed = await process.sweep(left)
            finally:
                self._is_sweeping = False
            if killed:
                state.log.line(f"[swapchart] killed {killed} processes that outlived the leader")
            self._end_output()
            state.process = None
        self._post("swept", source=activity)
