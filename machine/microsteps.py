"""Macrosteps of a python-statemachine instance, taken one microstep at a time.

The library runs a macrostep to its end, which a cycle of eventless transitions never reaches. Here
each microstep is counted, and a `Watch` may look at the machine between two of them. All states
are numbered in document order, so that regions of a parallel state are exited, entered and
reported in one order, whatever way led there.

The engine's parts used here are private and have no public counterpart, so a test checks that they
still exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from statemachine import StateChart
from statemachine.engines.base import _processing_step
from statemachine.event import BoundEvent
from statemachine.event_data import TriggerData
from statemachine.orderedset import OrderedSet

from .document import Configuration, Document, Memory, walk
from .statemachine_chart import compile_chart

#: Microsteps of one macrostep after which it counts as endless.
MOST_MICROSTEPS = 1_000

#: Called with the pending internal events, in order, before a microstep that no event of a user
#: begins; may raise to end the macrostep.
Watch: TypeAlias = Callable[[tuple[str, ...]], None]


class TooManyStepsError(Exception):
    """A macrostep took more than `MOST_MICROSTEPS` microsteps."""


class MicrostepRunner:
    """The python-statemachine class of a document, and how its instances are stepped.

    Args:
        document: The chart.
        chart: A class of the same states; None makes the one of *document*.

    Raises:
        ChartError: python-statemachine rejects the structure, such as an unreachable state.
    """

    def __init__(self, document: Document, chart: type[StateChart[Any]] | None = None) -> None:
        self._class = chart or compile_chart(document)
        self._numbers = {name: number for number, (name, _, _) in enumerate(document.states())}
        for state in _all_states(self._class.states):
            state.document_order = self._numbers[state.id]
        self._first = next(iter(document.chart["states"]))
        #: States that are left or acted on without an event, ancestors included.
        self._eventless = frozenset(
            inside
            for name, definition, _ in document.states()
            if any(not item.get("event") for item in definition.get("transitions") or ())
            for inside in (name, *(n for n, _, _ in walk(definition.get("states") or {})))
        )

    def make(self, model: Any) -> StateChart[Any]:
        """Return an instance that has not entered its initial configuration."""
        model.state = self._first  # an instance whose state is set does not start by itself
        machine = self._class(model)
        model.state = None
        return machine

    def begin(self, machine: StateChart[Any], watch: Watch | None = None) -> None:
        """Enter the initial configuration and run to a stable one."""
        engine = machine._engine
        trigger = TriggerData(machine, event=BoundEvent("__initial__", _sm=machine))
        with _stepping(engine):
            transitions = engine._initial_transitions(trigger)
            engine._enter_states(transitions, trigger, OrderedSet(), OrderedSet())
            self._settle(machine, watch)

    def take(self, machine: StateChart[Any], event: str, watch: Watch | None = None) -> None:
        """Take *event* to the end of its macrostep.

        Raises:
            TransitionNotAllowed: The chart does not handle it.
            TooManyStepsError: The macrostep does not end.
        """
        engine = machine._engine
        engine.clear_cache()
        trigger = TriggerData(machine, event=BoundEvent(event, name=event, _sm=machine))
        with _stepping(engine):
            engine._take_external_event(trigger)
            if engine.running:
                self._settle(machine, watch)

    def _settle(self, machine: StateChart[Any], watch: Watch | None) -> None:
        """Take eventless transitions and internal events until there are none."""
        engine = machine._engine
        queue = engine.internal_queue
        for _ in range(MOST_MICROSTEPS):
            may_leave = not self._eventless.isdisjoint(active_ids(machine))
            if not may_leave and queue.is_empty():
                engine._check_root_final_state()
                return
            if watch is not None:
                watch(tuple(str(pending.event) for pending in sorted(queue.queue.queue)))
            engine.clear_cache()
            trigger = TriggerData(machine, event=None)
            enabled = engine.select_eventless_transitions(trigger) if may_leave else None
            if not enabled:
                if queue.is_empty():
                    engine._check_root_final_state()
                    return
                trigger = queue.pop()
                enabled = engine.select_transitions(trigger)
            if enabled:
                engine.microstep(list(enabled), trigger)
        raise TooManyStepsError

    def configuration_of(self, machine: StateChart[Any]) -> Configuration:
        """Return all active states, in document order."""
        return tuple(sorted(active_ids(machine), key=self._numbers.__getitem__))

    def memory_of(self, machine: StateChart[Any]) -> Memory:
        """Return the memory of the history states, each in document order."""
        return tuple(
            (history, self.kept(states))
            for history, states in sorted(machine.history_values.items())
        )

    def kept(self, states: Any) -> tuple[str, ...]:
        """Return the ids of remembered *states*, in document order."""
        return tuple(sorted((state.id for state in states), key=self._numbers.__getitem__))


@contextmanager
def _stepping(engine: Any) -> Iterator[None]:
    """Mark *engine* as running a step, so that an event which an action raises is only queued."""
    engine._processing.acquire(blocking=False)
    try:
        with _processing_step(engine):
            yield
    finally:
        engine._processing.release()


def put(machine: StateChart[Any], model: Any, configuration: Configuration) -> None:
    """Put *machine* into *configuration*, running, without any action and with its memory kept.

    The library resumes from ``model.state`` only in a new instance, which takes ten times as long.
    """
    machine._engine.running = True
    machine._engine.clear()
    model.state = state_of(configuration)


def resume(
    machine: StateChart[Any], model: Any, configuration: Configuration, memory: Memory = ()
) -> None:
    """Put *machine* into *configuration* with *memory*, without any action."""
    put(machine, model, configuration)
    if memory or machine.history_values:
        states = {state.id: state for state in machine.states_map.values()}
        machine.history_values = {name: [states[s] for s in kept] for name, kept in memory}
    machine._engine.running = not is_ended(machine)


def state_of(configuration: Configuration) -> object:
    """Return *configuration* as the library keeps it; an empty one is that of no start yet."""
    if len(configuration) > 1:
        return OrderedSet(configuration)
    return configuration[0] if configuration else None


def is_ended(machine: StateChart[Any]) -> bool:
    """Return True if the active states are those of a chart that has ended."""
    engine = machine._engine
    return any(
        state.parent is None
        and (state.final or (state.parallel and engine.is_in_final_state(state)))
        for state in machine.configuration
    )


def active_ids(machine: StateChart[Any]) -> Any:
    """Return the ids of all active states, in the library's order."""
    raw = machine.model.state
    return (raw,) if isinstance(raw, str) else raw if raw is not None else ()


def _all_states(states: Any) -> Any:
    for state in states:
        yield state
        yield from _all_states(state.states)
