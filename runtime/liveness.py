"""Liveness: whether a ready service still works, by probes and by what requests report."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import anyio

from .activity import Activity, Body
from .ports import NodeProcess
from .service_state import Post, ServiceState


class LivenessWatch:
    """Watches the ready service of one lifecycle.

    Args:
        state: Facts of the service.
        post: Takes the event ``unhealthy``.

    Attributes:
        check_s: How long the readiness probe took that passed; seconds.
        stall: Set when a response of the service has stalled, or has not begun in time.
        stall_cause: Reason for that, in words.
    """

    __slots__ = ("_is_examining", "_post", "_state", "check_s", "stall", "stall_cause")

    def __init__(self, state: ServiceState, post: Post) -> None:
        self._state, self._post = state, post
        self._is_examining = False
        self.check_s = 0.0
        self.stall = anyio.Event()
        self.stall_cause = ""

    def body(self, activity: Activity) -> Body | None:
        """Return what to run in the background; None if there is nothing to watch."""
        if self._state.spec.liveness is not None:
            return partial(self._liveness, activity)
        # A process elsewhere is unhealthy if neither a request nor its launcher reaches it.
        return None if self._state.location is None else partial(self._until_unreachable, activity)

    async def _until_unreachable(self, activity: Activity) -> None:
        while not self._state.is_unreachable:
            self.stall = anyio.Event()
            await self.stall.wait()
        self._post("unhealthy", source=activity, cause=self.stall_cause)

    def note_stall(self, cause: str) -> None:
        """Take the ready service for unhealthy because of *cause*."""
        self.stall_cause = cause
        self.stall.set()

    async def examine(self, cause: str) -> None:
        """Ask the launcher for a process that a request did not reach; it may be unhealthy then.

        Args:
            cause: Why the request failed, in words.
        """
        state = self._state
        process = state.process
        if not isinstance(process, NodeProcess) or self._is_examining:
            return
        self._is_examining = True
        try:
            presence = await process.presence()
        finally:
            self._is_examining = False
        if presence == "unknown" and state.process is process:
            state.is_unreachable = True
            self.note_stall(f"its node cannot be reached: {cause}")

    async def _liveness(self, activity: Activity) -> None:
        state = self._state
        liveness = state.spec.liveness
        assert liveness is not None, "checked by body()"
        failures = 0
        self.stall = anyio.Event()
        while failures < liveness.failures:
            with anyio.move_on_after(liveness.every_s):
                await self.stall.wait()
                self._post("unhealthy", source=activity, cause=self.stall_cause)
                return
            detail = await self._probe_once()
            failures = failures + 1 if detail else 0
        cause = f"{failures} liveness probes failed in a row; the last: {detail}"
        self._post("unhealthy", source=activity, cause=cause)

    async def _probe_once(self) -> str:
        state = self._state
        liveness, process = state.spec.liveness, state.process
        assert liveness is not None, "checked by body()"
        if process is None:
            return "no process"
        if liveness.request is None or state.runtime.http is None:
            is_same, url = liveness.url == state.spec.check_url, state.url(liveness.url)
            limit_s = max(liveness.timeout_s, 2 * self.check_s if is_same else 0.0)
            probe = await process.probe(url, timeout_s=limit_s)
            return "" if probe.is_ok else probe.detail
        try:
            request = replace(liveness.request, url=state.url(liveness.request.url))
            status, _ = await state.runtime.http.call(request, timeout_s=liveness.timeout_s)
        except OSError as error:
            return str(error)
        return "" if status in (liveness.request.expect or range(200, 300)) else f"status {status}"
