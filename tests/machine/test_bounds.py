"""Bounds of chart documents: values, expressions, nesting, aliases and tables stay small."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swapchart.machine import (
    ChartError,
    Compiled,
    Document,
    check,
    decision_table,
    from_mapping,
    lifecycle,
    merge,
    read,
)
from swapchart.machine.checking.explore import Bounds, parameter_sets
from swapchart.machine.format.expressions import MOST
from swapchart.machine.format.parse import load_yaml


def with_guard(text: str) -> dict[str, Any]:
    return {"guards": {"idle": text}}


#: A chart with some names of the lifecycle, which takes longer to merge.
SMALL = """
format: swapchart.chart/v1
name: Small
data:
  in_flight: {initial: 0}
  waiters: {initial: 0}
  hurried: {initial: false}
  drain: {initial: cut, values: [cut, wait]}
events: {go: {}}
guards: {idle: in_flight == 0}
chart: {states: {one: {initial: true, transitions: [{event: go, cond: idle}]}}}
"""


def growing(update: str, initial: object = 2) -> Document:
    """Return a chart that assigns *update* to ``n`` on each event."""
    return read(
        "format: swapchart.chart/v1\nname: Growing\n"
        f"data: {{n: {{initial: {initial}}}, m: {{initial: {initial}}}}}\n"
        "events: {go: {}}\n"
        f"actions: {{grow: {{set: {{n: '{update}', m: n + m}}}}}}\n"
        "promises: {rest: [one]}\n"
        "chart: {states: {one: {initial: true, transitions: [{event: go, on: grow}]}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a' * 99999999", "arithmetic takes numbers"),
        ("99999999 * 'a' == drain", "arithmetic takes numbers"),
        ("('a' if hurried else 'b') * in_flight == drain", "arithmetic takes numbers"),
        ("(drain or 'b') * 99999999 == drain", "arithmetic takes numbers"),
        ("max(drain, 'b') * 99999999 == drain", "arithmetic takes numbers"),
        ("max(('a', 'b')) * 99999999 == drain", "arithmetic takes numbers"),
        ("drain * 99999999 == 'a'", "arithmetic takes numbers"),
        ("drain + drain == 'a'", "arithmetic takes numbers"),
        ("(1, 2) * 99999999 == (1,)", "arithmetic takes numbers"),
        ("-drain == 1", "arithmetic takes numbers"),
        ("None + 1 == 1", "arithmetic takes numbers"),
        ("((1, 2), 3)", "a list is allowed"),
        ("max((1, 2), (1, 3)) == drain", "a list is allowed"),
        ("min((1, 2), (1, 2)) * 99999999 == drain", "a list is allowed"),
        ("in_flight < 10000000000000000000", "numbers of at most"),
        ("in_flight < " + "9" * 480, "numbers of at most"),
        ("2 ** 99", "not allowed"),
        ("-" * 400 + "1", "levels of nesting"),
        ("not " * 120 + "hurried", "levels of nesting"),
        ("(" * 240 + "1" + ")" * 240, "expected an expression"),
        ("1" + " + 1" * 120, "levels of nesting"),
        ("1 if hurried else " * 27 + "1" + " + 1" * 60, "500 characters"),
    ],
)
def test_expression_too_large_is_refused_before_it_is_evaluated(text: str, message: str) -> None:
    """What could make a large value is an error, found in a moment and in little memory."""
    chart = read(SMALL)
    tracemalloc.start()
    try:
        with pytest.raises(ChartError, match=r"^overlay\.guards\.idle") as caught:
            merge(chart, with_guard(text))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert message in str(caught.value)
    assert peak < 20 << 20


@pytest.mark.parametrize(
    "text",
    [
        "drain in ('cut', 'wait') and in_flight == 0",
        "max((in_flight, waiters)) == 0",
        "min(in_flight, 3) * 2 - -1 < 5",
        "(in_flight if hurried else waiters) == 0",
        "intent != 'stop' or hurried + wanted == 0",
        "1" + " + 1" * 40 + " > in_flight",
        f"in_flight < {MOST}",
    ],
)
def test_expression_within_the_bounds_is_kept(text: str) -> None:
    """Ordinary arithmetic, lists behind `in` and long sums mean what they meant."""
    assert merge(lifecycle(), with_guard(text)).guards["idle"] == text


@pytest.mark.parametrize(
    ("update", "expected"),
    [("n * n", MOST), ("n + n", MOST), ("n * -n", -MOST), ("n * 1000000", MOST), ("n + m", MOST)],
)
def test_assignment_repeated_stays_within_the_bound(update: str, expected: int) -> None:
    """A number that each event multiplies ends at the bound, in both steppers."""
    compiled = Compiled(growing(update))
    for stepper in (compiled.stepper(), compiled.reference()):
        stepper.begin()
        for _ in range(300):
            stepper.step("go")
            assert all(abs(int(value)) <= MOST for value in stepper.context.values())

        assert abs(int(stepper.context.values()[0])) == abs(expected)


def test_checker_of_a_growing_chart_ends() -> None:
    """The checker looks at a chart whose numbers grow with each event, and ends."""
    assert check(growing("n * n")).is_ok


OPERANDS = st.sampled_from(["n", "m", "'a'", "3", "(1, 2)", "None", "True", str(MOST)])
EXPRESSIONS = st.recursive(
    OPERANDS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda p: f"({' '.join(p)})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} if {p[1]} else {p[0]})"),
        st.tuples(inner, inner).map(lambda p: f"max({p[0]}, {p[1]})"),
        st.tuples(inner, inner).map(lambda p: f"({p[0]} and {p[1]})"),
        inner.map(lambda p: f"(-{p})"),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS)
@example("max((1, 2), (1, 2))")
def test_assignment_of_any_expression_is_refused_or_stays_small(text: str) -> None:
    """An expression that is accepted never makes a text or number grow, however often it runs."""
    try:
        stepper = Compiled(growing(text.replace("'", "''"))).stepper()
    except ChartError:
        return
    stepper.begin()
    for _ in range(100):
        stepper.step("go")

    assert all(len(repr(value)) <= 20 for value in stepper.context.values())


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"x": value}
    return value


def looped() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["guards"] = {"idle": value}
    return value


def shared(levels: int) -> dict[str, Any]:
    value: Any = "x"
    for _ in range(levels):
        value = [value] * 10
    return {"data": {"x": value}}


def ladder(count: int) -> dict[str, Any]:
    """Return an overlay of states each of which is inside the one before."""
    return {"states": {f"s{i}": {"inside": f"s{i - 1}" if i else "ready"} for i in range(count)}}


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        (deep(3000), "levels of nesting"),
        ({"states": {"ready": deep(3000)}}, "levels of nesting"),
        (looped(), "levels of nesting"),
        (shared(8), "values, found more"),
        (ladder(400), "states inside each other"),
        ({"states": {f"s{i}": {"inside": None} for i in range(3000)}}, "at most 500 states"),
        ({"data": {"class": {"initial": 0}}}, "expected an identifier"),
        ({"data": {"n": {"initial": 10**30}}}, "numbers of at most"),
        ({"data": {"n": {"values": [1, 10**30]}}}, "numbers of at most"),
    ],
)
def test_overlay_deep_or_large_is_refused_with_its_place(
    overlay: dict[str, Any], message: str
) -> None:
    """An overlay too deep or too large is an error of its own, within a second."""
    lifecycle()
    began = time.process_time()
    with pytest.raises(ChartError, match=message):
        merge(lifecycle(), overlay)

    assert time.process_time() - began < 5


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {a: 1, b: 2, c: 3, d: 4}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases written out"),
        (MERGES, "aliases written out"),
        ("a: " + "[" * 5000 + "]" * 5000, "nesting"),
        ("{a: " * 5000 + "1" + "}" * 5000, "levels of nesting"),
        ("- " * 5000, "levels of nesting"),
        ("a: &a [*a]", "document"),
        ("a: 1" + ":59" * 100_000, "characters"),
        ("a: " + "9" * 100_000, "characters"),
        ("a: " + "x" * (5 << 20), "at most 4 MiB"),
    ],
)
def test_document_hostile_yaml_is_refused_quickly(text: str, message: str) -> None:
    """Aliases, merges, nesting and numbers that expand are errors, within a second."""
    began = time.process_time()
    with pytest.raises(ChartError) as caught:
        read(text)

    assert message in str(caught.value)
    assert time.process_time() - began < 5


def test_load_yaml_alias_of_itself_is_refused() -> None:
    """An alias inside what it stands for is an error, never a recursion."""
    with pytest.raises(ChartError, match="not YAML"):
        load_yaml("a: &a {b: *a}")


def test_table_with_too_many_guards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven guards asked one after the other are an error, not an assertion."""
    count = 7
    guards = {f"g{i}": "in_flight == 0" for i in range(count)}
    events: dict[str, Any] = {f"e{i}": {} for i in range(2)}
    regions = {
        f"r{i}": {
            "states": {
                f"a{i}": {
                    "initial": True,
                    "transitions": [
                        {"event": "e0", "target": f"b{i}", "cond": f"g{i}"},
                        {"event": "e1", "target": f"b{i}"},
                    ],
                },
                f"b{i}": {"transitions": [{"event": "e1", "target": f"a{i}"}]},
            },
            "initial": i == 0,
        }
        for i in range(count)
    }
    for region in regions.values():
        del region["initial"]
    document = {
        "format": "swapchart.chart/v1",
        "name": "Wide",
        "data": {"in_flight": {"initial": 0}},
        "events": events,
        "guards": guards,
        "promises": {"rest": [f"{c}{i}" for c in "ab" for i in range(count)]},
        "chart": {"states": {"all": {"initial": True, "parallel": True, "states": regions}}},
    }
    monkeypatch.setattr(decision_table, "_MOST_QUESTIONS", 100)
    with pytest.raises(ChartError, match="ways through its guards"):
        Compiled(from_mapping(document))


def test_parameters_with_too_many_combinations_are_refused() -> None:
    """Thirty parameters of two values each are an error, not a check without an end."""
    parameters = {f"p{i}": {"values": [False, True]} for i in range(30)}
    document = merge(lifecycle(), {"parameters": parameters})
    with pytest.raises(ChartError, match="combinations of values"):
        next(parameter_sets(document, Bounds()))
