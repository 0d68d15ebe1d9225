"""Settling: the wait after a stop until the resources of a service are free."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import anyio

from .activity import Activity, Body
from .memory import size
from .service_state import Post, ServiceState
from .spec import Hook

_PAUSE_S = 0.1


class Settling:
    """The settling of one lifecycle.

    Args:
        state: Facts of the service.
        post: Takes the event by which it ends.
        variable: Returns one variable of the chart.
    """

    __slots__ = ("_post", "_scope", "_state", "_variable")

    def __init__(self, state: ServiceState, post: Post, variable: Callable[[str], object]) -> None:
        self._state, self._post, self._variable = state, post, variable
        self._scope: anyio.CancelScope | None = None

    def expedite(self) -> None:
        """End the wait, since a kill was requested."""
        if self._scope is not None:
            self._scope.cancel()

    def body(self, activity: Activity) -> Body | None:
        """Return what to run; None if there is nothing to wait for, and the event is posted."""
        state = self._state
        memory, name = state.runtime.memory, state.spec.name
        has_to_wait = state.spec.settle is not None or self._has_to_wait_for_memory()
        if not has_to_wait or self._variable("hurried"):
            memory.conclude(name, state.incarnation)
            self._post("settled", source=activity)
            return None
        return partial(self._settle, activity)

    async def _settle(self, activity: Activity) -> None:
        if self._state.spec.settle is not None:
            await self._run_hook(self._state.spec.settle)
        state = self._state
        if self._has_to_wait_for_memory() and not self._variable("hurried"):
            await self._wait_for_memory()
        else:
            state.runtime.memory.conclude(state.spec.name, state.incarnation)
        self._post("settled", source=activity)

    def _has_to_wait_for_memory(self) -> bool:
        """Return True if memory may have to come back; nothing starts after a shutdown."""
        state = self._state
        return state.end_limit_s is None and state.runtime.memory.has_to_settle(
            state.spec.name, state.incarnation
        )

    async def _run_hook(self, hook: Hook) -> None:
        state = self._state
        seconds = state.spec.timings.settle
        is_free = False

        def began() -> None:  # its time does not include the wait for a slot
            if scope.deadline == math.inf:
                scope.deadline = anyio.current_time() + seconds

        with anyio.CancelScope() as scope:
            self._scope = scope
            while not is_free:
                outcome = await state.hooks.try_once(hook, state.context("settle"), began)
                is_free = outcome == "ok"
                if not is_free:
                    await anyio.sleep(_PAUSE_S)
        self._scope = None
        if not is_free:
            state.log.line(f"[swapchart] resources not free after {seconds:g} s: continuing")

    async def _wait_for_memory(self) -> None:
        state = self._state
        memory, name = state.runtime.memory, state.spec.name
        seconds = state.spec.timings.settle
        with anyio.move_on_after(seconds) as self._scope:
            await memory.settle(name, state.incarnation)
        self._scope = None
        missing = memory.conclude(name, state.incarnation)
        if missing:
            amounts = ", ".join(f"{size(missing[pool])} of {pool}" for pool in sorted(missing))
            state.log.line(
                f"[swapchart] memory not free after {seconds:g} s: {amounts} counts as held by"
                " other programs"
            )
