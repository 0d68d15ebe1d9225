"""Eviction policies: groups and the matrix."""

from __future__ import annotations

import time
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapchart.runtime import eviction
from swapchart.runtime.eviction import (
    AllOf,
    AnyOf,
    Expression,
    Group,
    ServiceRef,
    SetRef,
    group_policy,
    matrix_policy,
)

NAMES = "abcdefg"


def group(members: str, **flags: bool) -> Group:
    return Group(members=frozenset(members), **flags)


@pytest.mark.parametrize(
    ("groups", "target", "running", "gone"),
    [
        ([], "a", "bc", "bc"),
        ([group("ab")], "a", "b", "b"),
        ([group("ab", swap=False)], "a", "b", ""),
        ([group("ab", swap=False)], "a", "bc", "c"),
        ([group("ab", swap=False, exclusive=False)], "a", "bc", ""),
        ([group("ab", persistent=True)], "c", "ab", ""),
        ([group("ab", persistent=True)], "a", "b", "b"),
        # intended: a non-exclusive target leaves an exclusive group running
        ([group("a", exclusive=False), group("b")], "a", "b", ""),
        ([group("a", exclusive=False), group("b")], "b", "a", "a"),
        ([group("ab"), group("cd")], "a", "acd", "cd"),
    ],
)
def test_groups_policy_evicts_as_declared(
    groups: list[Group], target: str, running: str, gone: str
) -> None:
    """The rules of the row hold, and the target itself is never evicted."""
    assert group_policy(groups)(target, frozenset(running)) == frozenset(gone)


def both(*names: str) -> Expression:
    return AllOf(tuple(ServiceRef(name) for name in names))


@pytest.mark.parametrize(
    ("sets", "costs", "target", "running", "gone"),
    [
        ({"x": both("a", "b")}, {}, "a", "b", ""),
        ({"x": both("a", "b")}, {}, "a", "bc", "c"),
        ({"x": both("a", "b")}, {}, "c", "ab", "ab"),  # in no set: alone
        ({"x": both("a", "b")}, {}, "a", "ac", ""),  # it runs already
        ({"x": both("a", "b"), "y": both("a", "c")}, {}, "a", "bc", "c"),  # a tie: the first
        ({"y": both("a", "c"), "x": both("a", "b")}, {}, "a", "bc", "b"),
        ({"x": both("a", "b"), "y": both("a", "c")}, {"c": 5}, "a", "bc", "b"),
        (
            {"x": AllOf((AnyOf((ServiceRef("a"), ServiceRef("b"))), ServiceRef("c")))},
            {},
            "a",
            "bc",
            "b",
        ),
        ({"x": both("b", "c"), "y": AllOf((ServiceRef("a"), SetRef("x")))}, {}, "a", "bcd", "d"),
    ],
)
def test_matrix_policy_evicts_as_declared(
    sets: dict[str, Expression], costs: dict[str, int], target: str, running: str, gone: str
) -> None:
    """The cheapest combination with the target stays; the order of sets breaks ties."""
    assert matrix_policy(sets, costs)(target, frozenset(running)) == frozenset(gone)


def expressions() -> st.SearchStrategy[Expression]:
    return st.recursive(
        st.sampled_from(NAMES).map(ServiceRef),
        lambda inner: st.builds(
            lambda kind, parts: kind(tuple(parts)),
            st.sampled_from([AnyOf, AllOf]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=10,
    )


def expand(expression: Expression) -> list[frozenset[str]]:
    """Return every combination, by enumeration."""
    match expression:
        case ServiceRef(name=name):
            return [frozenset({name})]
        case AnyOf(parts=parts):
            return [combination for part in parts for combination in expand(part)]
        case AllOf(parts=parts):
            return [frozenset().union(*chosen) for chosen in product(*map(expand, parts))]
        case _:
            raise AssertionError(expression)


@given(
    st.lists(expressions(), min_size=1, max_size=4),
    st.sampled_from(NAMES),
    st.frozensets(st.sampled_from(NAMES)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)),
)
@settings(deadline=None)
def test_solver_is_as_good_as_trying_every_combination(
    given_sets: list[Expression], target: str, running: frozenset[str], costs: dict[str, int]
) -> None:
    """The evictions cost no more than by enumeration, and the rest is allowed."""
    sets = {str(index): item for index, item in enumerate(given_sets)}
    gone = matrix_policy(sets, costs)(target, running)
    others = running - {target}
    fitting = [c for item in given_sets for c in expand(item) if target in c]

    if target in running:
        assert not gone
    elif not fitting:
        assert gone == others
    else:
        cheapest = min(sum(costs.get(m, 1) for m in others - c) for c in fitting)
        assert sum(costs.get(m, 1) for m in gone) == cheapest
        assert any(others - gone <= c for c in fitting)


def test_solver_never_builds_a_million_combinations() -> None:
    """Ten choices of ten have 10^10 combinations, which would take hours to enumerate."""
    choices = AllOf(
        tuple(
            AnyOf(tuple(ServiceRef(f"m{row}.{column}") for column in range(10)))
            for row in range(10)
        )
    )
    policy = matrix_policy({"all": choices})
    few = frozenset(f"m{row}.1" for row in range(1, 10)) | {"m0.3", "m1.7"}
    assert policy("m0.0", few) == {"m0.3", "m1.7"}

    every = frozenset(f"m{row}.{column}" for row in range(1, 10) for column in range(10))
    assert len(policy("m0.0", every)) == 81


@given(
    st.lists(expressions(), min_size=1, max_size=4),
    st.sampled_from(NAMES),
    st.frozensets(st.sampled_from(NAMES)),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9)),
)
@settings(deadline=None)
def test_solver_beyond_its_exact_size_is_as_good(
    given_sets: list[Expression], target: str, running: frozenset[str], costs: dict[str, int]
) -> None:
    """To drop outcomes that are contained in others loses no best result."""
    sets: dict[str, Expression] = {str(index): item for index, item in enumerate(given_sets)}
    sets["all"] = AllOf((SetRef("0"), SetRef("0"), AnyOf((SetRef("0"), ServiceRef("a")))))
    exact = matrix_policy(sets, costs)(target, running)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eviction, "_EXACT", 1)
        pruned = matrix_policy(sets, costs)(target, running)

    assert sum(costs.get(m, 1) for m in pruned) == sum(costs.get(m, 1) for m in exact)


def pairs(count: int) -> Expression:
    return AllOf(tuple(AnyOf((ServiceRef(f"a{i}"), ServiceRef(f"b{i}"))) for i in range(count)))


def hostile(kind: str, size: int) -> dict[str, Expression]:
    """Return sets of about *size* parts whose outcomes multiply."""
    few = min(size, 30)
    everything: dict[str, dict[str, Expression]] = {
        "threefold": {
            "s": pairs(few),
            "x": AllOf((SetRef("s"), SetRef("s"), SetRef("s"), ServiceRef("t"))),
        },
        "doubling": {
            "s0": pairs(few),
            **{
                f"s{i}": AllOf((SetRef(f"s{i - 1}"), SetRef(f"s{i - 1}")))
                for i in range(1, size // 2)
            },
            "x": AllOf((SetRef(f"s{size // 2 - 1}"), ServiceRef("t"))),
        },
        "mixed": {
            "x": AllOf(
                (
                    *(
                        AnyOf(
                            tuple(
                                ServiceRef(f"{c}{i * k % few}")
                                for c, k in zip("abab", (1, 7, 3, 5), strict=True)
                            )
                        )
                        for i in range(size)
                    ),
                    ServiceRef("t"),
                )
            )
        },
        "chain backwards": {
            **{
                f"s{i}": AnyOf(
                    (SetRef(f"s{i - 1}"), AllOf((SetRef("s0"), ServiceRef(f"a{i % few}"))))
                )
                for i in range(size - 1, 0, -1)
            },
            "s0": AllOf((ServiceRef("t"), pairs(few))),
        },
    }
    return everything[kind]


@pytest.mark.parametrize("kind", ["threefold", "doubling", "mixed", "chain backwards"])
@pytest.mark.parametrize("size", [18, 60, 2000])
def test_solver_hostile_sets_are_solved_in_bounded_time(kind: str, size: int) -> None:
    """Whatever services sets share, the choice is fast and allowed."""
    running = frozenset(f"{c}{i}" for c in "ab" for i in range(min(size, 30)))
    policy = matrix_policy(hostile(kind, size))
    began = time.process_time()
    gone = policy("t", running)

    assert time.process_time() - began < 3
    if kind in ("threefold", "doubling") and size <= 60:
        assert gone == frozenset()


@pytest.mark.parametrize("count", [5, 9, 14, 30])
def test_solver_finds_the_best_where_many_outcomes_are_alike(count: int) -> None:
    """Of 2^count similar outcomes, the one that keeps all services is found."""
    sets: dict[str, Expression] = {
        "s": pairs(count),
        "x": AllOf((SetRef("s"), SetRef("s"), ServiceRef("t"))),
    }
    running = frozenset(f"{c}{i}" for c in "ab" for i in range(count))

    assert matrix_policy(sets)("t", running) == frozenset()
