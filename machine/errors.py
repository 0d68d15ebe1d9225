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
    """A chart document is wrong: an unknown name or target, or something a format lacks."""


class NotHandledError(SwapchartError):
    """No transition takes the event in this configuration.

    Attributes:
        event: Name of the event.
        configuration: All active states, outermost first.
    """

    def __init__(self, event: str, configuration: Configuration) -> None:
        super().__init__(f"no transition takes {event!r} in {'.'.join(configuration)}")
        self.event, self.configuration = event, configuration
