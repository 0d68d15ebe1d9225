"""Chart documents: read, check, and know every name in them.

A document is python-statemachine's native dialect under ``chart`` and, beside it, what that
dialect cannot say: the data that guards read, the effects that actions ask for, who sends an
event, and what the chart promises. Reading is strict: duplicate keys, unknown keys, unused or
undeclared names, lost targets and ids that shadow the library's own are errors, all reported
at once.

Source: python-statemachine 3.2, ``statemachine.io`` native dialect; YAML 1.1 as PyYAML reads it,
but with ``on``, ``yes`` and ``no`` kept as words.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias, get_args

import yaml
from statemachine import StateChart

from .effects import KINDS, Effect
from .errors import ChartError
from .expressions import parse as parse_expression

FORMAT = "swapchart.chart/v1"

Origin: TypeAlias = Literal["user", "activity", "timer", "process"]
Value: TypeAlias = str | int | bool

_SECTIONS = frozenset(
    {"format", "name", "data", "parameters", "events", "guards", "actions", "promises", "chart"}
)
_STATE_KEYS = frozenset(
    {"initial", "final", "parallel", "enter", "exit", "transitions", "states", "history", "name"}
)
_TRANSITION_KEYS = frozenset(
    {"event", "target", "cond", "unless", "on", "before", "after", "internal", "initial"}
)
_RESERVED = frozenset({"state", "out", "self", "min", "max", "model", "listeners"})


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
    """Who sends an event, and what comes with it.

    Attributes:
        origin: user, activity, timer or process.
        of: The activity or timer that sends it; empty for the other origins.
        data: Field name -> its domain; guards and actions may read the fields.
    """

    origin: Origin
    of: str = ""
    data: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionDecl:
    """What an action changes and asks for.

    Attributes:
        effects: In order.
        assigns: Data name -> expression; all are evaluated before any is assigned.
        when: Expression; unless it holds, the action does nothing. None: always.
    """

    effects: tuple[Effect, ...] = ()
    assigns: Mapping[str, str] = field(default_factory=dict)
    when: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """State *begin*, once entered, is followed by one visit of *end*.

    Attributes:
        unless: Events after which the visit is not owed any more.
    """

    begin: str
    end: str
    unless: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """What the checker holds a chart to.

    Attributes:
        rest: Atomic states that may last for ever.
        quiet: Atomic states in which no process may exist.
        serving: The only atomic states in which requests are admitted.
        pairs: See `Pair`.
    """

    rest: frozenset[str] = frozenset()
    quiet: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A whole chart document, checked.

    Attributes:
        name: Name of the chart.
        chart: The native-dialect part, as read: ``{"name": .., "states": {..}}``.
        source: The whole document as read, for export and for merging an overlay.
    """

    name: str
    data: Mapping[str, Datum]
    parameters: Mapping[str, Datum]
    events: Mapping[str, EventDecl]
    guards: Mapping[str, str]
    actions: Mapping[str, ActionDecl]
    promises: Promises
    chart: Mapping[str, Any]
    source: Mapping[str, Any]

    def states(self) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
        """Yield ``(id, definition, ancestors outermost first)`` in document order."""
        yield from walk(self.chart["states"])

    def ancestors(self, state: str) -> tuple[str, ...]:
        """Return the ancestors of *state*, outermost first."""
        return next(above for name, _, above in self.states() if name == state)

    def event_fields(self) -> frozenset[str]:
        """Return the names of all fields that come with events."""
        return frozenset(name for event in self.events.values() for name in event.data)


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
    return [value] if isinstance(value, (str, Mapping)) else list(value)


class _Loader(yaml.SafeLoader):
    """A safe loader that keeps ``on`` a word and refuses duplicate keys."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:bool" or first in "tTfF"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            line = key_node.start_mark.line + 1
            raise ChartError(f"line {line}", f"duplicate key {key!r}, first on line {seen[key]}")
        seen[key] = key_node.start_mark.line + 1
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read(text: str) -> Document:
    """Read and check a chart document.

    Raises:
        ChartError: It is not one; the error names the first problem and counts the others.
    """
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ChartError("chart document", f"not YAML: {error}") from error
    return from_mapping(raw)


def from_mapping(raw: Any) -> Document:
    """Check *raw*, a document as YAML or JSON gives it, and return it typed.

    Raises:
        ChartError: As `read`.
    """
    reader = _Reader()
    document = reader.document(raw)
    problems = reader.problems or problems_of(document)
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        error = ChartError(first.where, first.why + more)
        error.add_note("\n".join(map(str, problems)))
        raise error
    return document


@cache
def lifecycle() -> Document:
    """Return the chart of a served process, which ships with the package."""
    return read(files(__name__.rpartition(".")[0]).joinpath("lifecycle.yaml").read_text("utf-8"))


class _Reader:
    """Turns a raw mapping into a `Document`, collecting problems of shape."""

    def __init__(self) -> None:
        self.problems: list[ChartError] = []

    def problem(self, where: str, why: str) -> None:
        self.problems.append(ChartError(where, why))

    def mapping(self, raw: Any, where: str) -> Mapping[str, Any]:
        if raw is None:
            return {}
        if isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw):
            return raw
        self.problem(where, f"expected a mapping with text keys, got {type(raw).__name__}")
        return {}

    def document(self, raw: Any) -> Document:
        top = self.mapping(raw, "chart document")
        for key in sorted(set(top) - _SECTIONS):
            self.problem(key, f"unknown section; known: {', '.join(sorted(_SECTIONS))}")
        if top.get("format") != FORMAT:
            self.problem("format", f"expected {FORMAT!r}, got {top.get('format')!r}")
        chart = self.mapping(top.get("chart"), "chart")
        if not self.mapping(chart.get("states"), "chart.states"):
            self.problem("chart.states", "expected at least one state")
        section = {key: self.mapping(top.get(key), key) for key in _SECTIONS - {"format", "name"}}
        return Document(
            name=str(top.get("name") or chart.get("name") or "Chart"),
            data={k: self.datum(v, f"data.{k}") for k, v in section["data"].items()},
            parameters={
                k: self.datum(v, f"parameters.{k}") for k, v in section["parameters"].items()
            },
            events={k: self.event(v, f"events.{k}") for k, v in section["events"].items()},
            guards={k: str(v) for k, v in section["guards"].items()},
            actions={k: self.action(v, f"actions.{k}") for k, v in section["actions"].items()},
            promises=self.promises(section["promises"]),
            chart=chart if chart.get("states") else {"name": "Chart", "states": {}},
            source=top,
        )

    def datum(self, raw: Any, where: str) -> Datum:
        fields = self.mapping(raw, where)
        values = tuple(as_list(fields.get("values"))) or None
        initial = fields.get("initial", values[0] if values else None)
        if not isinstance(initial, (str, int, bool)):
            self.problem(where, "expected `initial` (text, int or bool) or `values`")
            initial = 0
        if values is not None and initial not in values:
            self.problem(where, f"initial {initial!r} is none of {values!r}")
        for key in sorted(set(fields) - {"initial", "values"}):
            self.problem(f"{where}.{key}", "unknown key; known: initial, values")
        return Datum(initial=initial, values=values)

    def event(self, raw: Any, where: str) -> EventDecl:
        fields = self.mapping(raw, where)
        origin = fields.get("origin", "user")
        if origin not in get_args(Origin):
            self.problem(f"{where}.origin", f"expected {get_args(Origin)}, got {origin!r}")
            origin = "user"
        of = str(fields.get("of", ""))
        if (origin in ("activity", "timer")) != bool(of):
            self.problem(where, "`of` goes with the origins activity and timer, and only those")
        for key in sorted(set(fields) - {"origin", "of", "data"}):
            self.problem(f"{where}.{key}", "unknown key; known: origin, of, data")
        data = self.mapping(fields.get("data"), f"{where}.data")
        return EventDecl(origin=origin, of=of, data={k: tuple(as_list(v)) for k, v in data.items()})

    def action(self, raw: Any, where: str) -> ActionDecl:
        fields = self.mapping(raw, where)
        for key in sorted(set(fields) - {"do", "set", "when"}):
            self.problem(f"{where}.{key}", "unknown key; known: do, set, when")
        effects = tuple(
            effect
            for item in as_list(fields.get("do"))
            if (effect := self.effect(item, f"{where}.do")) is not None
        )
        assigns = self.mapping(fields.get("set"), f"{where}.set")
        when = fields.get("when")
        if not effects and not assigns:
            self.problem(where, "expected `do`, `set` or both")
        return ActionDecl(
            effects=effects,
            assigns={k: str(v) for k, v in assigns.items()},
            when=None if when is None else str(when),
        )

    def effect(self, raw: Any, where: str) -> Effect | None:
        fields = dict(self.mapping(raw, where))
        kind = fields.pop("effect", None)
        if kind not in KINDS:
            self.problem(where, f"unknown effect {kind!r}; known: {', '.join(sorted(KINDS))}")
            return None
        cls, required, optional = KINDS[kind]
        missing = [name for name in required if name not in fields]
        unknown = sorted(set(fields) - {*required, *optional})
        if missing or unknown:
            takes = ", ".join((*required, *optional)) or "nothing"
            self.problem(
                where, f"effect {kind} takes {takes}; got {', '.join(fields) or 'nothing'}"
            )
            return None
        return cls(**{name: str(value) for name, value in fields.items()})

    def promises(self, raw: Mapping[str, Any]) -> Promises:
        for key in sorted(set(raw) - {"rest", "quiet", "serving", "pairs"}):
            self.problem(f"promises.{key}", "unknown key; known: rest, quiet, serving, pairs")
        pairs = []
        for item in as_list(raw.get("pairs")):
            fields = self.mapping(item, "promises.pairs")
            begin, end = str(fields.get("begin", "")), str(fields.get("end", ""))
            pairs.append(
                Pair(begin=begin, end=end, unless=frozenset(as_list(fields.get("unless"))))
            )
        return Promises(
            rest=frozenset(as_list(raw.get("rest"))),
            quiet=frozenset(as_list(raw.get("quiet"))),
            serving=frozenset(as_list(raw.get("serving"))),
            pairs=tuple(pairs),
        )


def problems_of(document: Document) -> list[ChartError]:
    """Return what is wrong with the names in *document*; empty when nothing is."""
    return [*_state_problems(document), *_name_problems(document), *_expression_problems(document)]


def _state_problems(document: Document) -> Iterator[ChartError]:
    seen: dict[str, tuple[str, ...]] = {}
    ids = {name for name, _, _ in document.states()}
    for name, definition, above in document.states():
        where = ".".join(("chart", *above, name))
        if name in seen:
            yield ChartError(where, f"state id also used at {'.'.join((*seen[name], name))}")
        seen[name] = above
        if hasattr(StateChart, name) or name in _RESERVED or not name.isidentifier():
            yield ChartError(where, "this state id is not an identifier or is taken by the library")
        for key in sorted(set(definition) - _STATE_KEYS):
            yield ChartError(
                f"{where}.{key}", f"unknown key; known: {', '.join(sorted(_STATE_KEYS))}"
            )
        inner = definition.get("states") or {}
        if inner and not definition.get("parallel"):
            initial = [child for child, body in inner.items() if (body or {}).get("initial")]
            if len(initial) != 1:
                yield ChartError(where, f"expected one initial child, got {len(initial)}")
        for index, transition in enumerate(definition.get("transitions") or ()):
            at = f"{where}.transitions[{index}]"
            for key in sorted(set(transition) - _TRANSITION_KEYS):
                yield ChartError(f"{at}.{key}", "unknown key")
            for target in str(transition.get("target") or "").split():
                if target not in ids:
                    yield ChartError(f"{at}.target", f"unknown state {target!r}")
    for label in ("rest", "quiet", "serving"):
        for name in sorted(getattr(document.promises, label) - ids):
            yield ChartError(f"promises.{label}", f"unknown state {name!r}")
    for pair in document.promises.pairs:
        for name in sorted({pair.begin, pair.end} - ids):
            yield ChartError("promises.pairs", f"unknown state {name!r}")
        for name in sorted(pair.unless - set(document.events)):
            yield ChartError("promises.pairs", f"unknown event {name!r}")


def used_names(document: Document) -> tuple[set[str], set[str], set[str]]:
    """Return the events, actions and guards that the chart part mentions."""
    events: set[str] = set()
    actions: set[str] = set()
    guards: set[str] = set()
    for _, definition, _ in document.states():
        actions.update(as_list(definition.get("enter")), as_list(definition.get("exit")))
        for transition in definition.get("transitions") or ():
            events.update((transition.get("event") or "").split())
            for key in ("on", "before", "after"):
                actions.update(as_list(transition.get(key)))
            for key in ("cond", "unless"):
                guards.update(as_list(transition.get(key)))
    return events, actions, guards


def _name_problems(document: Document) -> Iterator[ChartError]:
    events, actions, guards = used_names(document)
    events = {name for name in events if not name.startswith(("done.", "error."))}
    for kind, used, declared in (
        ("events", events, set(document.events)),
        ("actions", actions, set(document.actions)),
        ("guards", guards, set(document.guards)),
    ):
        for name in sorted(used - declared):
            yield ChartError(f"{kind}.{name}", "used in the chart but not declared")
        for name in sorted(declared - used):
            yield ChartError(f"{kind}.{name}", "declared but not used in the chart")
    kinds = {
        "data": document.data,
        "parameters": document.parameters,
        "guards": document.guards,
        "actions": document.actions,
        "event fields": dict.fromkeys(document.event_fields()),
    }
    owner: dict[str, str] = {}
    for kind, names in kinds.items():
        for name in names:
            if not name.isidentifier() or name in _RESERVED:
                yield ChartError(f"{kind}.{name}", "expected an identifier that is not reserved")
            if name in owner:
                yield ChartError(f"{kind}.{name}", f"name also used among the {owner[name]}")
            owner[name] = kind


def _expression_problems(document: Document) -> Iterator[ChartError]:
    for where, text, names in expressions(document):
        try:
            parse_expression(text, names, where)
        except ChartError as error:
            yield error
    for name, action in document.actions.items():
        for target in sorted(set(action.assigns) - set(document.data)):
            yield ChartError(f"actions.{name}.set.{target}", "expected the name of a datum")


def expressions(document: Document) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield ``(path, text, readable names)`` of every expression in *document*."""
    names = frozenset({*document.data, *document.parameters, *document.event_fields()})
    for guard, text in document.guards.items():
        yield f"guards.{guard}", text, names
    for name, action in document.actions.items():
        if action.when is not None:
            yield f"actions.{name}.when", action.when, names
        for target, text in action.assigns.items():
            yield f"actions.{name}.set.{target}", text, names


def parsed(document: Document, text: str, where: str) -> ast.expr:
    """Parse *text* with all names of *document* in scope."""
    names = frozenset({*document.data, *document.parameters, *document.event_fields()})
    return parse_expression(text, names, where)
