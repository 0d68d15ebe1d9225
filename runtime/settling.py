"""Settling: the wait after a stop until the resources of a service are free."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import anyio

from .activity import Activity, Body
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
        if state.spec.settle is None or self._variable("hurried"):
            self._post("settled", source=activity)
            return None
        return partial(self._settle, activity, state.spec.settle)

    async def _settle(self, activity: Activity, hook: Hook) -> None:
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
        self._post("settled", source=activity)
