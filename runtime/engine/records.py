"""Record of one step of an instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from ...dataclass import dataclass, field
from ...machine import Configuration, Effect, Value

#: ``begun`` for the entry of the initial configuration, ``taken`` for an event, ``dropped`` for an
#: answer of an activity that was canceled before, or an event after the end of the chart.
Kind: TypeAlias = Literal["begun", "taken", "dropped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One event that was processed.

    Attributes:
        at: Time in seconds on the loop's clock.
        event: Name of the event; empty for the entry of the initial configuration.
        source: Configuration before, in document order; empty for the initial entry.
        target: Configuration after, in document order.
        name: Id of the instance.
        number: Number of the step; the initial entry is 0. A dropped event has that of the last
            step.
        kind: What became of the event.
        fields: Fields of the event, defaults included.
        payload: Payload of the event, or None.
        actions: Names of the actions that ran, in order.
        effects: Effects that the step requested, in order.
        data: The chart's data after the step.
        cause: Sender of the event: ``user``, ``activity NAME``, ``timer NAME``, or what the caller
            of `post` gave.
    """

    at: float
    event: str
    source: Configuration
    target: Configuration
    name: str = ""
    number: int = 0
    kind: Kind = "taken"
    fields: Mapping[str, Value] = field(default_factory=dict)
    payload: Any = None
    actions: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    data: Mapping[str, Value] = field(default_factory=dict)
    cause: str = ""
