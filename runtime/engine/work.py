"""Work of one instance: its running activities and armed timers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ...dataclass import dataclass
from ...machine import Machine, RunningActivity, Value
from ..activity import Activity, ActivityTasks
from ..timers import Timer
from .actions import Actions, ActivityContext, Answer
from .errors import ActivityError
from .links import HostLink

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 60.0
_MOST_FAILURES = 10  # that are counted
_NO_FIELDS: Mapping[str, Value] = {}


@dataclass(frozen=True, slots=True)
class Post:
    """One event on its way to a chart."""

    event: str
    fields: Mapping[str, Value]
    payload: Any
    source: Activity | None
    cause: str
    context: ActivityContext[Any] | None = None  # of the activity that ended by it
    timer: str = ""  # that sent it


class Work:
    """Activities and timers of one instance; each ends by an event.

    Args:
        host: Runs the tasks and makes the timers.
        machine: The chart.
        actions: Functions of the activities, seconds of the timers.
        label: Chart and instance, for log lines.
        deliver: Takes the events; must not raise.
    """

    __slots__ = (
        "_actions", "_armed", "_contexts", "_deliver", "_failures", "_host", "_is_refused",
        "_label", "_last_deadlines", "_machine", "_retrying", "_tasks",
    )  # fmt: skip

    def __init__(
        self, host: HostLink, machine: Machine, actions: Actions, label: str,
        deliver: Callable[[Post], object],
    ) -> None:  # fmt: skip
        self._host, self._machine, self._actions = host, machine, actions
        self._label, self._deliver = label, deliver
        self._tasks = ActivityTasks(host.tasks, self._failed)
        self._armed: dict[str, Timer] = {}
        self._last_deadlines: dict[str, float] | None = None  # at the end
        self._failures = 0  # of the store, one after the other
        self._is_refused = False  # the event that is delivered
        self._retrying: list[Post] = []
        self._contexts: dict[str, ActivityContext[Any]] = {}  # of what runs and was not canceled

    def end(self) -> None:
        """Cancel everything; what is in a snapshot stays."""
        self._last_deadlines = self.deadlines()
        self._tasks.cancel_all()
        for timer in self._armed.values():
            timer.disarm()
            timer.action = _nothing  # the heap keeps the timer up to its deadline

    def change(self, machine: Machine, actions: Actions) -> None:
        """Go on with another chart, in which everything that runs exists."""
        self._machine, self._actions = machine, actions

    # ---- snapshots
    def deadlines(self) -> dict[str, float]:
        """Return armed timer -> deadline, in seconds on the loop's clock."""
        if self._last_deadlines is not None:
            return dict(self._last_deadlines)
        return {
            name: timer.deadline
            for name, timer in self._armed.items()
            if timer.deadline is not None
        }

    def running(self) -> dict[str, ActivityContext[Any]]:
        """Return the contexts of the activities that run, by name."""
        return dict(self._contexts)

    def retrying(self) -> list[Post]:
        """Return the events that wait for the store; activities of theirs do not run any more."""
        return list(self._retrying)

    def keep_as(self, run: RunningActivity) -> None:
        """Keep *run* of a running activity in snapshots."""
        self._contexts[run.activity] = replace(
            self._contexts[run.activity],
            point=run.point,
            event=run.event,
            fields=run.fields,
            event_payload=run.event_payload,
        )

    # ---- timers
    def arm(self, name: str) -> None:
        """Arm timer *name* anew."""
        self._timer(name).arm(self._actions.seconds(self._machine)[name])

    def arm_at(self, name: str, deadline: float) -> None:
        """Arm timer *name* for *deadline*, in seconds on the loop's clock; it may have passed."""
        self._timer(name).arm_at(deadline)

    def disarm(self, name: str) -> None:
        """Disarm timer *name*; a no-op if it is not armed."""
        if name in self._armed:
            self._armed[name].disarm()

    def _timer(self, name: str) -> Timer:
        if name not in self._armed:
            self._armed[name] = self._host.timers.timer(partial(self._fire, name))
        return self._armed[name]

    def _fire(self, timer: str) -> None:
        event = self._machine.fired[timer]
        fields = self._machine.fields(event)
        self._watched(Post(event, fields, None, None, f"timer {timer}", timer=timer))

    # ---- events that could not be stored
    def retry(self, post: Post) -> None:
        """Deliver *post* again after a pause, which grows while the store fails.

        Until then its timer counts as armed, or its activity as running, so that a snapshot has it
        and the chart can still cancel it.
        """
        self._is_refused = True
        pause_s = min(_FIRST_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S)
        self._failures = min(self._failures + 1, _MOST_FAILURES)
        if post.timer:
            self._timer(post.timer).arm(pause_s)
            return
        if post.context is None or post.source is None:
            self._retrying.append(post)
        elif not post.source.is_dead:
            self._contexts.setdefault(post.context.activity, post.context)
        self._host.timers.timer(partial(self._deliver_again, post)).arm(pause_s)

    def drop_retries(self) -> None:
        """Drop the events that wait for the store; those of activities stay."""
        self._retrying.clear()

    def _deliver_again(self, post: Post) -> None:
        if self._last_deadlines is not None:
            return
        if post.context is None or post.source is None:
            if all(each is not post for each in self._retrying):
                return
            self._retrying = [each for each in self._retrying if each is not post]
        else:
            self._forget(post.source)
        self._watched(post)

    def _watched(self, post: Post) -> None:
        """Deliver *post*; if it is stored, the pauses begin anew."""
        self._is_refused = False
        self._deliver(post)
        if not self._is_refused:
            self._failures = 0

    # ---- activities
    def start(self, context: ActivityContext[Any]) -> None:
        """Start the activity of *context*; an earlier run of it is cancelled and ends first."""
        self._contexts[context.activity] = context
        self._tasks.start(context.activity, lambda activity: partial(self._run, activity, context))

    def cancel(self, name: str) -> None:
        """Cancel activity *name*; a no-op if it has ended."""
        self._contexts.pop(name, None)
        self._tasks.cancel(name)

    async def _run(self, activity: Activity, context: ActivityContext[Any]) -> None:
        function: Any
        function, is_given_context = self._actions.function(activity.name)
        answer: Answer = await function(context if is_given_context else context.point)
        self._forget(activity)
        self._answered(activity, answer, context)

    def _forget(self, activity: Activity) -> None:
        """Note that *activity* has ended, before its event is delivered."""
        if not activity.is_dead:
            self._contexts.pop(activity.name, None)

    def _answered(self, activity: Activity, answer: Answer, context: ActivityContext[Any]) -> None:
        """Post the event by which *activity* ends.

        Raises:
            ActivityError: The chart declares no such answer.
        """
        name = activity.name
        declared = self._machine.answers[name]
        known = f"expected one of {', '.join(sorted(declared)) or 'none'}"
        if answer is None:
            answer = self._machine.completions.get(name)
        if answer is None:
            if declared and name not in self._machine.document.promises.unsure:
                raise ActivityError(name, f"returned no event; {known}")
            return
        found: Any = answer
        is_pair = isinstance(found, tuple) and len(found) == 2
        event, fields = found if is_pair else (found, _NO_FIELDS)
        if not isinstance(event, str) or event not in declared or not isinstance(fields, Mapping):
            raise ActivityError(name, f"returned {answer!r}; {known}")
        given = self._machine.fields(event, fields)
        self._deliver(Post(event, given, None, activity, f"activity {name}", context))

    def _failed(self, activity: Activity, error: Exception) -> None:
        """Log the failure of *activity* and post the event that the chart has for it."""
        name = activity.name
        if activity.is_dead:
            log.debug("%s: canceled activity %r failed", self._label, name, exc_info=error)
            return
        context = self._contexts.get(name)
        log.error("%s: activity %r failed: %s", self._label, name, error, exc_info=error)
        event = self._failure_event(name, error)  # may end the instance
        self._forget(activity)
        self._report(name, event, activity, context)

    def fail(self, name: str) -> None:
        """Post the event of the failure of activity *name*, which ran before a restart."""
        self._report(name, self._machine.failures.get(name), None)

    def _report(
        self, name: str, event: str | None, activity: Activity | None,
        context: ActivityContext[Any] | None = None,
    ) -> None:  # fmt: skip
        if event is None:
            log.error(
                "%s: no event reports the failure of activity %r; declare "
                "{origin: activity, of: %s, on: error}", self._label, name, name,
            )  # fmt: skip
            return
        fields = self._machine.fields(event)
        self._deliver(Post(event, fields, None, activity, f"activity {name}", context))

    def _failure_event(self, name: str, error: Exception) -> str | None:
        on_error, event = self._actions.on_error, None
        if on_error is not None:
            try:
                event = on_error(name, error)
            except Exception:
                log.exception("%s: on_error raised an exception", self._label)
        known = self._machine.answers[name]
        if event is not None and not (isinstance(event, str) and event in known):
            log.error("%s: on_error returned %r, no event of %r", self._label, event, name)
            event = None
        return event or self._machine.failures.get(name)


def _nothing() -> None:
    """Do nothing, in place of the action of a timer that has ended."""
