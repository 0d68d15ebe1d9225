"""Errors of charts and configurations. Any other exception that escapes is a bug of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .document import Configuration

if TYPE_CHECKING:
    pass


class SwapchartError(Exception):
    """Base class of every error raised on purpose; caught at the outermost layer only."""


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


class NotHandledError(SwapchartError):
    """No transition takes the event in this configuration.

    Attributes:
        event: Name of the event.
        configuration: All active states, outermost first.
    """

    def __init__(self, event: str, configuration: Configuration) -> None:
        super().__init__(f"no transition takes {event!r} in {'.'.join(configuration)}")
        self.event, self.configuration = event, configuration
