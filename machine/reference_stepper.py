"""Reference stepper: python-statemachine itself, to which all other steppers are compared."""

from __future__ import annotations

from collections.abc import Mapping

from statemachine.exceptions import TransitionNotAllowed

from .context import Context
from .document import Configuration, Memory, Value
from .effects import Effect
from .errors import EventError, EventlessLoopError, NotHandledError
from .microsteps import MicrostepRunner, TooManyStepsError, resume, state_of

_NOTHING: Mapping[str, Value] = {}


class ChartStepper:
    """Steps an instance of the python-statemachine class."""

    __slots__ = ("_machine", "_runner", "configuration", "context", "memory")

    def __init__(self, runner: MicrostepRunner, context: Context) -> None:
        self._runner = runner
        self.context = context
        self._machine = runner.make(context)
        try:
            runner.begin(self._machine)
        except TooManyStepsError:
            raise self._endless("") from None
        self._note()

    def _note(self) -> None:
        #: All active states, in document order, and the memory of history states.
        self.configuration: Configuration = self._runner.configuration_of(self._machine)
        self.memory: Memory = self._runner.memory_of(self._machine)

    @property
    def is_final(self) -> bool:
        """True if the chart has ended."""
        return not self._machine._engine.running

    def begin(self) -> list[Effect]:
        """Return the effects of entering the initial configuration."""
        return self._take()

    def step(self, event: str, data: Mapping[str, Value] = _NOTHING) -> list[Effect]:
        """Take *event*; see `Stepper.step`."""
        context = self.context
        before = self.configuration, context.values(), self.memory
        if self.is_final:
            raise NotHandledError(event, self.configuration)
        try:
            context.receive(**data)
        except TypeError as error:
            raise EventError(event, str(error)) from error
        # The order of the regions is that of the document, not of the way that led here.
        context.state = state_of(self.configuration)
        try:
            self._runner.take(self._machine, event)
        except BaseException as error:
            endless = self._endless(event) if isinstance(error, TooManyStepsError) else None
            self.restore(*before)
            if endless is not None:
                raise endless from None
            if isinstance(error, TransitionNotAllowed):
                raise NotHandledError(event, self.configuration) from error
            raise
        finally:
            context.receive()
        self._note()
        return self._take()

    def can(self, event: str, data: Mapping[str, Value] = _NOTHING) -> bool:
        """Return True if the chart handles *event* now; changes nothing."""
        before = self.configuration, self.context.values(), self.memory
        try:
            self.step(event, data)
        except NotHandledError:
            return False
        self.restore(*before)
        return True

    def restore(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory = ()
    ) -> None:
        """Restore a snapshot without running any action."""
        self.context.out.clear()
        self.context.restore(values)
        resume(self._machine, self.context, configuration, memory)
        self._note()

    def _endless(self, event: str) -> EventlessLoopError:
        before = self.configuration if event else ()
        return EventlessLoopError(self._runner.configuration_of(self._machine), event, before)

    def _take(self) -> list[Effect]:
        out = self.context.out
        self.context.out = []
        return out
