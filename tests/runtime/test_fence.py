"""Background tasks: an exception of one ends neither other tasks nor the program."""

from __future__ import annotations

import asyncio
import itertools
import logging
from functools import partial

import anyio
import pytest

from swapchart.runtime.activity import ActivityTasks
from swapchart.runtime.fence import Fence, kept
from swapchart.runtime.shielded_tasks import ShieldedTasks
from swapchart.runtime.testing import run_virtual
from swapchart.runtime.timers import TimerService


async def fail() -> None:
    raise RuntimeError("boom")


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.exc_info]


def test_supervised_task_raises_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """The exception is logged with the task's name, and the group continues."""
    ended: list[str] = []

    async def later() -> None:
        await anyio.sleep(1.0)
        ended.append("later")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            fence = Fence(tasks)
            fence.start_soon(later)
            fence.start_soon(fail)
            fence.start_soon(partial(partial(fail)))

    run_virtual(main)
    assert ended == ["later"]
    assert failures(caplog) == ["background task fail failed"] * 2


def test_background_task_whose_inner_task_is_cancelled_fails_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Asyncio's cancellation of what a task awaits does not end the group, nor pass silently."""
    ended: list[str] = []

    async def waiting() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(1000))
        asyncio.get_running_loop().call_later(1, inner.cancel)
        await inner

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            fence = Fence(tasks)
            fence.start_soon(waiting)
            activities = ActivityTasks(fence, lambda run, error: ended.append(repr(error)))
            activities.start("hook", lambda run: waiting)
            await anyio.sleep(5)
            ended.append("block")

    run_virtual(main)
    assert ended == ["InnerCancelledError('a task that it awaited was cancelled')", "block"]
    assert len(failures(caplog)) == 1


def test_kept_task_fails_repeatedly_pauses_grow_and_one_line_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It restarts after 1, 2, 4 s up to a minute; the same exception is logged once."""
    tries: list[float] = []

    async def task() -> None:
        tries.append(anyio.current_time())
        if len(tries) < 9:
            await fail()

    async def main() -> None:
        await kept(task)

    run_virtual(main)
    pauses = [round(b - a) for a, b in itertools.pairwise(tries)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(failures(caplog)) == 1


def test_kept_task_was_stable_its_failure_counts_as_the_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A task that ran for more than a minute restarts soon, and its failure is logged."""
    tries: list[float] = []

    async def task() -> None:
        tries.append(anyio.current_time())
        if len(tries) == 4:
            return
        await anyio.sleep(100.0)
        await fail()

    async def main() -> None:
        await kept(task)

    run_virtual(main)
    assert [round(b - a) for a, b in itertools.pairwise(tries)] == [101, 101, 101]
    assert len(failures(caplog)) == 3


def test_kept_task_is_cancelled_ends() -> None:
    """A cancellation is not a failure."""

    async def main() -> None:
        with anyio.move_on_after(1.0) as scope:
            await kept(anyio.sleep_forever)
        assert scope.cancelled_caught

    run_virtual(main)


@pytest.mark.parametrize("kind", ["start_soon", "keep"])
def test_shielded_tasks_one_raises_block_goes_on(kind: str) -> None:
    """The block is not cancelled, and other tasks can be started."""
    ended: list[str] = []

    async def work() -> None:
        ended.append("work")

    async def main() -> None:
        shelter = ShieldedTasks()
        tasks = await shelter.open()
        getattr(tasks, kind)(fail)
        await anyio.sleep(0.5)
        assert not shelter.is_broken
        tasks.start_soon(work)
        await anyio.sleep(0.5)
        await shelter.close()

    run_virtual(main)
    assert ended == ["work"]


def test_timer_action_raises_other_timers_fire(caplog: pytest.LogCaptureFixture) -> None:
    """Other timers fire at the same time and later; the exception is logged."""
    fired: list[str] = []

    def wrong() -> None:
        raise RuntimeError("boom")

    async def main() -> None:
        service = TimerService()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(service.run)
            service.timer(wrong).arm(1.0)
            service.timer(lambda: fired.append("same")).arm(1.0)
            service.timer(lambda: fired.append("later")).arm(2.0)
            await anyio.sleep(3.0)
            tasks.cancel_scope.cancel()

    with caplog.at_level(logging.ERROR):
        run_virtual(main)
    assert fired == ["same", "later"]
    assert failures(caplog) == ["the action of a timer failed"]
