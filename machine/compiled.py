"""Compiled chart: context class, decision table and steppers of a document.

A `Machine` is immutable: threads may share it, and it is pickled as its document and migrations.
What is compiled is kept for equal documents, so that a second machine of the same chart costs
nothing.
"""

from __future__ import annotations

import copyreg
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from .context import Context, build_context
from .decision_table import Loop, Table, compile_table
from .digest import digest_of, first_digest_of
from .document import Configuration, Document, Memory, Value
from .effects import Effect, StartActivity
from .errors import ChartError, EventError, EventlessLoopError, NotHandledError, StepError
from .eventless import witness
from .reach import Reach
from .shipped import is_shipped, shipped_table
from .snapshot import Migrations
from .stepper import HistoryTableStepper, Stepper, TableStepper

if TYPE_CHECKING:
    from .reference_stepper import ChartStepper

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: Mapping[str, Value] = {}
#: Charts whose compiled form is kept.
_MOST_KEPT = 128


class Outcome(NamedTuple):
    """Outcome of a step.

    Attributes:
        effects: Effects in order.
        actions: Names of the actions that ran, in order.
    """

    effects: tuple[Effect, ...]
    actions: tuple[str, ...]


class _Parts:
    """Compiled form of equal documents."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.context_class = build_context(document)
        self.traced_class = build_context(document, traced=True)
        self.table: Table | None = shipped_table(document) or compile_table(document)

    @cached_property
    def digests(self) -> tuple[str, str]:
        """Digest of what the documents do, and that of the first form of snapshots."""
        return digest_of(self.document), first_digest_of(self.document)


#: Whatever differs between documents; empty for the shipped one.
Key: TypeAlias = tuple[object, ...]
#: Compiled forms, which equal documents share.
_kept: OrderedDict[Key, _Parts] = OrderedDict()
#: Compiled forms by the identity of a document, which is kept so that no other one gets it.
_known: OrderedDict[int, tuple[Document, _Parts]] = OrderedDict()
#: The same for machines that `Machine.of` returned.
_shared: OrderedDict[int, Machine] = OrderedDict()


class Machine:
    """A chart compiled once, for any number of instances.

    Args:
        document: The chart.
        allow_loops: Accept cycles of eventless transitions; a step into one raises. For the
            checker, which reports them with the way that leads there.

    Raises:
        ChartError: The chart cannot be compiled. An `EventlessLoopError` names the states of a
            cycle of eventless transitions.

    Attributes:
        document: The document.
        context_class: Class made by `build_context`.
        table: Decision table; None if the chart has no finite one, because of a cycle of eventless
            transitions that depends on data.
        migrations: Ways from snapshots of earlier versions of the chart.
    """

    def __init__(self, document: Document, *, allow_loops: bool = False) -> None:
        self.document = document
        self.migrations = Migrations()
        self._allows_loops = allow_loops
        self._parts = parts = _compile(document)
        self.context_class = parts.context_class
        self._traced_class = parts.traced_class
        self.table: Table | None = parts.table
        self._make = _maker(parts.table) or self._reference
        table = parts.table
        is_plain = table is not None and not table.has_memory and table.start is None
        self._plain_table = table if is_plain else None
        loops = parts.table.loops if parts.table is not None else ()
        for loop in loops:
            self._judge(loop, allow_loops=allow_loops)
        #: Activity -> events by which it ends, its failure included.
        self.answers: Mapping[str, frozenset[str]] = {
            effect.activity: frozenset(
                name
                for name, event in document.events.items()
                if event.origin == "activity" and event.of == effect.activity
            )
            for action in document.actions.values()
            for effect in action.effects
            if isinstance(effect, StartActivity)
        }
        #: Activity -> event that reports its failure.
        self.failures: Mapping[str, str] = {
            event.of: name for name, event in document.events.items() if event.on == "error"
        }
        #: Activity -> event that reports its end, if it returns no other.
        self.completions: Mapping[str, str] = {
            event.of: name for name, event in document.events.items() if event.on == "done"
        }
        #: Timer -> event that it sends.
        self.fired: Mapping[str, str] = {
            event.of: name for name, event in document.events.items() if event.origin == "timer"
        }
        self._domains = tuple(
            (index, name, datum.values)
            for index, (name, datum) in enumerate(document.data.items())
            if datum.values is not None
        )
        self._defaults = {
            name: {field: domain[0] for field, domain in event.data.items()}
            for name, event in document.events.items()
        }

    @staticmethod
    def of(document: Document) -> Machine:
        """Return the machine of *document*, the same one at each call.

        Raises:
            ChartError: See `Machine`.
        """
        machine = _shared.get(id(document))
        if machine is None:
            machine = _put(_shared, id(document), Machine(document))
        return machine

    def _judge(self, loop: Loop, *, allow_loops: bool) -> None:
        """Raise the error of *loop* if its guards can agree on it."""
        if allow_loops and loop.event:
            return
        found = witness(self.document, loop.event, loop.answers)
        if found is not None:
            when = ", ".join(f"{name} is {value!r}" for name, value in found.items())
            where = f" when {when}" if when else ""
            raise EventlessLoopError(loop.states, loop.event, loop.configuration, where)

    @property
    def name(self) -> str:
        """Name of the chart."""
        return self.document.name

    @property
    def version(self) -> str:
        """Version of the chart; empty if its author gave none."""
        return self.document.version

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the chart does, in hexadecimal; texts for readers do not count."""
        return self._parts.digests[0]

    def has_digest(self, digest: str) -> bool:
        """Return True if a snapshot of this chart may carry *digest*, that of its first form too.

        In that form, texts for readers count.
        """
        return digest in self._parts.digests

    @cached_property
    def states(self) -> frozenset[str]:
        """Names of all states."""
        return frozenset(name for name, _, _ in self.document.states())

    @cached_property
    def reach(self) -> Reach:
        """States that can come after a configuration."""
        return Reach(self.document, self.table)

    # ---- steppers
    def stepper(self, **parameters: Value) -> Stepper:
        """Make an instance, by the table if there is one, else by python-statemachine."""
        table = self._plain_table
        if table is not None:  # the path of every service; `_make` costs 10 % more
            return TableStepper(table, self.context_class(**parameters))
        return self._make(self.context_class(**parameters))

    def traced_stepper(self, **parameters: Value) -> Stepper:
        """Make an instance for `step`, whose actions note their names."""
        return self._make(self._traced_class(**self.parameters(parameters)))

    def reference(self, **parameters: Value) -> ChartStepper:
        """Make an instance that python-statemachine itself interprets."""
        return self._reference(self.context_class(**parameters))

    def _reference(self, context: Context) -> ChartStepper:
        from .microsteps import MicrostepRunner
        from .reference_stepper import ChartStepper  # imports the library, which is rarely needed

        copyreg.pickle(ChartStepper, _reduced)
        return ChartStepper(MicrostepRunner(self.document), context)

    # ---- validation
    def fields(self, event: str, given: Mapping[str, Value] = _NOTHING) -> dict[str, Value]:
        """Return all fields of *event*: those given, and defaults for the others.

        The default of a field is the first value of its domain.

        Raises:
            EventError: The event is not declared, has no such field, or a value is not among those
                declared.
        """
        try:
            declared = self.document.events.get(event)
        except TypeError:  # not hashable
            declared = None
        if declared is None:
            known = ", ".join(self.document.events)
            raise EventError(event, f"the chart declares no such event; known: {known}")
        if not isinstance(given, Mapping):
            kind = type(given).__name__
            why = f"expected fields as a mapping of names to values, got a {kind}"
            raise EventError(event, f"{why}; write {{'field': value}}")
        for name, value in given.items():
            domain = declared.data.get(name)
            if domain is None:
                known = ", ".join(declared.data) or "none"
                raise EventError(event, f"has no field {name!r}; known: {known}")
            if not is_among(value, domain):
                expected = ", ".join(map(repr, domain))
                raise EventError(event, f"expected field {name!r} to be one of {expected}; "
                                 f"got {value!r}")  # fmt: skip
        return {**self._defaults[event], **given}

    def parameters(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Return *given*, checked.

        Raises:
            ChartError: The chart has no such parameter, or the value is not of its domain.
        """
        for name, value in given.items():
            datum = self.document.parameters.get(name)
            if datum is None:
                raise ChartError(f"parameters.{name}", "the chart has no such parameter")
            if datum.values is not None and not is_among(value, datum.values):
                expected = ", ".join(map(repr, datum.values))
                raise ChartError(f"parameters.{name}", f"expected one of {expected}; got {value!r}")
            if datum.values is None and type(value) is not type(datum.initial):
                kind = type(datum.initial).__name__
                raise ChartError(f"parameters.{name}", f"expected a value of type {kind}; "
                                 f"got {value!r}")  # fmt: skip
        return dict(given)

    def outside(self, values: tuple[Value, ...]) -> str:
        """Return which of the data *values* is outside its domain, in words; empty if none is."""
        for index, name, domain in self._domains:
            if not is_among(values[index], domain):
                expected = ", ".join(map(repr, domain))
                return f"{name} is {values[index]!r}, expected one of {expected}"
        return ""

    # ---- steps
    def step(self, stepper: Stepper, event: str, fields: Mapping[str, Value]) -> Outcome:
        """Take *event* by *stepper*, completely or not at all.

        Args:
            stepper: Made by `traced_stepper`.
            event: Name of a declared event.
            fields: As `fields` returns them.

        Raises:
            NotHandledError: The chart does not handle the event in this configuration.
            StepError: A guard or an assignment failed, a datum left its domain, or the step did not
                end; its cause is the exception. Configuration, data and memory are as before, also
                after an exception such as KeyboardInterrupt, which comes out as itself.
        """
        context = stepper.context
        before = stepper.configuration, context.values(), stepper.memory
        context.ran = []
        try:
            effects = stepper.step(event, fields)
            why = self.outside(context.values())
        except NotHandledError:
            raise
        except BaseException as error:
            stepper.restore(*before)
            if not isinstance(error, Exception):  # such as a KeyboardInterrupt
                raise
            raise StepError(event, before[0], f"{type(error).__name__}: {error}") from error
        if why:
            stepper.restore(*before)
            raise StepError(event, before[0], why)
        return Outcome(tuple(effects), tuple(context.ran))

    def begin(self, stepper: Stepper) -> Outcome:
        """Return what entering the initial configuration did; once, before any step.

        Raises:
            StepError: A datum left its domain.
        """
        effects = stepper.begin()
        if why := self.outside(stepper.context.values()):
            raise StepError("(initial entry)", stepper.configuration, why)
        return Outcome(tuple(effects), tuple(stepper.context.ran))

    # ---- copies
    def __reduce__(self) -> tuple[object, ...]:
        """Return the document and the migrations, of which the machine is made again."""
        return _machine, (self.document, self._allows_loops, self.migrations)

    def __copy__(self) -> Machine:
        """Return the machine itself: it never changes."""
        return self

    def __deepcopy__(self, memo: object) -> Machine:
        """Return the machine itself: it never changes."""
        return self

    def __eq__(self, other: object) -> bool:
        """Return True if *other* is a machine of a chart that does the same."""
        return isinstance(other, Machine) and other.digest == self.digest

    def __hash__(self) -> int:
        """Return the hash of the digest."""
        return hash(self.digest)


#: The name that this class had when it made steppers only.
Compiled = Machine


def _maker(table: Table | None) -> Callable[[Context], Stepper] | None:
    """Return what makes steppers of *table*; None if there is none."""
    if table is None:
        return None
    cls, start = (HistoryTableStepper if table.has_memory else TableStepper), table.start
    if start is None:
        return partial(cls, table)

    def started(context: Context) -> Stepper:
        stepper = cls(table, context)
        stepper.start(start)
        return stepper

    return started


def is_among(value: Value, values: tuple[Value, ...]) -> bool:
    """Return True if *value* is one of *values*; True does not equal 1 here."""
    return any(value == other and type(value) is type(other) for other in values)


def _compile(document: Document) -> _Parts:
    known = _known.get(id(document))
    if known is None:
        key: Key = ()
        if not is_shipped(document):
            key = (first_digest_of(document), document.description, *document.notes.items())
        parts = _kept.get(key)
        if parts is None:
            parts = _put(_kept, key, _Parts(document))
        known = _put(_known, id(document), (document, parts))
    return known[1]


def _put(kept: OrderedDict[K, V], key: K, value: V) -> V:
    """Keep *value*, and forget the oldest if there are too many."""
    kept[key] = value
    while len(kept) > _MOST_KEPT:
        kept.popitem(last=False)
    return value


def _machine(document: Document, allow_loops: bool, migrations: Migrations) -> Machine:
    machine = Machine(document, allow_loops=allow_loops)
    machine.migrations = migrations
    return machine


def _reduced(stepper: Any) -> Any:
    """Return how to make a stepper equal to *stepper*."""
    context = stepper.context
    kind = "stepper" if isinstance(stepper, TableStepper) else "reference"
    if hasattr(context, "ran"):
        kind = "traced_stepper"
    return _resumed, (
        context.chart_document, kind, context.parameters(), stepper.configuration,
        context.values(), stepper.memory,
    )  # fmt: skip


def _resumed(
    document: Document, kind: str, parameters: dict[str, Value], configuration: Configuration,
    values: tuple[Value, ...], memory: Memory,
) -> Stepper:  # fmt: skip
    # Cycles were refused, or allowed, when the machine of the stepper was made.
    stepper: Stepper = getattr(Machine(document, allow_loops=True), kind)(**parameters)
    stepper.restore(configuration, values, memory)
    return stepper


copyreg.pickle(TableStepper, _reduced)
copyreg.pickle(HistoryTableStepper, _reduced)
