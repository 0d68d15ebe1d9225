"""Errors of charts and configurations. Any other exception that escapes is a bug of ours."""

from __future__ import annotations

from .document import Configuration


class SwapchartError(Exception):
    """Base class of every error raised on purpose; caught at the outermost layer only."""

    def __reduce__(self) -> tuple[object, ...]:
        """Return what makes the error again: its text is not what its class is called with."""
        state = dict(getattr(self, "__dict__", {}))  # compiled, it is there once something is set
        return _made_again, (type(self), self.args, state)


def _made_again(
    kind: type[SwapchartError], args: tuple[object, ...], state: dict[str, object]
) -> SwapchartError:
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error


class ConfigError(SwapchartError):
    """The configuration is wrong, and nothing was started.

    Attributes:
        where: Dotted path into the configuration, such as ``models.qwen.ttl``.
        why: What was expected and what was found.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where, self.why = where, why


class ChartError(ConfigError):
    """A chart document is wrong: an unknown name or target, or something a format lacks.

    Attributes:
        position: Line and column of the part at ``where``, both from 1; None if not known.
        file: Name of the file; empty if not known.
        problems: All problems of the document, of an error that stands for several.
    """

    def __init__(
        self,
        where: str,
        why: str,
        *,
        position: tuple[int, int] | None = None,
        file: str = "",
        problems: tuple[ChartError, ...] = (),
    ) -> None:
        super().__init__(where, why)
        self.position, self.file, self.problems = position, file, problems

    def at(self, file: str, position: tuple[int, int] | None) -> ChartError:
        """Return this error with its place in a text."""
        return ChartError(self.where, self.why, position=position, file=file)

    def __str__(self) -> str:
        """Return the place, as compilers write it, the path and what is wrong."""
        if self.position is None:
            place = f"{self.file}: " if self.file else ""
        elif self.file:
            place = f"{self.file}:{self.position[0]}:{self.position[1]}: "
        else:
            place = f"line {self.position[0]}, column {self.position[1]}: "
        return f"{place}{self.where}: {self.why}"


class EventlessLoopError(ChartError):
    """Eventless transitions lead back to where they began, so a step would never end.

    Attributes:
        states: States of the loop, in the order in which they are entered.
        event: Event after which the loop begins; empty for the start of the chart.
        configuration: Configuration in which the event came; empty at the start.
    """

    def __init__(
        self, states: tuple[str, ...], event: str, configuration: Configuration, when: str = ""
    ) -> None:
        after = f"after {event!r} in {'.'.join(configuration)}" if event else "at the start"
        super().__init__(
            "chart.states",
            f"eventless transitions go round for ever through {', '.join(states)} {after}"
            f"{when}; give one of them an event, or a guard that ends the loop",
        )
        self.states, self.event, self.configuration = states, event, configuration
        self.when = when

    def __reduce__(self) -> tuple[object, ...]:
        """Return the arguments, so that the error can be copied and pickled."""
        return type(self), (self.states, self.event, self.configuration, self.when)


class NotHandledError(SwapchartError):
    """No transition takes the event in this configuration.

    Attributes:
        event: Name of the event.
        configuration: All active states, in document order.
    """

    def __init__(self, event: str, configuration: Configuration) -> None:
        super().__init__(f"no transition takes {event!r} in {'.'.join(configuration)}")
        self.event, self.configuration = event, configuration


class EventError(SwapchartError):
    """An event was posted that the chart does not declare in this form; nothing was changed.

    Attributes:
        event: Name of the event.
        why: What was expected and what was found.
    """

    def __init__(self, event: str, why: str) -> None:
        super().__init__(f"event {event!r}: {why}")
        self.event, self.why = event, why


class StepError(SwapchartError):
    """A guard or an assignment failed in a step; the instance is as before the event.

    Attributes:
        event: Name of the event.
        configuration: All active states, in document order.
        why: What failed.
    """

    def __init__(self, event: str, configuration: Configuration, why: str) -> None:
        where = ".".join(configuration)
        super().__init__(f"the step of {event!r} in {where} was undone: {why}")
        self.event, self.configuration, self.why = event, configuration, why


class SnapshotError(SwapchartError):
    """A snapshot is damaged, or does not fit the chart; nothing was started.

    Attributes:
        where: Path into the snapshot, such as ``data.amount``.
        why: What was expected and what was found.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"snapshot: {where}: {why}")
        self.where, self.why = where, why
