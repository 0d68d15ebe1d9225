"""Specification 1.13: groups, matrix, scheduler."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.configs import Check, Load, found
from tools.rows import row

from swapchart.adapters.config import Group
from swapchart.adapters.config.matrix_expression import (
    ExpressionError,
    families,
    order_sets,
    parse_expression,
    references,
)
from swapchart.runtime.eviction import AllOf, AnyOf, Expression, ServiceRef, SetRef

BASE = (
    "models:\n  a: {cmd: 's ${PORT}', aliases: [alias]}\n  b: {cmd: 's ${PORT}'}\n"
    "  c/1: {cmd: 's ${PORT}'}\n"
)
NEW = "routing: {router: {%s}}\n"


# ---- groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["groups: {%s}\n", NEW % "settings: {groups: {%s}}"])
def test_groups_have_defaults(load: Load, form: str) -> None:
    """Groups have defaults; models in none are in the default group, which is always there."""
    routing = load(BASE + form % "g: {members: [a]}, h: {swap: no, exclusive: no, persistent: on}")
    groups = routing.routing.groups

    assert routing.routing.use == "group"
    assert list(groups.values()) == [
        Group(id="g", members=("a",), swap=True, exclusive=True, persistent=False),
        Group(id="h", members=(), swap=False, exclusive=False, persistent=True),
        Group(id="(default)", members=("b", "c/1")),
    ]


def test_default_group_cannot_be_defined(load: Load) -> None:
    """A group of that name is ignored with a warning, its members stay in the default."""
    config = load(BASE + "groups: {(default): {swap: false, members: [a]}}")

    assert config.routing.groups["(default)"].swap
    assert config.routing.groups["(default)"].members == ("a", "b", "c/1")
    assert len(config.warnings) == 1


@pytest.mark.parametrize(
    ("groups", "path", "message"),
    [
        ("g: {members: [a, a]}", "g.members[1]", "duplicate model member 'a'"),
        ("g: {members: [a]}, h: {members: [a]}", "h.members[0]", "used in multiple groups: 'g'"),
        ("g: {members: [nobody]}", "g.members[0]", "unknown model 'nobody'"),
        ("g: {members: [alias]}", "g.members[0]", "it is an alias of 'a': use that"),
    ],
)
def test_groups_that_are_invalid_are_refused(
    check: Check, groups: str, path: str, message: str
) -> None:
    """Each rule for groups is told at its place."""
    ((where, told),) = found(check(BASE + f"groups: {{{groups}}}"))

    assert (where, message in told) == (f"groups.{path}", True)


# ---- which router --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("groups: {g: {}}\n" + NEW % "use: group", "groups", "together with routing.router"),
        ("matrix: {sets: {x: a}}\n" + NEW % "settings: {}", "matrix", "together with routing."),
        ("groups: {g: {}}\nmatrix: {sets: {x: a}}", "matrix", "cannot use both"),
        (NEW % "use: matrix", "routing.router.use", "expected settings.matrix"),
        (NEW % "use: best", "routing.router.use", "expected 'group', 'matrix' or ''"),
        ("routing: {scheduler: {use: lifo}}", "routing.scheduler.use", "expected 'fifo' or ''"),
    ],
)
def test_router_that_is_invalid_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """Old and new places do not mix, and only what exists can be used."""
    ((where, told),) = found(check(BASE + text))

    assert (where, message in told) == (path, True)


def test_router_with_both_settings_follows_use(load: Load) -> None:
    """Both settings may be present; only the one in use is checked."""
    both = "settings: {groups: {g: {members: [%s]}}, matrix: {vars: {v: nobody}, sets: {x: %s}}}"
    group = load(BASE + NEW % f"use: '', {both % ('a', 'nobody &')}").routing
    matrix = load(BASE + NEW % f"use: matrix, {both.replace('nobody', 'b', 1) % ('nobody', 'v')}")

    assert (group.use, matrix.routing.use) == ("group", "matrix")


def test_router_ignores_empty_legacy_groups(load: Load) -> None:
    """No groups at all are no conflict."""
    assert load(BASE + "groups: {}\nmatrix: {sets: {x: a}}").routing.use == "matrix"


# ---- scheduler -----------------------------------------------------------------------------


def test_priorities_are_kept_by_model_id(load: Load, check: Check) -> None:
    """Priorities are kept by model id, and an alias stands for its model."""
    text = "routing: {scheduler: {use: fifo, settings: {fifo: {priority: {%s}}}}}"
    assert load(BASE + text % "alias: 5, b: -1").routing.priorities == {"a": 5, "b": -1}
    assert load(BASE + text % "alias: 5, a: 7").routing.priorities == {"a": 7}
    assert load(BASE + text % "a: 7, alias: 5").routing.priorities == {"a": 7}

    ((path, message),) = found(check(BASE + text % "x: 1"))
    assert path == "routing.scheduler.settings.fifo.priority.x"
    assert message == "unknown model 'x'"


# ---- matrix --------------------------------------------------------------------------------


def test_matrix_is_read_in_order(load: Load) -> None:
    """The matrix is data: variables, costs by model, expressions in order of definition."""
    matrix = load(
        BASE + "matrix: {vars: {v: c/1, 'b': a}, evict_costs: {v: 50, a: 3}, "
        "sets: {z: v & b, y: '+z | a'}}"
    ).routing.matrix
    assert matrix is not None

    assert matrix.variables == {"v": "c/1", "b": "a"}
    assert matrix.costs == {"c/1": 50, "a": 3}
    assert list(matrix.sets.items()) == [("z", "v & b"), ("y", "+z | a")]


@pytest.mark.parametrize(
    ("matrix", "path", "message"),
    [
        ("sets: {}", "sets", "expected at least one set"),
        ("vars: {a_b: a}, sets: {x: a}", "vars.a_b", "expected 1 to 32 letters"),
        ("vars: {%s: a}, sets: {x: a}" % ("v" * 33), "vars." + "v" * 33, "expected 1 to 32"),
        ("vars: {v: nobody}, sets: {x: a}", "vars.v", "unknown model 'nobody'"),
        ("vars: {v: alias}, sets: {x: a}", "vars.v", "it is an alias of 'a'"),
        ("evict_costs: {a: 0}, sets: {x: a}", "evict_costs.a", "expected a cost > 0, found 0"),
        ("evict_costs: {z: 1}, sets: {x: a}", "evict_costs.z", "unknown variable or model 'z'"),
        ("sets: {x: a & z}", "sets.x", "unknown variable or model 'z'"),
        ("sets: {x: alias}", "sets.x", "it is an alias of 'a'"),
        ("sets: {x: a & +y}", "sets.x", "unknown set '+y'"),
        ("sets: {x: '+x'}", "sets.x", "lead into a cycle"),
        ("sets: {x: ''}", "sets.x", "empty expression"),
        ("sets: {x: ~}", "sets.x", "expected a text, found nothing"),
        ("sets: {x: 'a b'}", "sets.x", "unexpected token, found 'b' at character 3"),
        ("sets: {x: 'a / b'}", "sets.x", "unexpected token, found '/' at character 3"),
        ("sets: {x: '/'}", "sets.x", "unexpected character, found '/' at character 1"),
        ("sets: {x: 'a &'}", "sets.x", "unexpected token, found the end"),
        ("sets: {x: '(a'}", "sets.x", "missing closing parenthesis, found the end"),
        ("sets: {x: 'a)'}", "sets.x", "unexpected token, found ')' at character 2"),
        ("sets: {x: '+ & a'}", "sets.x", "expected set name after '+', found '&'"),
    ],
)
@row("D14")
def test_matrix_that_is_invalid_is_refused(
    check: Check, matrix: str, path: str, message: str
) -> None:
    """Each rule for the matrix is told at its place."""
    (where, told), *more = found(check(BASE + f"matrix: {{{matrix}}}"))

    assert (where, message in told) == (f"matrix.{path}", True)
    assert len(more) == 0


def test_matrix_cycle_is_reported(check: Check) -> None:
    """Every set in a cycle, or behind one, is told; others are not."""
    told = found(
        check(BASE + "matrix: {sets: {u: a, x: '+y & +u', y: 'a | +z', z: '+y', w: '+x'}}")
    )

    assert [path.rpartition(".")[2] for path, _ in told] == ["x", "y", "z", "w"]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", ServiceRef("a")),
        (" ( a ) ", ServiceRef("a")),
        ("+a.b-c_1", SetRef("a.b-c_1")),
        ("+ a", SetRef("a")),
        ("a|b&c", AnyOf((ServiceRef("a"), AllOf((ServiceRef("b"), ServiceRef("c")))))),
        ("(a|b)&c", AllOf((AnyOf((ServiceRef("a"), ServiceRef("b"))), ServiceRef("c")))),
        ("é & 模型", AllOf((ServiceRef("é"), ServiceRef("模型")))),
    ],
)
def test_matrix_expression_follows_the_grammar(text: str, tree: Expression) -> None:
    """AND binds closer than OR; white space means nothing; names are any letters."""
    assert parse_expression(text) == tree


NAMES = st.sampled_from("abcd")
TREES = st.recursive(
    NAMES.map(ServiceRef),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AllOf(tuple(parts))),
    ),
    max_leaves=7,
)


def written(tree: Expression) -> str:
    if isinstance(tree, ServiceRef):
        return tree.name
    if isinstance(tree, SetRef):
        return f"+{tree.name}"
    joiner = "|" if isinstance(tree, AnyOf) else "&"
    return f"({joiner.join(written(part) for part in tree.parts)})"


def expanded(tree: Expression) -> set[frozenset[str]]:
    """The sets of a matrix, computed the slow way."""
    if isinstance(tree, ServiceRef):
        return {frozenset({tree.name})}
    assert not isinstance(tree, SetRef)
    parts = [expanded(part) for part in tree.parts]
    if isinstance(tree, AnyOf):
        return set().union(*parts)
    return {frozenset().union(*chosen) for chosen in product(*parts)}


@settings(deadline=None)
@given(TREES)
def test_matrix_expression_round_trips(tree: Expression) -> None:
    """Writing an expression and reading it gives the same again, and all its names."""
    assert parse_expression(written(tree)) == tree
    assert set(references(tree)[0]) == set().union(*expanded(tree))


@settings(deadline=None)
@given(TREES, st.frozensets(NAMES, min_size=1))
def test_matrix_families_are_the_reduced_sets(tree: Expression, among: frozenset[str]) -> None:
    """The combinations among some models are those of the full expansion, cut down."""
    (family,) = families({"x": tree}, lambda name: name, among, [10_000])
    cut = {one & among for one in expanded(tree)}

    assert family == {one for one in cut if not any(one < other for other in cut)}


@settings(deadline=None)
@given(st.dictionaries(NAMES, st.lists(NAMES, min_size=1, max_size=3), max_size=4))
def test_matrix_order_of_sets_is_kept(graph: dict[str, list[str]]) -> None:
    """Every set comes after those it needs, or is told to be in or behind a cycle."""
    sets: dict[str, Expression] = {
        name: AllOf(tuple(map(SetRef, others))) if len(others) > 1 else SetRef(others[0])
        for name, others in graph.items()
    }
    ordered, rest = order_sets(sets)

    assert sorted([*ordered, *rest]) == sorted(graph)
    for index, name in enumerate(ordered):
        assert set(graph[name]) & graph.keys() <= set(ordered[:index])
    for name in rest:
        assert set(graph[name]) & set(rest)


@settings(deadline=None)
@given(st.text("ab|&+() /", max_size=12))
def test_matrix_expression_of_any_text_is_parsed_or_refused(text: str) -> None:
    """No text makes the reader fail in another way."""
    try:
        tree = parse_expression(text)
    except ExpressionError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine
        return

    assert parse_expression(written(tree)) == tree
