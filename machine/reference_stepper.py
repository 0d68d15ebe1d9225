"""Reference stepper: python-statemachine itself, to which all other steppers are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statemachine import StateChart
from statemachine.exceptions import TransitionNotAllowed

from .context import Context
from .document import Configuration, Memory, Value
from .effects import Effect
from .errors import NotHandledError
from .statemachine_chart import configuration_of, memory_of, resume

_NOTHING: Mapping[str, Value] = {}


class ChartStepper:
    """Steps an instance of the python-statemachine class."""

    __slots__ = ("_machine", "context")

    def __init__(self, chart: type[StateChart[Any]], context: Context) -> None:
        self.context = context
        self._machine = chart(context)

    @property
    def configuration(self) -> Configuration:
        """All active states, outermost first."""
        return configuration_of(self._machine)

    @property
    def memory(self) -> Memory:
        """Memory of history states, a part of a snapshot besides configuration and data."""
        return memory_of(self._machine)

    @property
    def is_final(self) -> bool:
        """True if a top-level final state was reached."""
        return any(state.final and state.parent is None for state in self._machine.configuration)

    def begin(self) -> list[Effect]:
        """Return the effects of entering the initial configuration."""
        return self._take()

    def step(self, event: str, data: Mapping[str, Value] = _NOTHING) -> list[Effect]:
        """Take *event*; see `Stepper.step`."""
        for name, value in data.items():
            setattr(self.context, name, value)
        try:
            self._machine.send(event)
        except TransitionNotAllowed as error:
            raise NotHandledError(event, self.configuration) from error
        return self._take()

    def restore(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory = ()
    ) -> None:
        """Restore a snapshot without running any action."""
        self.context.out.clear()
        self.context.restore(values)
        resume(self._machine, self.context, configuration, memory)

    def _take(self) -> list[Effect]:
        out = self.context.out
        self.context.out = []
        return out
