"""Fence: background tasks whose exceptions end neither other tasks nor the program.

In a task group, an exception of one task cancels all others. The exception of a background task
is logged instead, and a task that has to run forever is restarted after a pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
#: Seconds without a failure after which the next failure counts as the first one.
_STABLE_S = 60.0


class InnerCancelledError(Exception):
    """Something that a task awaited was cancelled, and not the task itself."""


def is_inner_cancellation() -> bool:
    """Return True if the cancellation being handled is that of an awaited task, not of this one.

    asyncio raises the same exception for both. On trio only a task's own scopes cancel it.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # trio
        return False
    return task is not None and not task.cancelling()


async def guarded(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Await *function*; the cancellation of something that it awaits becomes an error.

    Raises:
        InnerCancelledError: An awaited task was cancelled. Passed on, the cancellation would end
            the whole task group, silently.
    """
    try:
        return await function(*args)
    except anyio.get_cancelled_exc_class() as error:
        if is_inner_cancellation():
            raise InnerCancelledError("a task that it awaited was cancelled") from error
        raise


async def fenced(function: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Run *function* once; an exception is logged and not raised."""
    try:
        await guarded(function, *args)
    except Exception:
        log.exception("background task %s failed", _name(function))


async def kept(function: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Run *function* until it returns; restart it after an exception, with growing pauses.

    An exception is logged unless it is the same as the one before.
    """
    pause_s, logged = 0.0, ""
    while True:
        began = anyio.current_time()
        try:
            await guarded(function, *args)
        except Exception as error:
            if anyio.current_time() - began > _STABLE_S:
                pause_s, logged = 0.0, ""
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            text = f"{type(error).__name__}: {error}"
            if text != logged:
                logged = text
                name = _name(function)
                log.exception("background task %s failed; restarting it in %g s", name, pause_s)
        else:
            return
        await anyio.sleep(pause_s)


class Fence:
    """Starts tasks in a task group; an exception of one does not cancel the others.

    Args:
        tasks: The group.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run *function* once; see `fenced`."""
        self._tasks.start_soon(fenced, function, *args)

    def keep(self, function: Callable[..., Awaitable[object]], *args: Any) -> None:
        """Run *function* until it returns; see `kept`."""
        self._tasks.start_soon(kept, function, *args)


def _name(function: Callable[..., object]) -> str:
    function = getattr(function, "func", function)  # of a partial
    name, owner = getattr(function, "__qualname__", ""), getattr(function, "__self__", None)
    if not name and owner is not None:  # a method of a compiled class
        name = f"{type(owner).__qualname__}.{getattr(function, '__name__', '')}"
    return name or repr(function)
