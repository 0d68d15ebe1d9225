"""State of one instance: its chart, configuration, data and work, and the snapshot of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from ...machine import Configuration, Effect, Machine, Snapshot, Value
from ..listeners import Listeners
from .actions import Actions
from .records import Step
from .saving import after_effects, kept, pending
from .waits import Waits
from .work import Post, Work

if TYPE_CHECKING:
    from .links import HostLink

P = TypeVar("P")

_NO_FIELDS: Mapping[str, Value] = {}


class InstanceState(Generic[P]):
    """The state of one instance, without what changes it.

    Attributes:
        id: Id of the instance, unique in its host.
        machine: The chart.
        payload: Data of the program, which no guard or action reads; activities get it.
        number: Number of steps taken so far.
    """

    __slots__ = (
        "_actions", "_due", "_ended_at", "_host", "_inbox", "_is_stepping", "_listeners",
        "_phase", "_stepper", "_waits", "_work", "id", "machine", "number", "payload",
    )  # fmt: skip

    def __init__(
        self, host: HostLink, machine: Machine, name: str, actions: Actions,
        parameters: Mapping[str, Value], payload: P,
    ) -> None:  # fmt: skip
        self.id, self.machine, self.payload = name, machine, payload
        self.number = 0
        self._host, self._actions = host, actions
        self._stepper = machine.traced_stepper(**parameters)
        self._inbox: deque[Post] | None = None
        #: Event of the step in progress, and its effects that are not performed yet.
        self._due: tuple[Post, deque[Effect]] | None = None
        #: Wall clock and loop's clock at the end of the instance; None before.
        self._ended_at: tuple[float, float] | None = None
        self._is_stepping = False
        self._phase = "new"
        self._work: Work | None = None
        self._waits: Waits | None = None
        self._listeners: Listeners[Step] | None = None

    def __repr__(self) -> str:
        """Return id, chart and configuration."""
        return f"<Instance {self.id!r} of {self.machine.name} in {'.'.join(self.configuration)}>"

    def __reduce__(self) -> tuple[object, ...]:
        """Refuse to be pickled: a running instance holds tasks and timers."""
        raise TypeError(f"{self!r} cannot be pickled; pickle its snapshot()")

    @property
    def configuration(self) -> Configuration:
        """All active states, in document order."""
        return self._stepper.configuration

    @property
    def has_begun(self) -> bool:
        """True from the first step on."""
        return self._phase != "new"

    @property
    def active(self) -> frozenset[str]:
        """All active states, as a set."""
        return frozenset(self._stepper.configuration)

    @property
    def is_final(self) -> bool:
        """True if the chart has ended."""
        return self._stepper.is_final

    @property
    def data(self) -> dict[str, Value]:
        """The chart's data by name."""
        return dict(zip(self.machine.document.data, self._stepper.context.values(), strict=True))

    @property
    def parameters(self) -> dict[str, Value]:
        """The chart's parameters by name."""
        return self._stepper.context.parameters()

    def can(self, event: str, fields: Mapping[str, Value] = _NO_FIELDS) -> bool:
        """Return True if the chart handles *event* now; nothing changes.

        Raises:
            EventError: The chart declares no such event, or not with these fields.
        """
        self._host.check_no_other_thread("Host.call_threadsafe")
        given = self.machine.fields(event, fields)
        return not self.is_final and self._stepper.can(event, given)

    def snapshot(self) -> Snapshot:
        """Return everything that the instance needs to go on in another process.

        Inside a step, such as in a listener, it is the state after that step, with the activities
        and timers that the step starts and the events that were posted in it. After the end of
        the instance it is the state at that end.
        """
        self._host.check_no_other_thread("Host.call_threadsafe")
        wall, now = self._ended_at or (self._host.wall(), self._host.timers.now())
        work, machine, stepper = self._work, self.machine, self._stepper
        timers = work.deadlines() if work is not None else {}
        running = {name: kept(c) for name, c in work.running().items()} if work is not None else {}
        waiting = [*work.retrying(), *(self._inbox or ())] if work is not None else self._inbox
        if self._due is not None:
            post, effects = self._due
            seconds = self._actions.seconds(machine)
            after_effects(effects, timers, running, seconds, now, post)
        return Snapshot(
            id=self.id, chart=machine.name, version=machine.version, digest=machine.digest,
            number=self.number, taken_at=wall, configuration=stepper.configuration,
            data=self.data, parameters=self.parameters, memory=stepper.memory,
            timers={name: deadline + wall - now for name, deadline in timers.items()},
            activities=tuple(running.values()), pending=pending(waiting or ()),
            payload=self.payload,
        )  # fmt: skip

    def _label(self) -> str:
        return f"{self.machine.name} {self.id!r}"
