"""One activity of a lifecycle: a task that ends by posting an event, unless it was cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

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
