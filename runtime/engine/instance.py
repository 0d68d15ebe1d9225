"""Instance: one run of a chart in a host, with its activities, timers and listeners."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ...machine import (
    CancelActivity,
    CancelTimer,
    Configuration,
    Effect,
    EventError,
    Machine,
    NotHandledError,
    Notify,
    Outcome,
    RunningActivity,
    Snapshot,
    SnapshotError,
    StartActivity,
    StartTimer,
    StepError,
    Value,
)
from ...machine.senders import check_sender
from ..listeners import Listeners
from .actions import Actions, ActivityContext, StepListener
from .errors import HostStateError, StoreFailedError
from .instance_state import InstanceState
from .records import Kind, Step
from .replacing import change_work, replaced
from .saving import ActivityPolicy, TimerPolicy, deadlines
from .waits import Waits
from .work import Post, Work

if TYPE_CHECKING:
    from concurrent.futures import Future


log = logging.getLogger(__name__)

P = TypeVar("P")

_NO_FIELDS: Mapping[str, Value] = {}
_STEP_BUFFER = 1_000  # records that a slow reader of `events` may be behind


class Instance(InstanceState[P]):
    """One run of a chart. Made by `Host.start`; every method belongs to the host's thread."""

    __slots__ = ()

    # ---- events
    def post(
        self, event: str, fields: Mapping[str, Value] | None = None, *, payload: Any = None,
        cause: str = "user",
    ) -> Step | None:  # fmt: skip
        """Process *event*, now or, inside a step, right after it; never waits.

        Args:
            event: Name of a declared event.
            fields: Fields of the event; those not given get the first value of their domain.
            payload: Payload of the event, if it is declared with one.
            cause: Sender of the event, for `Step.cause`.

        Returns:
            The step; None inside a step, and after the end of the chart, when nothing happens.

        Raises:
            EventError: The chart declares no such event, or not with these fields, or an activity,
                a timer or the chart itself sends it.
            NotHandledError: The chart does not handle it in this configuration.
            StepError: A guard or an assignment failed.
            HostStateError: The instance has not begun, or was removed.
            WrongThreadError: This is not the thread of the host; use `post_threadsafe`.
        """
        check_sender(self.machine.document, event)
        return self.replay(event, fields, payload=payload, cause=cause)

    def replay(
        self, event: str, fields: Mapping[str, Value] | None = None, *, payload: Any = None,
        cause: str = "replay",
    ) -> Step | None:  # fmt: skip
        """Process *event* as `post` does, in place of whatever sends it.

        It is for tests and for the steps of a record. Whether its timer is armed or its activity
        runs is not checked, so the instance may come where the checker has not been.
        """
        self._host.check_thread()
        self._check_running()
        given = self.machine.fields(event, _NO_FIELDS if fields is None else fields)
        if payload is not None and not self.machine.document.events[event].payload:
            raise EventError(event, "carries no payload; declare it with `payload: true`")
        return self._take(Post(event, given, payload, None, cause))

    def post_threadsafe(
        self, event: str, fields: Mapping[str, Value] | None = None, *, payload: Any = None,
        cause: str = "user",
    ) -> Future[Step | None]:  # fmt: skip
        """Post *event* from any thread; see `Host.post_threadsafe`."""
        return self._host.call_threadsafe(
            partial(self.post, event, fields, payload=payload, cause=cause)
        )

    def _check_running(self) -> None:
        if self._phase == "running":
            return
        why = "has not begun" if self._phase == "new" else "was removed from its host"
        raise HostStateError(f"{self.id}: the instance {why}; nothing was changed")

    async def wait_for(self, *states: str) -> None:
        """Wait until one of *states* is active, if only between two events.

        Raises:
            UnknownStateError: A `LookupError`: the chart has no such state, or always leaves it in
                the step that enters it.
            EndedError: None of the states can come any more.
        """
        self._host.check_no_other_thread("Host.call_threadsafe")
        if self._waits is None:
            self._waits = Waits(self.machine, self.id)
        await self._waits.wait(states, self.configuration, self._no_more())

    def _no_more(self) -> str:
        """Return why no step follows; empty if one may."""
        if self.is_final:
            return "the chart has ended"
        return "the instance was removed from its host" if self._phase == "ended" else ""

    def listen(self, listener: StepListener) -> Callable[[], None]:
        """Call *listener* with each step, and return a function that ends that.

        It must not wait; an exception is logged.
        """
        return self._own_listeners().add(listener)

    def events(self, limit: int = _STEP_BUFFER) -> AsyncIterator[Step]:
        """Yield each step from now on, until the chart ends or the instance is removed.

        Args:
            limit: Number of steps that a reader may be behind before it loses the oldest.
        """
        return self._own_listeners().events(limit)

    def _own_listeners(self) -> Listeners[Step]:
        if self._listeners is None:
            self._listeners = Listeners()
            if self._phase == "ended" or self.is_final:
                self._listeners.close()
        return self._listeners

    # ---- steps; called by the host and by activities and timers
    def begin(self) -> None:
        """Enter the initial configuration; once."""
        assert self._phase == "new", "begun once"
        outcome = self.machine.begin(self._stepper)
        post = Post("", _NO_FIELDS, None, None, "start")
        self._due = post, deque(outcome.effects)
        if self._host.store is not None:
            self._host.store.save(self.snapshot())
        self._phase = "running"
        self._is_stepping = True
        try:
            self._finish(post, (), outcome, "begun")
        finally:
            self._empty_inbox()

    def go_on(self, snapshot: Snapshot, timers: TimerPolicy, activities: ActivityPolicy) -> None:
        """Go on from *snapshot*, which was checked; in place of `begin`."""
        assert self._phase == "new", "begun once"
        self._phase = "running"
        self.number = snapshot.number
        self._stepper.restore(
            snapshot.configuration, tuple(snapshot.data.values()), snapshot.memory
        )
        self._is_stepping = True
        try:
            seconds, now = self._actions.seconds(self.machine), self._host.timers.now()
            due = deadlines(snapshot, timers, seconds, self._host.wall(), now)
            for name, deadline in due.items():
                self._working().arm_at(name, deadline)
            for run in snapshot.activities:
                if activities == "restart":
                    self._working().start(self._resumed(run, is_resumed=True))
            self._inbox = deque(_posts(snapshot))
            if activities == "fail":
                for run in snapshot.activities:
                    self._working().fail(run.activity)
        finally:
            self._empty_inbox()

    def _resumed(self, run: RunningActivity, *, is_resumed: bool) -> ActivityContext[P]:
        return ActivityContext(
            id=self.id, activity=run.activity, point=run.point, event=run.event,
            fields=run.fields, event_payload=run.event_payload, data=self.data,
            payload=self.payload, is_resumed=is_resumed, post=self.post,
        )  # fmt: skip

    def change(self, machine: Machine, actions: Actions | None) -> None:
        """Go on with another chart from this moment.

        Raises:
            ChartError: The present actions do not fit it.
            HostStateError: A step is in progress, or the store failed.
            SnapshotError: Something of this instance does not exist in *machine*.
        """
        if self._is_stepping:
            raise HostStateError(f"{self.id}: a step is in progress")
        actions = actions or self._actions
        actions.check(machine)
        before = self.snapshot()
        after = replaced(self.machine, machine, before, actions.seconds(machine))
        stepper = machine.traced_stepper(**after.parameters)
        stepper.restore(after.configuration, tuple(after.data.values()), after.memory)
        if self._host.store is not None:
            try:
                self._host.store.save(after)
            except Exception as error:
                why = f"the store failed: {type(error).__name__}: {error}; nothing was changed"
                raise HostStateError(f"{self.id}: {why}") from error
        self.machine, self._actions, self._stepper = machine, actions, stepper
        self.number, self.payload = after.number, after.payload
        self._is_stepping = True
        try:
            work = self._working()
            work.change(machine, actions)
            change_work(work, before, after, self._host.timers.now(), self._resumed)
            if after.pending != before.pending:
                work.drop_retries()
                self._inbox = deque(_posts(after))
            if self._waits is not None:
                self._waits.change(machine, self.configuration, self._no_more())
            if self.is_final and self._listeners is not None:
                self._listeners.close()
        finally:
            self._empty_inbox()

    def end(self) -> None:
        """Cancel activities and timers; wake all who wait."""
        if self._phase == "ended":
            return
        self._phase = "ended"
        self._ended_at = self._host.wall(), self._host.timers.now()
        if self._work is not None:
            self._work.end()
        if self._waits is not None:
            self._waits.end("the instance was removed from its host")
        if self._listeners is not None:
            self._listeners.close()

    def _take(self, post: Post) -> Step | None:
        if self._is_stepping:
            if self._inbox is None:
                self._inbox = deque()
            self._inbox.append(post)
            return None
        self._is_stepping = True
        try:
            return self._step(post)
        finally:
            self._empty_inbox()

    def _empty_inbox(self) -> None:
        """Process what was posted inside the step; what fails is logged.

        What is left when the instance is removed stays in its last snapshot.
        """
        try:
            while self._inbox and self._phase != "ended":
                self._logged(self._step, self._inbox.popleft())
        finally:
            self._is_stepping = False

    def _logged(self, process: Callable[[Post], object], post: Post) -> None:
        """Process *post*, whose sender cannot be told what is wrong."""
        try:
            process(post)
        except StoreFailedError as error:
            log.error(
                "%s: event %r from %s is delivered again: %s",
                self._label(), post.event, post.cause, error,
            )  # fmt: skip
            self._working().retry(post)
        except (NotHandledError, StepError) as error:
            log.error(
                "%s: event %r from %s was not taken: %s",
                self._label(), post.event, post.cause, error,
            )  # fmt: skip

    def _step(self, post: Post) -> Step | None:
        stepper = self._stepper
        before = stepper.configuration
        if stepper.is_final or (post.source is not None and post.source.is_dead):
            self._tell(self._record(post, before, Outcome((), ()), "dropped"))
            return None
        state = before, stepper.context.values(), stepper.memory
        outcome = self.machine.step(stepper, post.event, post.fields)
        self.number += 1
        self._due = post, deque(outcome.effects)
        if self._host.store is not None:
            try:
                self._host.store.save(self.snapshot())
            except BaseException as error:
                self.number -= 1
                self._due = None
                stepper.restore(*state)
                if not isinstance(error, Exception):  # such as a KeyboardInterrupt
                    raise
                why = f"the store failed: {type(error).__name__}: {error}"
                if _is_unkept(post, error):
                    raise StepError(post.event, before, why) from error
                raise StoreFailedError(post.event, before, why) from error
        return self._finish(post, before, outcome, "taken")

    def _finish(self, post: Post, before: Configuration, outcome: Outcome, kind: Kind) -> Step:
        record = self._record(post, before, outcome, kind)
        if self._waits is not None:  # before a listener can remove the instance
            self._waits.entered(record.target, self._no_more())
        try:
            self._tell(record)
        finally:  # a listener may raise what is no Exception, such as a cancellation
            self._perform_due(record)
        if self.is_final and self._listeners is not None:
            self._listeners.close()
        return record

    def _perform_due(self, record: Step) -> None:
        """Perform the effects of the step; those left when it is removed stay in its snapshot."""
        assert self._due is not None, "set by the step"
        due = self._due[1]
        while due and self._phase != "ended":
            try:
                self._perform(due.popleft(), record)
            except BaseException:
                self._perform_due(record)
                raise
        if not due:
            self._due = None

    def _record(self, post: Post, before: Configuration, outcome: Outcome, kind: Kind) -> Step:
        return Step(
            at=self._host.timers.now(), event=post.event, source=before,
            target=self._stepper.configuration, name=self.id, number=self.number, kind=kind,
            fields=post.fields, payload=post.payload, actions=outcome.actions,
            effects=outcome.effects, data=self.data, cause=post.cause,
        )  # fmt: skip

    def _tell(self, record: Step) -> None:
        """Call all listeners; none can break the step."""
        on_step = self._actions.on_step
        if on_step is not None and record.kind == "taken":
            self._call("on_step", on_step, record)
        if self._listeners is not None:
            self._listeners.notify(record)
        self._host.listeners.notify(record)

    def _call(self, name: str, function: Callable[[Any], object], argument: Any) -> None:
        try:
            function(argument)
        except Exception:
            log.exception("%s: %s raised an exception", self._label(), name)

    # ---- effects; none may wait or raise
    def _perform(self, effect: Effect, record: Step) -> None:
        match effect:
            case StartActivity(activity=name, point=point):
                self._working().start(self._context(name, point, record))
            case CancelActivity(activity=name):
                if self._work is not None:
                    self._work.cancel(name)
            case StartTimer(timer=name):
                self._working().arm(name)
            case CancelTimer(timer=name):
                if self._work is not None:
                    self._work.disarm(name)
            case Notify(name=name):
                if self._actions.on_notify is not None:
                    self._call("on_notify", self._actions.on_notify, name)
            case _:
                raise AssertionError(f"{effect} was rejected by Actions.check")

    def _working(self) -> Work:
        if self._work is None:
            self._work = Work(
                self._host, self.machine, self._actions, self._label(),
                partial(self._logged, self._take),
            )  # fmt: skip
        return self._work

    def _context(self, name: str, point: str, record: Step) -> ActivityContext[P]:
        return ActivityContext(
            id=self.id, activity=name, point=point, event=record.event, fields=record.fields,
            event_payload=record.payload, data=record.data, payload=self.payload,
            post=self.post,
        )  # fmt: skip


def _is_unkept(post: Post, error: Exception) -> bool:
    """Return True if a store can never keep the payload of *post*, which starts an activity."""
    is_from_payload = isinstance(error, SnapshotError) and error.where.startswith("activities.")
    return post.payload is not None and is_from_payload


def _posts(snapshot: Snapshot) -> Iterator[Post]:
    for event in snapshot.pending:
        yield Post(event.event, event.fields, event.payload, None, event.cause)
