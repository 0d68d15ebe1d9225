"""`swapchart config keys`: the keys of a configuration, from the model of docs/keys.md."""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...dataclass import dataclass
from ..config.schema.reference import Steps, Table, default_text, kind_text, tables, title
from .remote.table import table

_SIMILARITY = 0.6
_MOST = 5  # places of a key that are named


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a configuration.

    Attributes:
        paths: Where it may stand, the place that is meant first.
        part: Its JSON Schema, with meaning and example.
        is_needed: The mapping that it belongs to cannot be without it.
    """

    paths: Sequence[Steps]
    part: dict[str, Any]
    is_needed: bool

    @property
    def name(self) -> str:
        """Path of the key, such as ``models.*.ttl``."""
        return title(self.paths[0])

    @property
    def default(self) -> str:
        """Default as in YAML, ``required``, or an empty text."""
        return "required" if self.is_needed else default_text(self.part.get("default"))

    def at(self, is_meant: Callable[[Steps], bool]) -> Key | None:
        """Return the key with the first path that *is_meant* before the others; None if none is."""
        first = next(filter(is_meant, self.paths), None)
        if first is None:
            return None
        return replace(self, paths=[first, *(path for path in self.paths if path != first)])

    def as_json(self) -> dict[str, Any]:
        """Return its facts for programs."""
        return {
            "key": self.name, "also": [title(path) for path in self.paths[1:]],
            "type": kind_text(self.part), "default": self.part.get("default"),
            "required": self.is_needed, "meaning": self.part["description"],
            "example": self.part["x-example"],
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """Yield its facts for readers."""
        yield f"{self.name}: {self.part['description']}"
        yield f"  type: {kind_text(self.part)}"
        if self.default:
            yield f"  default: {self.default}"
        yield f"  example: {self.part['x-example']}"
        if others := [title(path) for path in self.paths[1:]]:
            more = f" and {len(others) - _MOST} other places" if len(others) > _MOST else ""
            yield f"  also: {', '.join(others[:_MOST])}{more}"


def keys(options: argparse.Namespace) -> int:
    """Print all keys of a configuration, or those that a name means."""
    every = all_keys()
    found = every if options.key is None else find(every, options.key)
    if not found:
        close = _similar(every, options.key)
        hint = f"did you mean {close!r}?" if close else "`swapchart config keys` lists all"
        print(f"swapchart: config keys: unknown key {options.key!r}; {hint}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([key.as_json() for key in found], indent=2))
    elif options.key is None:
        print(_table(found))
    else:
        print("\n\n".join(_with_inner(key, every) for key in found))
    return 0


def all_keys() -> list[Key]:
    """Return all keys, those of the top level first."""
    return [key for each in tables() for key in _keys(each)]


def _keys(of: Table) -> Iterator[Key]:
    for name, part in of.keys.items():
        yield Key([(*path, name) for path in of.paths], part, name in of.needed)


def find(every: Sequence[Key], text: str) -> list[Key]:
    """Return the keys that *text* means.

    It is a path from the top level, in which a name of the user's own, such as that of a model,
    counts as ``*``; or the name of a key at the top level or of a model; or the last steps of a
    path.
    """
    steps = tuple(re.sub(r"\[\d*\]", ".[]", text).split("."))
    places = [steps] if len(steps) > 1 else [steps, ("models", "*", *steps)]
    exact = [
        found for key in every
        if (found := key.at(lambda path: any(_is_at(path, place) for place in places)))
    ]  # fmt: skip
    return exact or [
        found for key in every if (found := key.at(lambda path: _ends_with(path, steps)))
    ]


def _is_at(path: Steps, steps: Steps) -> bool:
    return len(path) == len(steps) and _ends_with(path, steps)


def _ends_with(path: Steps, steps: Steps) -> bool:
    end = path[-len(steps) :]
    return len(end) == len(steps) and all(
        known in ("*", given) for known, given in zip(end, steps, strict=True)
    )


def _similar(every: Sequence[Key], text: str) -> str | None:
    """Return the path that is most like *text*, or the name of a key that is like its last step."""
    plain = {key.name.lower(): key.name for key in every}
    last = {path[-1].lower(): path[-1] for key in every for path in key.paths}
    for given, known in ((text, plain), (text.rpartition(".")[2], last)):
        close = difflib.get_close_matches(given.lower(), known, n=1, cutoff=_SIMILARITY)
        if close and ("." in text) is (known is plain):
            return known[close[0]]
    return None


def _with_inner(key: Key, every: Sequence[Key]) -> str:
    """Return the facts of *key*, and the keys of the mapping or list that is its value."""
    lines = list(key.lines())
    inner = [
        found for each in every if (found := each.at(lambda path: _is_below(path, key.paths[0])))
    ]
    if inner:
        lines += ["  keys:", *(f"    {line}" for line in _table(inner).splitlines()[1:])]
    return "\n".join(lines)


def _is_below(path: Steps, above: Steps) -> bool:
    between = path[len(above) : -1]
    return path[: len(above)] == above and path != above and set(between) <= {"*", "[]"}


def _table(found: Sequence[Key]) -> str:
    rows = [(key.name, kind_text(key.part), key.default, key.part["description"]) for key in found]
    return table(("KEY", "TYPE", "DEFAULT", "MEANING"), rows)
