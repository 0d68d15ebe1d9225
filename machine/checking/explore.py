"""Exploration of everything that a chart can do, together with everything that the world may do.

A `Situation` is the state of the runtime: configuration, data, the process, what runs (timers and
activities), and which promised visits are due. In each, every event that something can send is
tried: users' events at any time, a timer's only while it is armed, an activity's only while it
runs, the process's only while it lives. Answers of canceled activities never come, because the
runtime drops them, so no queue has to be modeled.

Steps are those of python-statemachine itself, through the decision table recorded from it, which a
test holds equal to it; charts with history are stepped by the class directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from ...dataclass import dataclass
from ..compiled import Compiled
from ..document import Configuration, Document, EventDecl, Memory, Value
from ..effects import Effect
from ..errors import ChartError, NotHandledError
from ..stepper import Stepper
from .marks import without_marks

_MOST_COMBINATIONS = 10_000

Being: TypeAlias = Literal["none", "spawning", "alive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of the exploration.

    Attributes:
        waiting: Maximum number of waiting requests; >= 1.
        served: Maximum number of admitted requests beyond those that wait; >= 1.
        counts: Maximum of any other count, and of parameters that are counts; >= 1. At 1 no restart
            limit of the shipped chart exceeds the number of failures.
    """

    waiting: int = 1
    served: int = 1
    counts: int = 2


class Input(NamedTuple):
    """One event with its fields."""

    event: str
    data: tuple[tuple[str, Value], ...] = ()

    def __str__(self) -> str:
        """Return the input as a call."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self.data)
        return f"{self.event}({fields})" if fields else self.event


class Situation(NamedTuple):
    """Joint state of chart and world.

    Attributes:
        configuration: All active states.
        values: The data, in the order of the document.
        memory: Memory of history states.
        process: True if the process exists.
        running: Names of live activities and armed timers.
        owed: Indexes of the promised pairs whose end is due.
    """

    configuration: Configuration
    values: tuple[Value, ...]
    memory: Memory = ()
    process: Being = "none"
    running: frozenset[str] = frozenset()
    owed: frozenset[int] = frozenset()


class Reaction(NamedTuple):
    """Reaction of the chart to one input.

    Attributes:
        configuration: All active states after it.
        values: The data after it.
        memory: Memory of history states after it.
        effects: Effects in order.
        is_final: The chart has ended.
    """

    configuration: Configuration
    values: tuple[Value, ...]
    memory: Memory
    effects: tuple[Effect, ...]
    is_final: bool


class Reactor:
    """Computes the reaction of the chart from any snapshot, and caches it.

    Attributes:
        begin: The reaction to the creation.
        taken: Marks of the transitions that were taken; see `marks`.
    """

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper
        self.taken: set[int] = set()
        self._known: dict[tuple[Configuration, tuple[Value, ...], Memory, Input], Reaction | None]
        self._known = {}
        self.begin = self._reaction(stepper.begin())

    def react(
        self, configuration: Configuration, values: tuple[Value, ...], memory: Memory, what: Input
    ) -> Reaction | None:
        """Return the reaction to *what*, or None if the chart does not handle it."""
        key = (configuration, values, memory, what)
        try:
            return self._known[key]
        except KeyError:
            pass
        self._stepper.restore(configuration, values, memory)
        try:
            effects = self._stepper.step(what.event, dict(what.data))
        except NotHandledError:
            reaction = None
        else:
            reaction = self._reaction(effects)
        self._known[key] = reaction
        return reaction

    def _reaction(self, effects: list[Effect]) -> Reaction:
        stepper = self._stepper
        return Reaction(
            stepper.configuration,
            stepper.context.values(),
            stepper.memory,
            without_marks(effects, self.taken),
            stepper.is_final,
        )


class Environment:
    """Events that may come in a situation, according to the document.

    Args:
        document: The chart.
        bounds: Limits of the exploration.
        first: Configuration in which the chart begins.
    """

    def __init__(self, document: Document, bounds: Bounds, first: Configuration = ()) -> None:
        self._bounds, self._first = bounds, first
        self._requests = document.promises.requests
        self._process = document.promises.process
        self._inputs = {
            name: tuple(_inputs(name, event)) for name, event in document.events.items()
        }
        self._events = document.events
        order = list(document.data)
        self._waiting = self._served = -1
        if self._requests is not None:
            self._waiting = order.index(self._requests.waiting)
            self._served = order.index(self._requests.served)
        self._cache: dict[tuple[Being, frozenset[str], int, int, bool], tuple[Input, ...]] = {}

    def counts(self, values: tuple[Value, ...]) -> tuple[int, int]:
        """Return how many requests wait and how many are admitted, as *values* count them."""
        if self._requests is None:
            return 0, 0
        return int(values[self._waiting]), int(values[self._served])

    def inputs(self, now: Situation) -> tuple[Input, ...]:
        """Return every input that may come in *now*."""
        waiting, served = self.counts(now.values)
        key = (now.process, now.running, waiting, served, now.configuration == self._first)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = tuple(
                what
                for name, event in self._events.items()
                if self._may_come(name, event, now, waiting, served)
                for what in self._inputs[name]
            )
        return found

    def _may_come(
        self, name: str, event: EventDecl, now: Situation, waiting: int, served: int
    ) -> bool:
        requests, bounds = self._requests, self._bounds
        if event.origin == "chart":
            return False
        if event.origin in ("activity", "timer"):
            if self._process is not None and event.of == self._process.activity:
                return now.process == "spawning"
            return event.of in now.running
        if self._process is not None and name == self._process.found:
            return now.process == "none" and now.configuration == self._first
        if event.origin == "process":
            return self._process is None or now.process == "alive"
        if requests is not None and name == requests.ask:
            return waiting < bounds.waiting and waiting + served < bounds.waiting + bounds.served
        if requests is not None and name == requests.give_up:
            return waiting > 0
        if requests is not None and name == requests.done:
            return served > 0
        return True


def _inputs(name: str, event: EventDecl) -> Iterator[Input]:
    _check_product(f"events.{name}.data", list(event.data.values()))
    for values in product(*event.data.values()):
        yield Input(name, tuple(zip(event.data, values, strict=True)))


def parameter_sets(document: Document, bounds: Bounds) -> Iterator[dict[str, Value]]:
    """Yield every combination of parameter values, counts from 1 to the bound."""
    domains = [
        datum.values or tuple(range(1, bounds.counts + 1)) for datum in document.parameters.values()
    ]
    _check_product("parameters", domains)
    for values in product(*domains):
        yield dict(zip(document.parameters, values, strict=True))


def _check_product(where: str, domains: list[tuple[Value, ...]]) -> None:
    if prod(len(domain) for domain in domains) > _MOST_COMBINATIONS:
        why = f"expected at most {_MOST_COMBINATIONS} combinations of values, found more"
        raise ChartError(where, why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """Everything that a chart does if any declared event may come at any time.

    Two documents mean the same if their behaviors are equal.

    Attributes:
        begin: The reaction to the creation.
        reactions: (configuration, data, memory) -> input -> reaction, None where not handled.
    """

    begin: Reaction
    reactions: Mapping[
        tuple[Configuration, tuple[Value, ...], Memory], Mapping[Input, Reaction | None]
    ]


def behavior(
    document: Document,
    *,
    parameters: Mapping[str, Value] | None = None,
    counts: int = 2,
    reference: bool = False,
    most: int = 500_000,
) -> Behavior:
    """Explore *document* without any rules for its environment.

    Args:
        document: The chart.
        parameters: Parameters of the instance; the others have their defaults.
        counts: Steps that raise a count above this are recorded but not followed.
        reference: Step python-statemachine's class itself instead of the decision table.
        most: Maximum number of snapshots.

    Raises:
        ChartError: There are more snapshots than that.
    """
    compiled = Compiled(document)
    make = compiled.reference if reference else compiled.stepper
    reactor = Reactor(make(**(parameters or {})))
    inputs = [what for name, event in document.events.items() for what in _inputs(name, event)]
    first = reactor.begin
    reactions: dict[
        tuple[Configuration, tuple[Value, ...], Memory], dict[Input, Reaction | None]
    ] = {}
    todo = [first]
    while todo:
        at = todo.pop()
        key = at[:3]
        if key in reactions:
            continue
        if len(reactions) >= most:
            raise ChartError("chart", f"more than {most} snapshots can be reached")
        row = reactions[key] = {}
        if at.is_final or any(type(v) is int and abs(v) > counts for v in at.values):
            continue
        for what in inputs:
            reaction = row[what] = reactor.react(*key, what)
            if reaction is not None:
                todo.append(reaction)
    return Behavior(begin=first, reactions=reactions)
