"""The table of keys: reader, JSON Schema, reference and suggestions say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from swapchart.machine import ChartError, from_mapping, lifecycle
from swapchart.machine.effects import KINDS
from swapchart.machine.format.check_shape import ShapeChecker
from swapchart.machine.format.json_schema import json_schema
from swapchart.machine.format.keys import KEYS
from swapchart.machine.format.shapes import Entry
from swapchart.machine.format.source import load_yaml

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
CHARTS = sorted((Path(__file__).parents[1] / "charts").glob("*.yaml"))
PAGE = (Path(__file__).parents[2] / "docs" / "chart.md").read_text()
ALL = [(kind, key) for kind, table in KEYS.items() for key in table.keys]


@pytest.mark.parametrize(("kind", "key"), ALL)
def test_key_is_in_reader_schema_and_reference(kind: str, key: str) -> None:
    """Each key of the table is read, is a property of the schema, and a row of docs/chart.md."""
    checker = ShapeChecker()
    checker.entry({key: None}, kind, "x")
    schema = SCHEMA if kind == "document" else SCHEMA["$defs"][kind]
    section = PAGE.split(f"\n### {kind.capitalize()}\n")[1].split("\n### ")[0]

    assert not any("unknown" in problem.why for problem in checker.problems)
    assert schema["properties"][key]["description"] == KEYS[kind].keys[key].about
    assert f"\n| `{key}` | " in section


def test_each_kind_is_used_by_another_one() -> None:
    """No object of the table stands alone."""
    text = repr([shape for table in KEYS.values() for key in table.keys.values()
                 for shape in key.shapes])  # fmt: skip

    assert {kind for kind in KEYS if repr(Entry(kind)) not in text} == {"document"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_effect_is_in_the_reference(kind: str) -> None:
    """The page lists the effects with their arguments."""
    assert f"| `{kind}` | " in PAGE


@pytest.mark.parametrize("path", CHARTS, ids=lambda path: path.name)
def test_schema_accepts_each_chart(path: Path) -> None:
    """What reads well is valid by the schema."""
    VALIDATOR.validate(load_yaml(path.read_text()))


def test_schema_accepts_the_shipped_chart() -> None:
    """Both as it is written and as it is exported."""
    text = (Path(__file__).parents[2] / "machine" / "lifecycle.yaml").read_text()

    VALIDATOR.validate(load_yaml(text))
    VALIDATOR.validate(json.loads(json.dumps(lifecycle().source)))


def parts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all parts of *value*."""
    found = [path] if path else []
    if not isinstance(value, (dict, list)):
        return found
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found += parts(inner, (*path, key))
    return found


EVERYTHING = yaml.safe_load("""
format: swapchart.chart/v1
name: All
version: 2
unhandled: ignore
data: {n: {initial: 0}}
timers: {limit: 5s}
events:
  go: {data: {hard: [false, true]}, description: d, tags: [a]}
  inner: {origin: chart}
guards: {small: n < 2}
actions:
  add: {set: {n: n + 1}, do: {effect: notify, name: more}}
  tell: {raise: inner}
promises: {rest: [a], always: [{why: w, in: [a], then: n >= 0}]}
chart:
  states:
    a:
      initial: true
      enter: [add]
      after: {2d: b, limit: [{target: b, cond: small}]}
      invoke: {activity: work, done: b, answers: {halfway: {target: b}}}
      ignores: [inner]
      transitions: [{event: go, target: b, cond: [small, n != 1], 'on': [tell, {set: {n: '0'}}]}]
    b:
      transitions: [{event: '*', target: back}]
      history: {back: {type: deep, transitions: [{target: c}]}}
      states: {c: {initial: true}}
""")
VALUES: list[Any] = [None, 1, 1.5, True, "", "x y", [], ["x"], {}, {"x": 1}, [None], -1, "2d", [[]]]


def test_everything_is_valid_and_read() -> None:
    """The chart that the test below breaks is right."""
    VALIDATOR.validate(EVERYTHING)
    from_mapping(EVERYTHING)


#: Beginnings of problems that concern several keys or values, which no schema knows.
ACROSS_KEYS = (
    "expected `", "`of` goes", "initial ", "expected the values", "expected one transition",
    "expected one of: ", "expected for an event", "an action with",
)  # fmt: skip


def broken_documents() -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the path and the document, for each part with each other value in its place."""
    for path in parts(EVERYTHING):
        for value in VALUES:
            raw = json.loads(json.dumps(EVERYTHING))
            at = raw
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = value
            yield path, raw


def test_schema_refuses_what_the_reader_calls_a_wrong_shape() -> None:
    """A part with another value is refused by both or by neither, apart from rules across keys."""
    differing = []
    for path, raw in broken_documents():
        checker = ShapeChecker()
        checker.document(raw)
        is_wrong = any(not problem.why.startswith(ACROSS_KEYS) for problem in checker.problems)
        if VALIDATOR.is_valid(raw) == is_wrong:
            differing.append((path, checker.problems))

    assert not differing


def test_broken_document_is_refused_with_paths() -> None:
    """Whatever part is broken, reading ends with a document or with problems, each with a path."""
    refused = 0
    for _, raw in broken_documents():
        found: tuple[ChartError, ...] = ()
        try:
            from_mapping(raw)
        except ChartError as error:
            found = error.problems or (error,)
            refused += 1
        assert all(problem.where and problem.why for problem in found)

    assert refused > 1000
