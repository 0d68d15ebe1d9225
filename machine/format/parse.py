"""Parser of chart documents: strict, and it reports all problems of one kind together.

Duplicate keys, unknown keys, wrong shapes, undeclared or unused names, missing targets and ids that
shadow the library's own are errors, with their path and what was expected.

Source: YAML 1.1 as PyYAML reads it, but ``on``, ``yes`` and ``no`` stay words, as in
python-statemachine's own reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import yaml

from ..document import (
    FORMAT,
    ActionDecl,
    Always,
    Datum,
    Document,
    EventDecl,
    Origin,
    Pair,
    Process,
    Promises,
    Requests,
    Value,
    as_list,
)
from ..effects import KINDS, Effect
from ..errors import ChartError
from .bounds import MAX_STATES, MAX_TEXT, check_text, check_values
from .expressions import MOST, is_small
from .name_rules import problems_of

_SECTIONS = (
    "format", "name", "version", "payload", "data", "parameters", "events", "guards", "actions",
    "promises", "notes", "chart",
)  # fmt: skip
_STATE_KEYS = (
    "initial", "final", "parallel", "enter", "exit", "transitions", "states", "history",
)  # fmt: skip
_TRANSITION_KEYS = ("event", "target", "cond", "unless", "on", "before", "after", "internal")
_ALWAYS_SETS = ("to", "never", "asks", "spares", "live", "dead", "into")


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast


class _Loader(_Base):  # type: ignore[misc]  # one of two classes of the same interface
    """A safe loader that keeps ``on`` a word and rejects duplicate keys."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:bool" or first in "tTfF"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ChartError(f"line {line}", f"expected a text as key, got {key!r}")
        if key in seen:
            raise ChartError(f"line {line}", f"duplicate key {key!r}, first on line {seen[key]}")
        seen[key] = line
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(text: str) -> Any:
    """Return the value of *text*; ``on`` and ``yes`` are words, and duplicate keys are rejected.

    Raises:
        ChartError: It is not YAML, or too large.
    """
    if len(text) > MAX_TEXT:
        raise ChartError("chart document", f"expected at most {MAX_TEXT >> 20} MiB, found more")
    try:
        check_text(text, _Loader)
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError) as error:
        # PyYAML raises the last three for scalars that do not fit their type: 2024-99-99.
        raise ChartError("chart document", f"not YAML: {error}") from error


def read(text: str) -> Document:
    """Read and check a chart document in YAML or JSON.

    Raises:
        ChartError: It is invalid; the error names the first problem and the number of the others,
            which are in its notes.
    """
    return from_mapping(load_yaml(text))


def from_mapping(raw: Any) -> Document:
    """Check *raw*, a document as YAML or JSON gives it, and return it typed.

    Raises:
        ChartError: As for `read`.
    """
    check_values(raw, "chart document")
    reader = _Reader()
    document = reader.document(raw)
    problems = reader.problems or list(problems_of(document))
    if problems:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        error = ChartError(first.where, first.why + more)
        error.add_note("\n".join(map(str, problems)))
        raise error
    return document


def from_trusted(raw: Any) -> Document:
    """Return *raw* typed, as `from_mapping` does, without checking it again.

    Args:
        raw: A document that `from_mapping` accepted before.
    """
    return _Reader().document(raw)


class _Reader:
    """Turns a raw mapping into a `Document` and collects problems of its shape."""

    def __init__(self) -> None:
        self.problems: list[ChartError] = []
        self._states = 0

    def problem(self, where: str, why: str) -> None:
        self.problems.append(ChartError(where, why))

    # ---- shapes ----------------------------------------------------------------------------
    def mapping(self, raw: Any, where: str, known: Iterable[str] | None = None) -> dict[str, Any]:
        if raw is None:
            return {}
        if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
            self.problem(where, f"expected a mapping with text keys, got {_kind(raw)}")
            return {}
        if known is not None:
            for key in sorted(set(raw) - set(known)):
                self.problem(f"{where}.{key}", f"unknown key; known: {', '.join(known)}")
        return dict(raw)

    def section(self, top: Mapping[str, Any], key: str) -> dict[str, Any]:
        return self.mapping(top.get(key), key)

    def text(self, raw: Any, where: str) -> str:
        if isinstance(raw, str) and raw.strip():
            return raw
        self.problem(where, f"expected a text, got {_kind(raw)}")
        return ""

    def texts(self, raw: Any, where: str) -> tuple[str, ...]:
        return tuple(self.text(item, where) for item in as_list(raw))

    def flag(self, raw: Any, where: str) -> None:
        if raw is not None and not isinstance(raw, bool):
            self.problem(where, f"expected true or false, got {_kind(raw)}")

    def values(self, raw: Any, where: str) -> tuple[Value, ...]:
        values = as_list(raw)
        for value in values:
            if not isinstance(value, (str, int)):
                self.problem(where, f"expected text, int or bool, got {_kind(value)}")
            elif not is_small(value):
                self.problem(where, f"expected numbers of at most {MOST:.0e}")
        return tuple(values)

    # ---- sections --------------------------------------------------------------------------
    def document(self, raw: Any) -> Document:
        if not isinstance(raw, Mapping):
            self.problem("chart document", f"expected a mapping, got {_kind(raw)}")
        top = self.mapping(raw if isinstance(raw, Mapping) else None, "chart document")
        for key in sorted(set(top) - set(_SECTIONS)):
            self.problem(key, f"unknown section; known: {', '.join(_SECTIONS)}")
        if top.get("format") != FORMAT:
            self.problem("format", f"expected {FORMAT!r}, got {top.get('format')!r}")
        chart = self.mapping(top.get("chart"), "chart", ("name", "states"))
        if not chart.get("states"):
            self.problem("chart.states", "expected at least one state")
        self.states(chart.get("states"), "chart.states")
        data = self.section(top, "data")
        parameters = self.section(top, "parameters")
        events, guards = self.section(top, "events"), self.section(top, "guards")
        actions = self.section(top, "actions")
        return Document(
            name=str(top.get("name") or chart.get("name") or "Chart"),
            data={k: self.datum(v, f"data.{k}") for k, v in data.items()},
            parameters={k: self.datum(v, f"parameters.{k}") for k, v in parameters.items()},
            events={k: self.event(v, f"events.{k}") for k, v in events.items()},
            guards={k: self.expression(v, f"guards.{k}") for k, v in guards.items()},
            actions={k: self.action(v, f"actions.{k}") for k, v in actions.items()},
            promises=self.promises(top.get("promises")),
            notes=self.notes(top, actions),
            version=self.word(top, "version"),
            payload=self.word(top, "payload"),
            chart=chart,
            source=top,
        )

    def word(self, top: Mapping[str, Any], key: str) -> str:
        """Return the text of *key*; empty if it is absent. A version may look like a number."""
        raw = top.get(key, "")
        return str(raw) if type(raw) in (int, float) or raw == "" else self.text(raw, key)

    def notes(self, top: Mapping[str, Any], actions: Mapping[str, Any]) -> dict[str, str]:
        notes = self.section(top, "notes")
        for name in notes:
            if name not in actions:
                self.problem(f"notes.{name}", "expected the name of an action")
        return {name: self.text(text, f"notes.{name}") for name, text in notes.items()}

    def expression(self, raw: Any, where: str) -> str:
        """Return an expression; YAML reads a bare ``true`` or ``0`` as another type."""
        return str(raw) if isinstance(raw, (bool, int)) else self.text(raw, where)

    def datum(self, raw: Any, where: str) -> Datum:
        fields = self.mapping(raw, where, ("initial", "values"))
        values = self.values(fields.get("values"), f"{where}.values") or None
        initial = fields.get("initial", values[0] if values else None)
        if not isinstance(initial, (str, int)):
            self.problem(where, "expected `initial` (text, int or bool) or `values`")
            initial = 0
        elif not is_small(initial):
            self.problem(where, f"expected numbers of at most {MOST:.0e}")
            initial = 0
        if values is not None and not _is_among(initial, values):
            self.problem(where, f"initial {initial!r} is none of {values!r}")
        return Datum(initial=initial, values=values)

    def event(self, raw: Any, where: str) -> EventDecl:
        fields = self.mapping(raw, where, ("origin", "of", "on", "data", "payload"))
        origin = fields.get("origin", "user")
        if origin not in get_args(Origin):
            known = ", ".join(get_args(Origin))
            self.problem(f"{where}.origin", f"expected one of {known}; got {origin!r}")
            origin = "user"
        of = self.text(fields["of"], f"{where}.of") if "of" in fields else ""
        if (origin in ("activity", "timer")) != bool(of):
            self.problem(where, "`of` goes with the origins activity and timer, and only those")
        data = {
            name: self.values(domain, f"{where}.data.{name}")
            for name, domain in self.mapping(fields.get("data"), f"{where}.data").items()
        }
        for name, domain in data.items():
            if not domain:
                self.problem(f"{where}.data.{name}", "expected the values it can have, got none")
        on = self.text(fields["on"], f"{where}.on") if "on" in fields else ""
        if on and (on != "error" or origin != "activity"):
            self.problem(f"{where}.on", f"expected error, for an event of an activity; got {on!r}")
        self.flag(fields.get("payload"), f"{where}.payload")
        carries = fields.get("payload") is True
        return EventDecl(origin=origin, of=of, on=on, data=data, payload=carries)

    def action(self, raw: Any, where: str) -> ActionDecl:
        fields = self.mapping(raw, where, ("when", "do", "set"))
        effects = tuple(
            effect
            for item in as_list(fields.get("do"))
            if (effect := self.effect(item, f"{where}.do")) is not None
        )
        assigns = {
            name: self.expression(text, f"{where}.set.{name}")
            for name, text in self.mapping(fields.get("set"), f"{where}.set").items()
        }
        if not fields.get("do") and not fields.get("set"):
            self.problem(where, "expected `do`, `set` or both")
        when = self.expression(fields["when"], f"{where}.when") if "when" in fields else None
        return ActionDecl(effects=effects, assigns=assigns, when=when)

    def effect(self, raw: Any, where: str) -> Effect | None:
        fields = self.mapping(raw, where)
        kind = fields.pop("effect", None)
        if not isinstance(kind, str) or kind not in KINDS:
            self.problem(where, f"unknown effect {kind!r}; known: {', '.join(sorted(KINDS))}")
            return None
        cls, required, optional = KINDS[kind]
        if not set(required) <= set(fields) <= {*required, *optional}:
            takes = ", ".join((*required, *optional)) or "nothing"
            got = ", ".join(fields) or "nothing"
            self.problem(where, f"effect {kind} takes {takes}; got {got}")
            return None
        return cls(**{k: self.text(v, f"{where}.{k}") for k, v in fields.items()})

    # ---- promises --------------------------------------------------------------------------
    def promises(self, raw: Any) -> Promises:
        where = "promises"
        fields = self.mapping(raw, where, tuple(Promises.__dataclass_fields__))
        sets = {
            key: frozenset(self.texts(fields.get(key), f"{where}.{key}"))
            for key in ("rest", "quiet", "serving", "unsure", "patience")
        }
        stopping = fields.get("stopping")
        return Promises(
            **sets,
            pairs=tuple(self.pair(item) for item in as_list(fields.get("pairs"))),
            requests=self.requests(fields["requests"]) if fields.get("requests") else None,
            process=self.process(fields["process"]) if fields.get("process") else None,
            stopping="" if stopping is None else self.text(stopping, f"{where}.stopping"),
            always=tuple(
                self.always(item, f"{where}.always[{index}]")
                for index, item in enumerate(as_list(fields.get("always")))
            ),
        )

    def pair(self, raw: Any) -> Pair:
        where = "promises.pairs"
        fields = self.mapping(raw, where, ("begin", "end", "by", "unless"))
        return Pair(
            begin=self.text(fields.get("begin"), f"{where}.begin"),
            end=self.text(fields.get("end"), f"{where}.end"),
            by=frozenset(self.texts(fields.get("by"), f"{where}.by")),
            unless=frozenset(self.texts(fields.get("unless"), f"{where}.unless")),
        )

    def requests(self, raw: Any) -> Requests:
        where = "promises.requests"
        known = tuple(Requests.__dataclass_fields__)
        fields = self.mapping(raw, where, known)
        return Requests(**{key: self.text(fields.get(key), f"{where}.{key}") for key in known})

    def process(self, raw: Any) -> Process:
        where = "promises.process"
        fields = self.mapping(raw, where, tuple(Process.__dataclass_fields__))
        return Process(
            activity=self.text(fields.get("activity"), f"{where}.activity"),
            up=self.text(fields.get("up"), f"{where}.up"),
            down=frozenset(self.texts(fields.get("down"), f"{where}.down")),
            needed_by=frozenset(self.texts(fields.get("needed_by"), f"{where}.needed_by")),
        )

    def always(self, raw: Any, where: str) -> Always:
        known = ("why", "event", "from", "in", "if", "then", "stays", *_ALWAYS_SETS)
        fields = self.mapping(raw, where, known)
        names = {
            key: frozenset(self.texts(fields.get(key), f"{where}.{key}"))
            for key in ("event", "from", "in", *_ALWAYS_SETS)
        }
        texts = {
            key: self.expression(fields[key], f"{where}.{key}") if key in fields else None
            for key in ("if", "then")
        }
        self.flag(fields.get("stays"), f"{where}.stays")
        demands = [key for key in (*_ALWAYS_SETS, "then", "stays") if key != "into"]
        if not any(fields.get(key) not in (None, False, []) for key in demands):
            self.problem(where, f"expected one of: {', '.join(demands)}")
        return Always(
            why=self.text(fields.get("why"), f"{where}.why"),
            events=names["event"],
            before=names["from"],
            inside=names["in"],
            given=texts["if"],
            then=texts["then"],
            stays=fields.get("stays") is True,
            **{key: names[key] for key in _ALWAYS_SETS},
        )

    # ---- the chart -------------------------------------------------------------------------
    def states(self, raw: Any, where: str) -> None:
        for name, body in self.mapping(raw, where).items():
            self._states += 1
            if self._states > MAX_STATES:
                raise ChartError(where, f"expected at most {MAX_STATES} states, found more")
            at = f"{where}.{name}"
            fields = self.mapping(body, at, _STATE_KEYS)
            for key in ("initial", "final", "parallel"):
                self.flag(fields.get(key), f"{at}.{key}")
            for key in ("enter", "exit"):
                self.texts(fields.get(key), f"{at}.{key}")
            self.transitions(fields.get("transitions"), f"{at}.transitions")
            for history, inner in self.mapping(fields.get("history"), f"{at}.history").items():
                self.history(inner, f"{at}.history.{history}")
            self.states(fields.get("states"), f"{at}.states")

    def history(self, raw: Any, where: str) -> None:
        fields = self.mapping(raw, where, ("type", "transitions"))
        if fields.get("type", "shallow") not in ("shallow", "deep"):
            self.problem(f"{where}.type", f"expected shallow or deep, got {fields['type']!r}")
        self.transitions(fields.get("transitions"), f"{where}.transitions")
        if len(as_list(fields.get("transitions"))) != 1:
            self.problem(where, "expected one transition: where to go when nothing is remembered")

    def transitions(self, raw: Any, where: str) -> None:
        if raw is not None and not isinstance(raw, (list, tuple)):
            self.problem(where, f"expected a list, got {_kind(raw)}")
            return
        for index, item in enumerate(raw or ()):
            at = f"{where}[{index}]"
            if not isinstance(item, Mapping):
                self.problem(at, f"expected a mapping, got {_kind(item)}")
                continue
            fields = self.mapping(item, at, _TRANSITION_KEYS)
            for key in ("event", "target"):
                if fields.get(key) is not None:
                    self.text(fields[key], f"{at}.{key}")
            for key in ("cond", "unless", "on", "before", "after"):
                self.texts(fields.get(key), f"{at}.{key}")
            self.flag(fields.get("internal"), f"{at}.internal")


def _kind(raw: Any) -> str:
    if raw is None:
        return "nothing"
    return repr(raw) if isinstance(raw, (str, int, float)) else type(raw).__name__


def _is_among(value: Value, values: Iterable[Value]) -> bool:
    """Return True if *value* is one of *values*; True does not equal 1 here."""
    return any(value == other and type(value) is type(other) for other in values)
