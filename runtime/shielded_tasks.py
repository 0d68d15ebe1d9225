"""Shielded task group: its tasks run until their owner closes it, despite a cancellation."""

from __future__ import annotations

import sys

import anyio
from anyio.abc import TaskGroup, TaskStatus

from .fence import Fence, kept


class ShieldedTasks:
    """A task group that is not cancelled with the block it is opened in; `close` ends it.

    An exception in one of its tasks is logged; see `Fence`. A ``BaseException`` such as
    ``SystemExit`` ends all tasks and cancels that block.
    """

    def __init__(self) -> None:
        self._outer = anyio.create_task_group()
        self._over = anyio.Event()
        self._tasks: TaskGroup | None = None

    async def open(self) -> Fence:
        """Open the group and return the fence that starts its tasks."""
        await self._outer.__aenter__()
        try:
            self._tasks = await self._outer.start(self._keep)
        except BaseException:
            self._over.set()
            await self._outer.__aexit__(*sys.exc_info())
            raise
        return Fence(self._tasks)

    async def close(self) -> None:
        """Cancel the remaining tasks and wait for them."""
        self._over.set()
        await self._outer.__aexit__(None, None, None)

    @property
    def is_broken(self) -> bool:
        """True if a task has failed: no task runs, and none can be started."""
        return self._tasks is None or self._tasks.cancel_scope.cancel_called

    async def _keep(self, *, task_status: TaskStatus[TaskGroup]) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                task_status.started(tasks)
                await kept(self._over.wait)
                tasks.cancel_scope.cancel()
