"""Host: any number of instances of any charts, in one task group with one heap of timers.

    async with Host() as host:
        order = host.start(machine, id="A-17", actions=Actions(activities={"charge": charge}))
        order.post("submit", {"value": 5000})
        await order.wait_for("delivered")

An idle instance has no task; each running activity has one. The thread that entered the host is
the only one that steps; `Host.post_threadsafe` hands events over from others.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, TypeVar, get_args, overload

from ...machine import ChartError, Document, Machine, Snapshot, SnapshotError, Value
from ...machine.restoring import restorable
from ..fence import Fence
from ..listeners import Listeners
from ..shielded_tasks import ShieldedTasks
from ..timers import TimerService
from .actions import Actions, StepListener
from .errors import HostStateError, WrongThreadError
from .instance import Instance
from .mailbox import Mailbox
from .records import Step
from .saving import ActivityPolicy, TimerPolicy
from .store import Store

if TYPE_CHECKING:
    from statemachine import StateChart

P = TypeVar("P")
#: A chart compiled or not; a document or a python-statemachine class is compiled once for all.
Chart: TypeAlias = "Machine | Document | type[StateChart[Any]]"

_STEP_BUFFER = 10_000  # records that a slow reader of `events` may be behind
_NO_ACTIONS = Actions()


class Replacement(NamedTuple):
    """Result of `Host.replace`.

    Attributes:
        moved: Ids of the instances that go on with the new chart.
        kept: Id -> reason of those that keep the old one.
    """

    moved: tuple[str, ...]
    kept: Mapping[str, str]


class Host:
    """Runs instances of charts; an async context manager, entered once.

    At the end of the block all activities are cancelled. An exception of the block comes out as
    itself; one of an activity is logged and becomes an event of its chart.

    Args:
        store: Keeps a snapshot of each instance after each step, before the step acts; None keeps
            none.
        wall: Returns the time in seconds since 1970-01-01 UTC, for deadlines in snapshots.

    Attributes:
        tasks: Runs activities.
        timers: Makes timers.
        listeners: Get the steps of all instances.
    """

    tasks: Fence
    timers: TimerService

    def __init__(
        self, *, store: Store | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        self.store, self.wall = store, wall
        self.listeners: Listeners[Step] = Listeners()
        self._instances: dict[str, Instance[Any]] = {}
        self._checked = _CheckedActions()
        self._phase = "new"
        self._thread = 0
        self._count = 0

    # ---- the block
    async def __aenter__(self) -> Self:
        """Begin.

        Raises:
            HostStateError: The host was entered before.
        """
        if self._phase != "new":
            raise HostStateError("a host is entered once; make another one")
        self._thread = threading.get_ident()
        self._shelter = ShieldedTasks()
        self.tasks = await self._shelter.open()
        self.timers = TimerService()
        self._mailbox = Mailbox()
        self.tasks.keep(self.timers.run)
        self.tasks.keep(self._mailbox.run)
        self._phase = "running"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel all activities, and refuse further events."""
        self._phase = "ended"
        self._mailbox.close()
        for instance in self._instances.values():
            instance.end()
        self.listeners.close()
        # *error* is not passed on: it would come out wrapped in an exception group.
        await self._shelter.close()

    # ---- instances
    @overload
    def start(
        self, chart: Chart, *, id: str | None = None,
        actions: Actions = ..., parameters: Mapping[str, Value] | None = None,
    ) -> Instance[None]: ...  # fmt: skip

    @overload
    def start(
        self, chart: Chart, *, id: str | None = None,
        actions: Actions = ..., parameters: Mapping[str, Value] | None = None, payload: P,
    ) -> Instance[P]: ...  # fmt: skip

    def start(
        self, chart: Chart, *, id: str | None = None,  # noqa: A002
        actions: Actions = _NO_ACTIONS, parameters: Mapping[str, Value] | None = None,
        payload: Any = None,
    ) -> Instance[Any]:  # fmt: skip
        """Make an instance and enter its initial configuration.

        Args:
            chart: A machine; a document or a python-statemachine class is compiled, once for all.
            id: Id of the instance; None makes one of the chart's name and a number.
            actions: Functions of its activities, seconds of its timers, callbacks.
            parameters: Parameters of the chart.
            payload: Data of the program, for its activities.

        Raises:
            ChartError: The chart is wrong, or *actions* or *parameters* do not fit it.
            HostStateError: The host is not running, or it or its store has an instance of that id.
            WrongThreadError: This is not the thread of the host.
        """
        self.check_thread()
        instance = self.prepared(
            chart, name=id, actions=actions, parameters=parameters, payload=payload
        )
        self.adopt(instance)
        return instance

    def prepared(
        self, chart: Chart, *, name: str | None,
        actions: Actions, parameters: Mapping[str, Value] | None, payload: P,
    ) -> Instance[P]:  # fmt: skip
        """Make an instance that `adopt` begins; see `start`."""
        machine = machine_of(chart)
        self._checked.check(actions, machine)
        if name is None:
            name = self._new_name(machine)
        if not isinstance(name, str) or not name:
            raise HostStateError(f"the id of an instance is a text, got {name!r}")
        return Instance(self, machine, name, actions, parameters or {}, payload)

    def _new_name(self, machine: Machine) -> str:
        """Return an id that neither an instance nor a row of the store has."""
        while True:
            self._count += 1
            name = f"{machine.name}-{self._count}"
            if name not in self._instances and not (self.store and self.store.has(name)):
                return name

    def adopt(self, instance: Instance[Any]) -> None:
        """Begin an instance that `prepared` made; see `start`."""
        self._add(instance)
        try:
            if self.store is not None and self.store.has(instance.id):
                raise HostStateError(
                    f"the store has an instance {instance.id!r} that was not resumed: resume it, "
                    "or call `forget` of the store; nothing was changed"
                )
            instance.begin()
        except BaseException:
            if not instance.has_begun:
                del self._instances[instance.id]
            raise

    def _add(self, instance: Instance[Any]) -> None:
        self.check_thread()
        if instance.id in self._instances:
            raise HostStateError(f"the host has an instance {instance.id!r}; nothing was changed")
        self._instances[instance.id] = instance

    def resume(
        self, chart: Chart, snapshot: Snapshot, *, actions: Actions = _NO_ACTIONS,
        timers: TimerPolicy = "deadline", activities: ActivityPolicy = "restart",
    ) -> Instance[Any]:  # fmt: skip
        """Make an instance that goes on from *snapshot*.

        Args:
            chart: The chart of the snapshot, or a later version of it with migrations.
            snapshot: State of the instance.
            actions: As for `start`.
            timers: When armed timers fire: ``deadline`` at the time they had, at once if that has
                passed; ``remaining`` after the time that was left; ``restart`` after their whole
                time.
            activities: What becomes of activities that ran: ``restart`` runs them again, ``fail``
                posts the events of their failures.

        Raises:
            ValueError: A policy is none of those.
            SnapshotError: The snapshot does not fit the chart; the error names the path.
            ChartError: The chart is wrong, or *actions* do not fit it.
            HostStateError: The host is not running, or has an instance of that id.

        A store that has no snapshot of the instance keeps *snapshot*; its exceptions come out.
        """
        if timers not in get_args(TimerPolicy):
            raise ValueError(f"timers: expected one of {get_args(TimerPolicy)}, got {timers!r}")
        if activities not in get_args(ActivityPolicy):
            expected = get_args(ActivityPolicy)
            raise ValueError(f"activities: expected one of {expected}, got {activities!r}")
        machine = machine_of(chart)
        fitting = restorable(machine, snapshot)
        instance = self.prepared(
            machine, name=fitting.id, actions=actions, parameters=fitting.parameters,
            payload=fitting.payload,
        )  # fmt: skip
        self._add(instance)
        try:
            if self.store is not None and not self.store.has(instance.id):
                self.store.save(fitting)
            instance.go_on(fitting, timers, activities)
        except BaseException:
            instance.end()
            self._instances.pop(instance.id, None)
            raise
        return instance

    def replace(self, chart: Chart, *, actions: Actions | None = None) -> Replacement:
        """Let the instances of an earlier form of *chart* go on with it.

        An instance goes on with it at once if its snapshot fits the new chart: after migrations, if
        some lead from its version, else as it is. Timers and activities that the active states
        start on entry in the new chart only are started then. The others keep the old one, and so
        do those whose change the store does not take.

        Args:
            chart: The new chart, of the same name as the old one.
            actions: New actions, for instances of *chart* itself too; None keeps those of each
                instance.

        Raises:
            ChartError: The chart is wrong, or *actions* do not fit it.
        """
        self.check_thread()
        machine = machine_of(chart)
        if actions is not None:
            actions.check(machine)
        moved: list[str] = []
        kept: dict[str, str] = {}
        for instance in self:
            is_same = instance.machine == machine and actions is None
            if instance.machine.name != machine.name or is_same:
                continue
            try:
                instance.change(machine, actions)
            except (SnapshotError, ChartError, HostStateError) as error:
                kept[instance.id] = str(error)
            else:
                moved.append(instance.id)
        return Replacement(tuple(moved), kept)

    def remove(self, name: str) -> None:
        """Cancel the activities and timers of instance *name*, and forget it, in the store too.

        Inside a step of the instance, such as in a listener, the rest of that step is left out. An
        exception of the store comes out, and the instance stays.

        Raises:
            KeyError: There is no such instance.
        """
        self.check_thread()
        instance = self._instances[name]
        if self.store is not None:
            self.store.forget(name)
        del self._instances[name]
        instance.end()

    def __getitem__(self, name: str) -> Instance[Any]:
        """Return the instance of id *name*.

        Raises:
            KeyError: There is none.
        """
        return self._instances[name]

    def __contains__(self, name: object) -> bool:
        """Return True if there is an instance of id *name*."""
        return name in self._instances

    def __len__(self) -> int:
        """Return the number of instances."""
        return len(self._instances)

    def __iter__(self) -> Iterator[Instance[Any]]:
        """Yield all instances, in the order in which they were started."""
        return iter(list(self._instances.values()))

    # ---- events
    def listen(self, listener: StepListener) -> Callable[[], None]:
        """Call *listener* with each step of each instance, and return a function that ends that.

        It must not wait; an exception is logged.
        """
        return self.listeners.add(listener)

    def events(self, limit: int = _STEP_BUFFER) -> AsyncIterator[Step]:
        """Yield each step of each instance from now on, until the host ends.

        Args:
            limit: Number of steps that a reader may be behind before it loses the oldest.
        """
        return self.listeners.events(limit)

    def post_threadsafe(
        self, name: str, event: str, fields: Mapping[str, Value] | None = None, *,
        payload: Any = None, cause: str = "user",
    ) -> Future[Step | None]:  # fmt: skip
        """Post *event* to the instance of id *name*, from any thread; never waits.

        Events of one thread are processed in the order in which they were posted.

        Returns:
            Future of the step; its exceptions are those of `Instance.post`, and a `KeyError` if
            there is no such instance. An exception is logged, too.

        Raises:
            HostStateError: The host is not running.
        """

        def post() -> Step | None:
            return self._instances[name].post(event, fields, payload=payload, cause=cause)

        return self.call_threadsafe(post)

    def call_threadsafe(self, call: Callable[[], Any]) -> Future[Any]:
        """Run *call* in the thread of the host, from any thread; never waits.

        Raises:
            HostStateError: The host is not running.
        """
        if self._phase != "running":
            raise HostStateError(self._no_host())
        return self._mailbox.put(call)

    # ---- checks
    def check_thread(self) -> None:
        """Check that the caller may step an instance.

        Raises:
            HostStateError: The host is not running.
            WrongThreadError: This is not the thread of the host.
        """
        if self._phase != "running":
            raise HostStateError(self._no_host())
        self.check_no_other_thread("post_threadsafe")

    def check_no_other_thread(self, instead: str) -> None:
        """Check that the host does not run in another thread.

        Args:
            instead: Name of the method that a thread can call.

        Raises:
            WrongThreadError: It does.
        """
        if self._phase == "running" and threading.get_ident() != self._thread:
            name = threading.current_thread().name
            raise WrongThreadError(
                f"called in thread {name!r}, and the host runs in another one; use "
                f"`{instead}`; nothing was changed"
            )

    def _no_host(self) -> str:
        why = "has not begun: enter `async with` first" if self._phase == "new" else "has ended"
        return f"the host {why}; nothing was changed"


def machine_of(chart: Chart) -> Machine:
    """Return the machine of *chart*; compiled charts are kept."""
    if isinstance(chart, Machine):
        return chart
    return Machine.of(chart if isinstance(chart, Document) else _document_of(chart))


@lru_cache(maxsize=128)
def _document_of(chart: type[StateChart[Any]]) -> Document:
    from ...machine import from_class  # loads python-statemachine

    return from_class(chart)


class _CheckedActions:
    """Actions that fit charts; neither is kept alive."""

    def __init__(self) -> None:
        self._machines: dict[int, tuple[weakref.ref[Actions], weakref.WeakSet[Machine]]] = {}

    def check(self, actions: Actions, machine: Machine) -> None:
        """Check *actions* once for each chart; see `Actions.check`."""
        key, known = id(actions), self._machines
        found = known.get(key)
        if found is None:
            gone = weakref.ref(actions, lambda _: known.pop(key, None))
            found = known[key] = gone, weakref.WeakSet()
        if machine not in found[1]:
            actions.check(machine)
            found[1].add(machine)
