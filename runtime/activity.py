"""Activities of one chart: tasks that end by posting an event, unless they are cancelled before."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from .fence import Fence, guarded

Body = Callable[[], Awaitable[None]]


class Activity:
    """One run of an activity: cancelled at most once; its events are dropped from then on.

    Attributes:
        name: Name of the activity, such as ``hooks``.
        is_preceded: An earlier run of that name has not ended yet, and must before this one begins.
        is_dead: It was cancelled.
        ended: Set when its task ends; None while it has no task, as when it ends at once.
    """

    __slots__ = ("_scope", "ended", "is_dead", "is_preceded", "name")

    def __init__(self, name: str, *, is_preceded: bool) -> None:
        self.name, self.is_preceded = name, is_preceded
        self.is_dead = False
        self.ended: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None

    @property
    def is_running(self) -> bool:
        """True as long as its task has not ended, cancelled or not."""
        return self.ended is not None and not self.ended.is_set()

    def begin(self) -> None:
        """Record that a task is about to run it."""
        self.ended = anyio.Event()

    async def live(self, previous: Activity | None, body: Body) -> None:
        """Run *body* once *previous* has ended, its cleanup included."""
        if previous is not None and previous.ended is not None:
            await previous.ended.wait()  # outside the scope: the next run waits for this one too
        if self.is_dead:
            return
        with anyio.CancelScope() as self._scope:
            await guarded(body)

    def cancel(self) -> None:
        """Cancel it; a no-op when it has ended."""
        self.is_dead = True
        if self._scope is not None:
            self._scope.cancel()


class ActivityTasks:
    """The activities of one chart: the last run of each name.

    Args:
        tasks: Runs them.
        on_failure: Gets the run and the exception, if a run raises one; must log it.
    """

    __slots__ = ("_last", "_on_failure", "_tasks")

    def __init__(self, tasks: Fence, on_failure: Callable[[Activity, Exception], None]) -> None:
        self._tasks, self._on_failure = tasks, on_failure
        self._last: dict[str, Activity] = {}

    def start(self, name: str, make: Callable[[Activity], Body | None]) -> None:
        """Start activity *name*; cancels an earlier run, which ends first.

        Args:
            name: Name of the activity.
            make: Returns what to run, or None if there is nothing to wait for.
        """
        previous = self._last.get(name)
        if previous is not None:
            previous.cancel()
        activity = Activity(name, is_preceded=previous is not None and previous.is_running)
        self._last[name] = activity
        body = make(activity)
        if body is not None:
            activity.begin()
            self._tasks.start_soon(self._run, activity, previous, body)

    async def _run(self, activity: Activity, previous: Activity | None, body: Body) -> None:
        assert activity.ended is not None, "set by begin()"
        try:
            await activity.live(previous, body)
        except Exception as error:  # noqa: BLE001 - logged there
            self._on_failure(activity, error)
        finally:
            activity.ended.set()

    def cancel(self, name: str) -> None:
        """Cancel activity *name*; a no-op when it was never started or has ended."""
        activity = self._last.get(name)
        if activity is not None:
            activity.cancel()

    def cancel_all(self) -> None:
        """Cancel every activity."""
        for activity in self._last.values():
            activity.cancel()

    def is_running(self, name: str) -> bool:
        """Return True if activity *name* is running."""
        activity = self._last.get(name)
        return activity is not None and activity.is_running

    async def wait(self) -> None:
        """Wait until no activity is running."""
        for activity in list(self._last.values()):
            if activity.ended is not None:
                await activity.ended.wait()
