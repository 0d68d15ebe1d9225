"""Player: drives one instance of a custom chart, with custom activities and timers.

    async with Player(read(text), activities={"measure": measure}, timers={"pause": 5}) as player:
        player.post("go")
        await player.wait_for("done")

`Lifecycle` does the same for the chart of a service, with processes and requests. Here an
activity is a function that returns the event by which it ends.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import anyio

from ..machine import (
    CancelActivity,
    CancelTimer,
    ChartError,
    Compiled,
    Configuration,
    Document,
    Effect,
    NotHandledError,
    Notify,
    StartActivity,
    StartTimer,
)
from .activity import Activity
from .timers import Timer, TimerService

if TYPE_CHECKING:
    from statemachine import StateChart

log = logging.getLogger(__name__)

Value: TypeAlias = str | int | bool
#: (hook point or "") -> event by which the activity ends, with its fields; None for no event.
ActivityFunction: TypeAlias = Callable[
    [str], Awaitable[str | tuple[str, Mapping[str, Value]] | None]
]

_NO_DATA: Mapping[str, Value] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event that was processed.

    Attributes:
        at: Time in seconds on the loop's clock.
        event: Name of the event.
        source: Configuration before, outermost first.
        target: Configuration after, outermost first.
    """

    at: float
    event: str
    source: Configuration
    target: Configuration


class Player:
    """Runs one instance of a chart; an async context manager.

    Args:
        chart: A document, or a python-statemachine class that a document can express.
        activities: Name -> function that runs while the activity is active. If the chart cancels
            the activity, the function is cancelled and its event is dropped.
        timers: Name -> seconds until the event of the timer; by default those of the document.
        parameters: Parameters of the chart.
        on_step: Called with each step; must not wait or raise.
        on_notify: Called with the name of each ``notify`` effect; must not wait or raise.
        on_error: (activity, error) -> event of an activity that raised *error*, or None.

    Raises:
        ChartError: The chart starts an activity or a timer that is not among the arguments.
    """

    def __init__(
        self, chart: Document | type[StateChart[Any]], *,
        activities: Mapping[str, ActivityFunction] | None = None,
        timers: Mapping[str, float] | None = None,
        parameters: Mapping[str, Value] | None = None,
        on_step: Callable[[Step], None] | None = None,
        on_notify: Callable[[str], None] | None = None,
        on_error: Callable[[str, Exception], str | None] | None = None,
    ) -> None:  # fmt: skip
        if isinstance(chart, Document):
            document = chart
        else:
            from ..machine.interchange.class_reader import from_class  # loads python-statemachine

            document = from_class(chart)
        self._activities, self._seconds = dict(activities or {}), dict(document.timers)
        self._seconds |= timers or {}
        self._check(document)
        self._stepper = Compiled(document).stepper(**(parameters or {}))
        self._fired_by = {
            decl.of: name for name, decl in document.events.items() if decl.origin == "timer"
        }
        self._on_step, self._on_notify, self._on_error = on_step, on_notify, on_error
        self._running: dict[str, Activity] = {}
        self._armed: dict[str, Timer] = {}
        self._inbox: deque[tuple[str, Mapping[str, Value], Activity | None]] = deque()
        self._is_stepping = False
        self._changed = anyio.Event()
        self._exit = AsyncExitStack()

    def _check(self, document: Document) -> None:
        for name, action in document.actions.items():
            for effect in action.effects:
                where = f"actions.{name}"
                match effect:
                    case StartActivity(activity=wanted) if wanted not in self._activities:
                        raise ChartError(where, f"expected an activity {wanted!r} to be given")
                    case StartTimer(timer=wanted) if wanted not in self._seconds:
                        raise ChartError(where, f"expected seconds for timer {wanted!r}")
                    case StartActivity() | StartTimer() | CancelActivity() | CancelTimer():
                        pass
                    case Notify():
                        pass
                    case _:
                        raise ChartError(where, f"{effect} needs a process: use a Supervisor")

    async def __aenter__(self) -> Self:
        """Enter the initial configuration."""
        self._tasks = await self._exit.enter_async_context(anyio.create_task_group())
        self._timers = TimerService()
        self._tasks.start_soon(self._timers.run)
        self._perform(self._stepper.begin())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Cancel all activities."""
        self._tasks.cancel_scope.cancel()
        return await self._exit.__aexit__(kind, error, traceback)

    @property
    def configuration(self) -> Configuration:
        """All active states, outermost first."""
        return self._stepper.configuration

    @property
    def is_final(self) -> bool:
        """True if the chart has ended."""
        return self._stepper.is_final

    def datum(self, name: str) -> Value | None:
        """Return one variable of the chart's data; None if it has no such variable."""
        found: Value | None = getattr(self._stepper.context, name, None)
        return found

    def post(self, event: str, data: Mapping[str, Value] = _NO_DATA) -> None:
        """Process *event*, now or, inside a step, right after it; never waits.

        Raises:
            NotHandledError: The chart does not handle it in this configuration.
        """
        self._post(event, data, None)

    async def wait_for(self, *states: str) -> None:
        """Wait until one of *states* is active."""
        while not set(states) & set(self.configuration):
            await self._changed.wait()

    def _post(self, event: str, data: Mapping[str, Value], source: Activity | None) -> None:
        self._inbox.append((event, data, source))
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._inbox:
                self._step(*self._inbox.popleft())
        finally:
            self._is_stepping = False

    def _step(self, event: str, data: Mapping[str, Value], source: Activity | None) -> None:
        if (source is not None and source.is_dead) or self.is_final:
            return
        before = self.configuration
        effects = self._stepper.step(event, data)
        after = self.configuration
        if self._on_step is not None:
            self._on_step(Step(at=self._timers.now(), event=event, source=before, target=after))
        self._perform(effects)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartActivity(activity=name, point=point):
                    self._start(name, point)
                case CancelActivity(activity=name):
                    if name in self._running:
                        self._running[name].cancel()
                case StartTimer(timer=name):
                    if name not in self._armed:
                        self._armed[name] = self._timers.timer(partial(self._fire, name))
                    self._armed[name].arm(self._seconds[name])
                case CancelTimer(timer=name):
                    if name in self._armed:
                        self._armed[name].disarm()
                case Notify(name=name):
                    if self._on_notify is not None:
                        self._on_notify(name)
                case _:
                    raise AssertionError(f"{effect} was rejected by __init__")

    def _fire(self, timer: str) -> None:
        self._post_or_log(self._fired_by[timer], _NO_DATA, None)

    def _start(self, name: str, point: str) -> None:
        previous = self._running.get(name)
        if previous is not None:
            previous.cancel()
        activity = Activity(name, is_preceded=previous is not None and previous.is_running)
        self._running[name] = activity
        activity.begin()
        self._tasks.start_soon(self._live, activity, previous, point)

    async def _live(self, activity: Activity, previous: Activity | None, point: str) -> None:
        assert activity.ended is not None, "set by begin()"
        try:
            await activity.live(previous, partial(self._run, activity, point))
        finally:
            activity.ended.set()

    async def _run(self, activity: Activity, point: str) -> None:
        try:
            result = await self._activities[activity.name](point)
        except Exception as error:
            result = None if self._on_error is None else self._on_error(activity.name, error)
            if result is None:
                log.exception("activity %s failed without an event from on_error", activity.name)
        if result is None:
            return
        event, data = result if isinstance(result, tuple) else (result, _NO_DATA)
        self._post_or_log(event, data, activity)

    def _post_or_log(self, event: str, data: Mapping[str, Value], source: Activity | None) -> None:
        """Post an event of a timer or activity; log one that the chart does not handle."""
        try:
            self._post(event, data, source)
        except NotHandledError:
            log.exception("the chart does not handle %r", event)
