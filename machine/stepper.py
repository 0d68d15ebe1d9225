"""Steppers: one interface to step a chart, and the fast implementation.

`ChartStepper` runs python-statemachine itself. `TableStepper` follows a decision table that was
compiled from that very class; it is some 300 times faster and smaller, and a test holds it equal
step by step. `HistoryTableStepper` is the same for charts with history states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from .context import Context
from .decision_table import Table
from .document import Configuration, Memory, Value
from .effects import Effect
from .errors import EventError, EventlessLoopError, NotHandledError

_NOTHING: Mapping[str, Value] = {}


class Stepper(Protocol):
    """One instance of a chart. A step is synchronous, never waits, and returns effects.

    A stepper takes what it is given: `Machine` validates events and data, and undoes a step that
    fails.
    """

    context: Context

    @property
    def configuration(self) -> Configuration:
        """All active states, in document order; shape (depth,) without parallel states."""
        ...

    @property
    def is_final(self) -> bool:
        """True if the chart has ended and takes no more events."""
        ...

    @property
    def memory(self) -> Memory:
        """Memory of history states; empty in a chart without them."""
        ...

    def begin(self) -> list[Effect]:
        """Return the effects of entering the initial configuration; once, before any step."""
        ...

    def restore(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory = ()
    ) -> None:
        """Restore a snapshot without running any action."""
        ...

    def step(self, event: str, data: Mapping[str, Value] = _NOTHING) -> list[Effect]:
        """Take *event* to the end of its macrostep and return the emitted effects.

        Args:
            event: Name of a declared event.
            data: Fields of the event; those not given have the first value of their domain.

        Raises:
            NotHandledError: The chart does not handle this event in this configuration.
            EventError: No event has such a field.
            EventlessLoopError: The step does not end.
        """
        ...

    def can(self, event: str, data: Mapping[str, Value] = _NOTHING) -> bool:
        """Return True if the chart handles *event* now; changes nothing."""
        ...


class TableStepper:
    """Follows a decision table that was compiled from the reference class."""

    __slots__ = ("_rows", "_table", "configuration", "context", "is_final")

    def __init__(self, table: Table, context: Context) -> None:
        self.context = context
        self._table = table
        self.configuration: Configuration = table.initial
        self._rows, self.is_final = table.first

    def _enter(self, configuration: Configuration) -> None:
        self._rows = self._table.rows[configuration]
        self.configuration = configuration
        self.is_final = configuration in self._table.final

    @property
    def memory(self) -> Memory:
        """Memory of history states: empty."""
        return ()

    def begin(self) -> list[Effect]:
        """Return the effects of entering the initial configuration."""
        for name in self._table.entry_actions:
            getattr(self.context, name)()
        out = self.context.out
        self.context.out = []
        return out

    def start(self, node: tuple[Any, ...]) -> None:
        """Enter the initial configuration where it depends on guards; once, before `begin`.

        Args:
            node: Tree of the start; see `Table.start`.
        """
        while node[0] != "goto":
            if node[0] == "do":
                getattr(self.context, node[1])()
                node = node[2]
            elif node[0] == "ask":
                node = node[2] if getattr(self.context, node[1])() else node[3]
            else:
                node = self._follow("", node)
        self._enter(node[1])

    def restore(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory = ()
    ) -> None:
        """Restore a snapshot without running any action.

        Raises:
            KeyError: The chart cannot be in *configuration*.
        """
        assert not memory, "a chart without history states has no memory"
        self._enter(configuration)
        self.context.out.clear()
        self.context.restore(values)

    def step(self, event: str, data: Mapping[str, Value] = _NOTHING) -> list[Effect]:
        """Take *event*; see `Stepper.step`."""
        node = self._rows.get(event)
        if node is None:
            raise NotHandledError(event, self.configuration)
        if data:
            return self._step_with(event, data)
        context = self.context
        try:
            while True:
                kind = node[0]
                if kind == "do":
                    getattr(context, node[1])()
                    node = node[2]
                elif kind == "ask":
                    node = node[2] if getattr(context, node[1])() else node[3]
                elif kind == "goto":
                    if node[1] is not self.configuration:
                        self._enter(node[1])
                    out = context.out
                    context.out = []
                    return out
                else:
                    node = self._follow(event, node)
        except BaseException:
            context.out = []  # else they would be returned by the next step
            raise

    def _follow(self, event: str, node: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the node after *node*, which is none of the common kinds.

        Raises:
            NotHandledError: No guard lets the event pass.
            EventlessLoopError: The step does not end.
        """
        if node[0] == "loop":
            raise EventlessLoopError(node[1], event, self.configuration)
        raise NotHandledError(event, self.configuration)

    def _step_with(self, event: str, data: Mapping[str, Value]) -> list[Effect]:
        """Take *event* with fields, which are reset afterward; an exception undoes the step."""
        context = self.context
        values = context.values()
        _receive(context, event, data)
        try:
            return self.step(event)
        except BaseException:
            context.restore(values)
            raise
        finally:
            context.receive()

    def can(self, event: str, data: Mapping[str, Value] = _NOTHING) -> bool:
        """Return True if the chart handles *event* now; changes nothing."""
        node = self._rows.get(event)
        if node is None:
            return False
        context = self.context
        _receive(context, event, data)
        try:
            while node[0] == "ask":
                node = node[2] if getattr(context, node[1])() else node[3]
        finally:
            context.receive()
        return bool(node[0] != "refuse")


class HistoryTableStepper(TableStepper):
    """Follows the decision table of a chart with history states.

    Attributes:
        kept: Memory of history states by their ids.
    """

    __slots__ = ("_next", "kept")

    def __init__(self, table: Table, context: Context) -> None:
        self.kept: dict[str, tuple[str, ...]] = {}
        self._next: dict[str, tuple[str, ...]] | None = None  # of the step in progress
        super().__init__(table, context)

    @property
    def memory(self) -> Memory:
        """Memory of history states, by id."""
        return tuple(sorted(self.kept.items()))

    def restore(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory = ()
    ) -> None:
        """Restore a snapshot without running any action; see `TableStepper.restore`."""
        super().restore(configuration, values)
        self.kept = dict(memory)

    def step(self, event: str, data: Mapping[str, Value] = _NOTHING) -> list[Effect]:
        """Take *event*; see `Stepper.step`."""
        self._next = None
        return super().step(event, data)

    def _follow(self, event: str, node: tuple[Any, ...]) -> tuple[Any, ...]:
        kind = node[0]
        if kind == "remember":
            if self._next is None:
                self._next = dict(self.kept)
            self._next[node[1]] = node[2]
            return _tree(node[3])
        if kind == "recall":
            return _tree(node[2].get(self.kept.get(node[1]), node[3]))
        if kind == "leave":
            assert self._next is not None, "a tree remembers before it leaves"
            self.kept, self._next = self._next, None
            return ("goto", node[1])
        return super()._follow(event, node)


def _tree(tree: tuple[Any, ...]) -> tuple[Any, ...]:
    return tree


def _receive(context: Context, event: str, data: Mapping[str, Value]) -> None:
    try:
        context.receive(**data)
    except TypeError as error:
        raise EventError(event, f"no event has one of these fields: {', '.join(data)}") from error
