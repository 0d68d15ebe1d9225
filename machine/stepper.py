"""Steppers: one interface to step a chart, and the fast implementation.

`ChartStepper` runs python-statemachine itself. `TableStepper` follows a decision table that was
compiled from that very class; it is some 300 times faster and smaller, and a test holds it equal
step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from .context import Context
from .decision_table import Table
from .document import Configuration, Memory, Value
from .effects import Effect
from .errors import NotHandledError

if TYPE_CHECKING:
    pass

_NOTHING: Mapping[str, Value] = {}


class Stepper(Protocol):
    """One instance of a chart. A step is synchronous, never waits, and returns effects."""

    context: Context

    @property
    def configuration(self) -> Configuration:
        """All active states, outermost first; shape (depth,) without parallel states."""
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
            data: Fields of the event.

        Raises:
            NotHandledError: The chart does not handle this event in this configuration.
        """
        ...


class TableStepper:
    """Follows a decision table that was compiled from the reference class."""

    __slots__ = ("_rows", "_table", "configuration", "context", "is_final")

    def __init__(self, table: Table, context: Context) -> None:
        self.context = context
        self._table = table
        self._enter(table.initial)

    def _enter(self, configuration: Configuration) -> None:
        self._rows = self._table.rows[configuration]
        self.configuration: Configuration = configuration
        self.is_final = configuration in self._table.final

    @property
    def memory(self) -> Memory:
        """Empty: a chart with history has no table."""
        return ()

    def begin(self) -> list[Effect]:
        """Return the effects of entering the initial configuration."""
        for name in self._table.entry_actions:
            getattr(self.context, name)()
        out = self.context.out
        self.context.out = []
        return out

    def restore(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory = ()
    ) -> None:
        """Restore a snapshot without running any action.

        Raises:
            KeyError: The chart cannot be in *configuration*.
        """
        assert not memory, "a chart with history has no table"
        self._enter(configuration)
        self.context.out.clear()
        self.context.restore(values)

    def step(self, event: str, data: Mapping[str, Value] = _NOTHING) -> list[Effect]:
        """Take *event*; see `Stepper.step`."""
        node = self._rows.get(event)
        if node is None:
            raise NotHandledError(event, self.configuration)
        context = self.context
        if data:
            for name, value in data.items():
                setattr(context, name, value)
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
                context.out = []
                raise NotHandledError(event, self.configuration)
