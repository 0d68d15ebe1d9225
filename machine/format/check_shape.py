"""Check of a raw document against the table of keys.

All problems are collected. What is wrong is left out of the result, so that the later checks
can go on with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..document import FORMAT, as_list
from ..effects import KINDS
from ..errors import ChartError
from .bounds import MAX_STATES
from .durations import EXAMPLES, seconds_of
from .expressions import MOST, is_small
from .hints import meant
from .keys import KEYS
from .shapes import (
    Choice,
    Duration,
    EffectShape,
    Entry,
    Flag,
    Key,
    ListOf,
    MapOf,
    Scalar,
    Scalars,
    Shape,
    Text,
)

_MISSING: Any = object()
_PLAIN = Text()
_DEMANDS = ("to", "never", "asks", "spares", "live", "dead", "then", "stays")


class ShapeChecker:
    """Checks one raw document.

    Attributes:
        problems: What is wrong, in the order of the document.
    """

    def __init__(self) -> None:
        self.problems: list[ChartError] = []
        self._states = 0

    def document(self, raw: Any) -> dict[str, Any]:
        """Return *raw* without what is wrong in it.

        Raises:
            ChartError: It has too many states.
        """
        if not isinstance(raw, Mapping):
            self._problem("chart document", f"expected a mapping, got {kind_of(raw)}")
            return {"chart": {"states": {}}}
        cleaned = self.entry(raw, "document", "")
        chart = cleaned.get("chart") or {}
        if not chart.get("states"):
            self._problem("chart.states", "expected at least one state")
            chart = {**chart, "states": {}}
        return {**cleaned, "chart": chart}

    def _problem(self, where: str, why: str) -> None:
        self.problems.append(ChartError(where, why))

    # ---- objects ---------------------------------------------------------------------------
    def entry(self, raw: Any, kind: str, where: str) -> dict[str, Any]:
        """Return the object *raw* of the table's *kind* without what is wrong in it."""
        if kind == "state":
            self._states += 1
            if self._states > MAX_STATES:
                raise ChartError(where, f"expected at most {MAX_STATES} states, found more")
        fields = self._mapping(raw, where or "chart document")
        known = KEYS[kind].keys
        cleaned: dict[str, Any] = {}
        for key, value in fields.items():
            at = _below(where, key)
            if key not in known:
                hint = meant(key, known)
                self._problem(at, f"{KEYS[kind].missing}{hint or ';'} known: {', '.join(known)}")
                continue
            found = self._value(value, known[key].shapes, at)
            if found is not _MISSING:
                cleaned[key] = found
        for key, entry in known.items():
            if entry.is_required and fields.get(key) is None:
                self._required(_below(where, key), entry)
        rules = _RULES.get(kind)
        if rules is not None and cleaned.keys() == fields.keys():
            for at, why in rules(cleaned):
                self._problem(f"{where}.{at}" if at else where, why)
        return cleaned

    def _required(self, where: str, key: Key) -> None:
        shape = key.shapes[0]
        if isinstance(shape, Choice):
            self._problem(where, f"expected {shape.options[0]!r}, got None")
        elif isinstance(shape, Text):
            self._problem(where, "expected a text, got nothing")

    def _mapping(self, raw: Any, where: str) -> dict[str, Any]:
        if raw is None:
            return {}
        if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
            self._problem(where, f"expected a mapping with text keys, got {kind_of(raw)}")
            return {}
        return dict(raw)

    # ---- values ----------------------------------------------------------------------------
    def _value(self, raw: Any, shapes: tuple[Shape, ...], where: str) -> Any:
        """Return *raw* without what is wrong in it; `_MISSING` if nothing is left."""
        if raw is None:
            return None
        shape = next((shape for shape in shapes if _fits(raw, shape)), shapes[0])
        return self._one(raw, shape, where)

    def _one(self, raw: Any, shape: Shape, where: str) -> Any:
        match shape:
            case Text():
                return self._text(raw, where, shape)
            case Flag():
                return self._flag(raw, where)
            case Choice(options):
                return self._choice(raw, options, where)
            case Scalar():
                return raw if self._is_scalar(raw, where) else _MISSING
            case Scalars():
                found = [value for value in as_list(raw) if self._is_scalar(value, where)]
                return found if len(found) < len(as_list(raw)) else raw
            case Duration():
                if seconds_of(raw) is None:
                    got = kind_of(raw)
                    self._problem(where, f"expected a duration such as {EXAMPLES}, got {got}")
                    return _MISSING
                return raw
            case EffectShape():
                return self._effect(raw, where)
            case Entry(kind):
                return self.entry(raw, kind, where)
            case ListOf():
                return self._list(raw, shape, where)
            case MapOf():
                return self._map(raw, shape, where)

    def _text(self, raw: Any, where: str, shape: Text) -> Any:
        if isinstance(raw, str) and raw.strip():
            return raw
        if shape.is_free and isinstance(raw, (bool, int)):
            return raw
        if shape.is_free and isinstance(raw, float):  # 1.10 has become 1.1
            if shape.is_expression:
                return raw
            self._problem(where, f"expected a text, got the number {raw!r}; put it in quotes")
            return _MISSING
        self._problem(where, f"expected a text, got {kind_of(raw)}")
        return _MISSING

    def _flag(self, raw: Any, where: str) -> Any:
        if isinstance(raw, bool):
            return raw
        self._problem(where, f"expected true or false, got {kind_of(raw)}")
        return _MISSING

    def _choice(self, raw: Any, options: tuple[str, ...], where: str) -> Any:
        if raw in options:
            return raw
        if options == (FORMAT,):
            self._problem(where, f"expected {FORMAT!r}, got {raw!r}")
        else:
            hint = meant(raw, options) if isinstance(raw, str) else ""
            self._problem(where, f"expected one of {', '.join(options)}; got {raw!r}{hint}")
        return _MISSING

    def _is_scalar(self, raw: Any, where: str) -> bool:
        if not isinstance(raw, (str, int)):
            self._problem(where, f"expected text, int or bool, got {kind_of(raw)}")
        elif not is_small(raw):
            self._problem(where, f"expected numbers of at most {MOST:.0e}")
        else:
            return True
        return False

    def _list(self, raw: Any, shape: ListOf, where: str) -> Any:
        if not isinstance(raw, (list, tuple)):
            if shape.is_strict:
                self._problem(where, f"expected a list, got {kind_of(raw)}")
                return _MISSING
            return self._value(raw, shape.items, where)
        found = []
        for index, item in enumerate(raw):
            at = f"{where}[{index}]"
            if shape.is_strict and not isinstance(item, Mapping):
                self._problem(at, f"expected a mapping, got {kind_of(item)}")
                continue
            value = self._value(item, shape.items, at)
            if value is None:
                kind = "text" if isinstance(shape.items[0], Text) else "mapping"
                self._problem(at, f"expected a {kind}, got nothing")
            elif value is not _MISSING:
                found.append(value)
        return found

    def _map(self, raw: Any, shape: MapOf, where: str) -> dict[str, Any]:
        cleaned: dict[str, Any] = {}
        for name, value in self._mapping(raw, where).items():
            at = f"{where}.{name}"
            found = self._value(value, shape.values, at)
            if value is None and isinstance(shape.values[0], (Text, Duration)):
                self._problem(at, "expected a text, got nothing")
                found = _MISSING
            is_entry = isinstance(shape.values[0], (Entry, Scalars))
            if found is not _MISSING:
                cleaned[name] = found
            elif is_entry:
                cleaned[name] = None  # the name stays known, so that its uses are no problems
        return cleaned

    def _effect(self, raw: Any, where: str) -> Any:
        fields = self._mapping(raw, where)
        if not isinstance(raw, Mapping):
            return _MISSING
        kind = fields.pop("effect", None)
        if not isinstance(kind, str) or kind not in KINDS:
            hint = meant(kind, KINDS) if isinstance(kind, str) else ""
            known = ", ".join(sorted(KINDS))
            self._problem(where, f"unknown effect {kind!r}{hint or ';'} known: {known}")
            return _MISSING
        _, required, optional = KINDS[kind]
        if not set(required) <= set(fields) <= {*required, *optional}:
            takes = ", ".join((*required, *optional)) or "nothing"
            got = ", ".join(fields) or "nothing"
            self._problem(where, f"effect {kind} takes {takes}; got {got}")
            return _MISSING
        texts = [self._text(text, f"{where}.{k}", _PLAIN) for k, text in fields.items()]
        return _MISSING if _MISSING in texts else raw


def _fits(raw: Any, shape: Shape) -> bool:
    """Return True if *raw* has the YAML type of *shape*."""
    match shape:
        case Text() | Choice():
            return isinstance(raw, str)
        case Entry() | MapOf() | EffectShape():
            return isinstance(raw, Mapping)
        case ListOf():
            return isinstance(raw, (list, tuple)) or any(_fits(raw, item) for item in shape.items)
        case _:
            return True


def _below(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def kind_of(raw: Any) -> str:
    """Return *raw* for an error: a scalar itself, the type of anything else."""
    if raw is None:
        return "nothing"
    return repr(raw) if isinstance(raw, (str, int, float)) else type(raw).__name__


# ---- rules of one object ---------------------------------------------------------------------
_Problems = list[tuple[str, str]]


def _datum(fields: dict[str, Any]) -> _Problems:
    values = as_list(fields.get("values"))
    initial = fields.get("initial", values[0] if values else None)
    if initial is None:
        return [("", "expected `initial` (text, int or bool) or `values`")]
    if values and not any(initial == v and type(initial) is type(v) for v in values):
        return [("", f"initial {initial!r} is none of {tuple(values)!r}")]
    return []


def _event(fields: dict[str, Any]) -> _Problems:
    found: _Problems = []
    origin = fields.get("origin") or "user"
    if (origin in ("activity", "timer")) != bool(fields.get("of")):
        found.append(("", "`of` goes with the origins activity and timer, and only those"))
    if fields.get("on") and origin != "activity":
        found.append(("on", f"expected for an event of an activity, not of origin {origin}"))
    found += [
        (f"data.{name}", "expected the values it can have, got none")
        for name, domain in (fields.get("data") or {}).items()
        if not as_list(domain)
    ]
    return found


def _action(fields: dict[str, Any]) -> _Problems:
    if not any(fields.get(key) for key in ("do", "set", "raise")):
        return [("", "expected `do`, `set` or both, or `raise`")]
    if fields.get("raise") and "when" in fields:
        return [("when", "an action with `raise` has no condition; put it on the transition")]
    return []


def _history(fields: dict[str, Any]) -> _Problems:
    if len(as_list(fields.get("transitions"))) != 1:
        return [("", "expected one transition: where to go when nothing is remembered")]
    return []


def _always(fields: dict[str, Any]) -> _Problems:
    if not any(fields.get(key) not in (None, False, []) for key in _DEMANDS):
        return [("", f"expected one of: {', '.join(_DEMANDS)}")]
    return []


_RULES: Mapping[str, Callable[[dict[str, Any]], _Problems]] = {
    "datum": _datum,
    "event": _event,
    "action": _action,
    "history": _history,
    "always": _always,
}
