"""Which services fit into the pools together, and what no longer does."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from swapchart.runtime.memory import MemoryNeed, Pool, Rules
from swapchart.runtime.memory.together import lack_in_words, lost_pairs, residents, together

from .cases import GIB

POOLS = {"GPU0": Pool(name="GPU0", capacity=25, reserve=1), "GPU1": Pool(name="GPU1", capacity=8)}


def need(*options: dict[str, int], source: str = "declared") -> MemoryNeed:
    return MemoryNeed(options=options, source=source)  # type: ignore[arg-type]


_PLACE = st.dictionaries(st.sampled_from(["GPU0", "GPU1", "absent"]), st.integers(0, 26))
_NEEDS = st.dictionaries(
    st.sampled_from("abcd"),
    st.builds(lambda places: need(*places), st.lists(_PLACE, min_size=1, max_size=3)),
)


@given(_NEEDS)
def test_together_agrees_with_trying_all_places(needs: dict[str, MemoryNeed]) -> None:
    found = together(POOLS, needs)
    possible = any(
        all(
            sum(place.get(pool, 0) for place in places) <= POOLS[pool].budget for pool in POOLS
        )
        for places in product(*(each.options for each in needs.values()))
    )  # fmt: skip
    assert found.fits == possible
    if found.fits:
        for pool in POOLS:
            assert sum(p.get(pool, 0) for p in found.places.values()) <= POOLS[pool].budget


def test_together_unknown_service_fits_beside_no_other_one_in_its_pools() -> None:
    unknown = need({"GPU1": 0}, source="unknown")
    assert together(POOLS, {"u": unknown, "a": need({"GPU0": 24})}).fits
    assert not together(POOLS, {"u": unknown, "a": need({"GPU1": 1})}).fits


def test_together_says_what_is_missing() -> None:
    pools = {"GPU0": Pool(name="GPU0", capacity=24 * GIB)}
    found = together(pools, {"a": need({"GPU0": 20 * GIB}), "b": need({"GPU0": 6 * GIB})})
    assert found.lack == {"GPU0": 2 * GIB}
    assert lack_in_words(pools, found) == "26.0 GiB of GPU0 needed, 24.0 GiB for models"


def test_together_of_many_services_ends() -> None:
    """Where each of 40 services has 3 places, not all of the combinations are tried."""
    places = [{"GPU0": 1}, {"GPU1": 1}, {"GPU0": 1, "GPU1": 1}]
    together(POOLS, {f"m{number}": need(*places) for number in range(40)})


def test_lost_pairs_are_those_that_fitted_before() -> None:
    before = {"a": need({"GPU0": 10}), "b": need({"GPU0": 10}), "c": need({"GPU0": 20})}
    after = {**before, "b": need({"GPU0": 15}), "d": need({"GPU0": 24})}
    found = lost_pairs((POOLS, before), (POOLS, after))
    assert [(one, other) for one, other, _ in found] == [("a", "b")]
    large = lost_pairs((POOLS, before), (POOLS, {**before, "b": need({"GPU0": 30})}))
    assert [(one, other) for one, other, _ in large] == [("b", "")]
    assert lost_pairs((POOLS, before), (POOLS, before)) == []


def test_residents_are_those_that_are_left_when_all_were_requested() -> None:
    needs = {
        "a": need({"GPU0": 12}), "b": need({"GPU0": 10}), "c": need({"GPU0": 8}),
        "free": need({"absent": 1}), "huge": need({"GPU0": 30}),
    }  # fmt: skip
    assert residents(POOLS, needs, set(), Rules()) == ["b", "c", "free"]
    assert residents(POOLS, needs, {"a"}, Rules()) == ["a", "c", "free"]
