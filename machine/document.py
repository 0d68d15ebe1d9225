"""Chart documents as values: data, events, guards, actions, promises and the chart itself.

A document is python-statemachine's native dialect under ``chart`` and, beside it, what that
dialect cannot express: the data that guards read, the effects that actions emit, the senders of
events, and the promises of the chart. `parse` makes a document of YAML and checks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from ..dataclass import dataclass, field
from .effects import Effect

FORMAT = "swapchart.chart/v1"

Origin: TypeAlias = Literal["user", "activity", "timer", "process", "chart"]
Value: TypeAlias = str | int | bool
#: All active states, outermost first; shape (depth,) without parallel states.
Configuration: TypeAlias = tuple[str, ...]
#: Memory of history states: (history id, ids of the states to enter), by history id.
Memory: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Datum:
    """One variable of an instance, or one parameter of it.

    Attributes:
        initial: Value at the start.
        values: The whole domain, or None for a count.
    """

    initial: Value
    values: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDecl:
    """Declaration of an event: its sender and its fields.

    Attributes:
        origin: user, activity, timer, process, or chart for one that its own actions raise.
        of: The activity or timer that sends it; empty for the other origins.
        on: ``done`` if the runtime sends it when the activity *of* returns no event, ``error`` when
            that fails; else empty.
        data: Field name -> its domain; guards and actions may read the fields.
        payload: True if it may carry a payload, which no guard or action reads.
        description: Words for readers.
    """

    origin: Origin
    of: str = ""
    on: str = ""
    data: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    payload: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDecl:
    """Declaration of an action: its assignments and effects.

    Attributes:
        effects: Effects in order.
        assigns: Data name -> expression; all are evaluated before any is assigned.
        when: Expression; if it is false, the action does nothing. None means always.
        raises: Events that the chart takes within the same step, after the effects.
        description: Words for readers.
    """

    effects: tuple[Effect, ...] = ()
    assigns: Mapping[str, str] = field(default_factory=dict)
    when: str | None = None
    raises: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """State *begin*, once entered, is followed by one visit of *end*.

    Attributes:
        by: States that must not be entered before the visit, besides the quiet and final ones.
        unless: Events after which the visit is no longer due.
        also: Events that make the visit due too, as if *begin* was entered.
    """

    begin: str
    end: str
    by: frozenset[str] = frozenset()
    unless: frozenset[str] = frozenset()
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """How the chart counts requests.

    Attributes:
        ask: Event of a new request, which is queued, admitted or rejected.
        give_up: Event of a waiting request that leaves.
        done: Event of an admitted request that has ended. It comes sooner or later.
        waiting: Datum that counts waiting requests.
        served: Datum that counts admitted requests.
    """

    ask: str
    give_up: str
    done: str
    waiting: str
    served: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """How the chart knows its process.

    Attributes:
        activity: Activity that launches it; it may outlive its state, and always answers.
        up: Event after which the process exists.
        down: Events after which it does not exist.
        needed_by: Activities that need a live process; a kill always does.
        found: Event by which a process of an earlier program comes; only while there is none, and
            in the states in which the chart begins. Empty means that none ever does.
    """

    activity: str
    up: str
    down: frozenset[str]
    needed_by: frozenset[str] = frozenset()
    found: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Always:
    """One promise: whenever the premise holds for a step, the conclusion does.

    Expressions read data after the step, and data before it as ``was_NAME``.

    Attributes:
        why: The promise in words.
        events: Premise: the step took one of these events; empty means any.
        before: Premise: one of these states was active before the step; empty means any.
        into: Premise: one of these states is active now and was not before; empty means any.
        inside: Premise: one of these states is active after the step; empty means any.
        given: Premise: this expression is true; None means always.
        to: One of these states is active after the step; empty demands nothing.
        never: None of these states is active after the step.
        stays: The step changes no state.
        then: This expression is true; None demands nothing.
        asks: Effects that the step emits, such as ``timer.start grace``.
        spares: Effects that the step does not emit.
        live: Activities and timers that run after the step.
        dead: Activities and timers that do not run after the step.
    """

    why: str
    events: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    into: frozenset[str] = frozenset()
    inside: frozenset[str] = frozenset()
    given: str | None = None
    to: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    stays: bool = False
    then: str | None = None
    asks: frozenset[str] = frozenset()
    spares: frozenset[str] = frozenset()
    live: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """Promises of a chart, which the checker proves or refutes.

    Attributes:
        rest: Atomic states that may last forever.
        quiet: Atomic states in which no process may exist.
        serving: The only atomic states in which requests are admitted.
        pairs: See `Pair`.
        requests: See `Requests`; None if the chart counts none.
        process: See `Process`; None if the chart has none.
        stopping: State in which stop callers wait; leaving it answers them.
        unsure: Activities and timers that may never answer, so nothing may depend on them.
        reliable: Activities that never fail.
        patience: Events that do not repeat forever.
        always: See `Always`.
    """

    rest: frozenset[str] = frozenset()
    quiet: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()
    pairs: tuple[Pair, ...] = ()
    requests: Requests | None = None
    process: Process | None = None
    stopping: str = ""
    unsure: frozenset[str] = frozenset()
    reliable: frozenset[str] = frozenset()
    patience: frozenset[str] = frozenset()
    always: tuple[Always, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A chart document, checked.

    Attributes:
        name: Name of the chart.
        description: Words for readers.
        timers: Timer -> duration in seconds; a timer without one gets it from the program.
        version: Version of the chart, chosen by its author; empty if it has none.
        payload: Type of the opaque payload of an instance, in words; empty if it has none.
        notes: Action -> its meaning for one instance, such as the seconds of its timer.
        guard_texts: Guard whose name was generated -> its expression, for readers.
        chart: The native-dialect part, as read: ``{"name": .., "states": {..}}``.
        source: The whole document with its short forms expanded, for export and for overlays.
    """

    name: str
    data: Mapping[str, Datum]
    parameters: Mapping[str, Datum]
    events: Mapping[str, EventDecl]
    guards: Mapping[str, str]
    actions: Mapping[str, ActionDecl]
    promises: Promises
    notes: Mapping[str, str] = field(default_factory=dict)
    guard_texts: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    timers: Mapping[str, float] = field(default_factory=dict)
    version: str = ""
    payload: str = ""
    chart: Mapping[str, Any]
    source: Mapping[str, Any]

    def __hash__(self) -> int:
        """Return a hash of the names; equal documents have the same one."""
        names = (self.data, self.parameters, self.events, self.guards, self.actions)
        return hash((self.name, self.version, *(frozenset(section) for section in names)))

    def states(self) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
        """Yield ``(id, definition, ancestors outermost first)`` in document order."""
        yield from walk(self.chart["states"])

    def noted(self, actions: Iterable[str]) -> tuple[str, ...]:
        """Return the names of *actions*, each followed by its note if it has one."""
        return tuple(
            f"{name} ({self.notes[name]})" if name in self.notes else name for name in actions
        )

    def event_fields(self) -> frozenset[str]:
        """Return the names of all fields that come with events."""
        return frozenset(name for event in self.events.values() for name in event.data)


def state_path(name: str, above: Iterable[str]) -> str:
    """Return the path of state *name* below its ancestors, outermost first."""
    return "chart.states." + ".states.".join((*above, name))


def walk(
    states: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
    """Yield ``(id, definition, ancestors)`` of *states* and all below, in document order."""
    for name, raw in states.items():
        definition = raw or {}
        yield name, definition, above
        yield from walk(definition.get("states") or {}, (*above, name))


def as_list(value: Any) -> list[Any]:
    """Return *value* as a list: None is empty, one string or mapping is one item."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def split_words(value: Any) -> tuple[str, ...]:
    """Return the names in *value*, separated by spaces; None has none."""
    return tuple(str(value or "").split())
