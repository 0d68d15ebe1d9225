"""Footprints: from the observations of runs to the need of the next one, without any clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.runtime.memory import MemoryNeed
from swapchart.runtime.memory.footprints import RUNS, Footprints, Observation, is_exceeded

from .cases import GIB, MIB

UNKNOWN = MemoryNeed(options=({"GPU0": 0},), source="unknown", key="k")


def seen(run: int, highest: float, **more: object) -> Observation:
    """Return what run number *run* held of GPU0, in GiB."""
    fields = {
        "model": "u", "key": "k", "run": f"i-{run}", "pool": "GPU0", "at": float(run),
        "ready": int(highest * GIB), "highest": int(highest * GIB),
    }  # fmt: skip
    return Observation(**{**fields, **more})  # type: ignore[arg-type]


def test_case_15_unknown_is_learned_with_a_margin_and_64_mib_per_gpu_process() -> None:
    need = Footprints([seen(1, 7.1)]).need("u", UNKNOWN)

    assert need.source == "learned"
    assert need.options[0]["GPU0"] / GIB == pytest.approx(7.1 * 1.03 + 64 / 1024, abs=0.001)
    assert round(need.options[0]["GPU0"] / GIB, 1) == 7.4


def test_case_16_changed_launch_is_the_old_amount_plus_the_difference_of_the_estimates() -> None:
    """A launch of 20 GiB whose context doubles: its estimate grows by 2 GiB, so it needs 22."""
    old = seen(1, 20, estimated=19 * GIB)
    base = MemoryNeed(
        options=({"GPU0": 21 * GIB},), source="estimated", key="other",
        estimated={"GPU0": 21 * GIB},
    )  # fmt: skip
    need = Footprints([old]).need("u", base)

    assert need.source == "estimated"
    assert need.options == ({"GPU0": old.claim + 2 * GIB},)
    assert Footprints([old]).need("another", base) == base
    assert Footprints([seen(1, 20)]).need("u", base) == base, "the old one has no estimate"


def test_case_23_main_memory_has_a_margin_of_three_percent_only() -> None:
    claims = [
        Observation(
            model="m", key="k", run="1", pool="RAM", at=0.0, ready=0, highest=mib * MIB
        ).claim
        for mib in (152, 332, 873)
    ]  # fmt: skip

    assert [round(claim / MIB) for claim in claims] == [157, 342, 899]


def test_footprints_difference_of_the_whole_pool_has_a_margin_of_eight_percent() -> None:
    assert seen(1, 10, method="delta").claim == int(10.8 * GIB)


def test_footprints_claim_is_the_highest_of_the_last_five_runs() -> None:
    runs = [seen(1, 9), seen(2, 3), seen(3, 4), seen(4, 3), seen(5, 3)]
    known = Footprints(runs)
    assert known.need("u", UNKNOWN).options == ({"GPU0": runs[0].claim},)
    known.add(seen(6, 3))
    assert known.need("u", UNKNOWN).options == ({"GPU0": runs[2].claim},)
    (row,) = known.all()
    assert (row.runs, row.highest, row.ready) == (RUNS, 4 * GIB, 3 * GIB)


def test_footprints_later_observation_of_a_run_replaces_the_earlier_one() -> None:
    known = Footprints([seen(1, 9), seen(1, 10)])
    assert [row.runs for row in known.all()] == [1]
    assert known.need("u", UNKNOWN).options == ({"GPU0": seen(1, 10).claim},)


def test_footprints_of_a_server_that_fits_itself_count_only_if_it_was_alone() -> None:
    elastic = MemoryNeed(options=({"GPU0": 0},), source="unknown", key="k", is_elastic=True)
    small = seen(1, 3, is_alone=False)
    assert Footprints([small]).need("u", elastic) == elastic
    assert Footprints([small]).need("u", UNKNOWN).source == "learned"
    known = Footprints([seen(1, 9), small])
    assert known.need("u", elastic).source == "unknown", "the run was replaced"
    known.add(seen(2, 9))
    assert known.need("u", elastic).options == ({"GPU0": seen(2, 9).claim},)


def test_footprints_declared_amount_is_never_changed() -> None:
    declared = MemoryNeed(options=({"GPU0": 2 * GIB},), key="k")
    assert Footprints([seen(1, 9)]).need("u", declared) == declared


def test_footprints_asleep_amount_is_learned_unless_it_is_declared() -> None:
    known = Footprints([seen(1, 9, asleep=GIB)])
    assert known.need("u", UNKNOWN).asleep == {"GPU0": int(1.03 * GIB) + 64 * MIB}
    declared = MemoryNeed(options=({"GPU0": GIB},), key="k", asleep={"GPU0": 5})
    assert known.need("u", declared).asleep == {"GPU0": 5}


def test_footprints_pools_that_do_not_count_are_left_out() -> None:
    known = Footprints([seen(1, 9), seen(1, 4, pool="RAM")])
    assert [*known.need("u", UNKNOWN).options[0]] == ["GPU0"]
    assert [row.pool for row in known.all()] == ["GPU0", "RAM"]


def test_footprints_forget_one_model_keeps_the_others() -> None:
    known = Footprints([seen(1, 9), seen(1, 9, key="k2"), seen(1, 9, model="v", key="k3")])
    assert known.forget("u") == 2
    assert known.need("u", UNKNOWN) == UNKNOWN
    assert [row.model for row in known.all()] == ["v"]
    assert known.forget("u") == 0


@pytest.mark.parametrize(("highest", "runs", "is_noticed"), [(12, 5, True), (12, 4, False),
                                                            (12.1, 5, False)])  # fmt: skip
def test_footprints_declaration_of_which_40_percent_is_unused_in_five_runs_is_noticed(
    highest: float, runs: int, is_noticed: bool
) -> None:
    known = Footprints(seen(number, highest) for number in range(runs))
    declared = MemoryNeed(options=({"GPU0": 20 * GIB},), key="k")
    expected = ["u declares 20.0 GiB of GPU0 and never held more than 12.0 GiB in its last 5 runs"]
    assert [each.text for each in known.notices("u", declared)] == (expected if is_noticed else [])
    assert known.notices("u", UNKNOWN) == []


def test_footprints_server_that_fits_itself_is_noticed_unless_it_is_declared() -> None:
    (notice,) = Footprints().notices("u", replace(UNKNOWN, is_elastic=True))
    assert notice.text.endswith("give it -c and -ngl, or --fit off")
    declared = MemoryNeed(options=({"GPU0": GIB},), key="k", is_elastic=True)
    assert Footprints().notices("u", declared) == []


def test_footprints_exceeded_declaration_is_noticed_until_it_is_raised() -> None:
    known = Footprints([seen(0, 22), seen(1, 18)])
    declared = MemoryNeed(options=({"GPU0": 20 * GIB},), key="k")
    (notice,) = known.notices("u", declared)
    assert (notice.kind, notice.service, notice.pool) == ("exceeded", "u", "GPU0")
    assert notice.text == "u has held 22.0 GiB of GPU0 and declares 20.0 GiB: raise its `memory`"
    assert known.notices("u", replace(declared, options=({"GPU0": 21 * GIB},))) == []


def test_footprints_declaration_is_exceeded_beyond_five_percent() -> None:
    assert [is_exceeded(100, amount) for amount in (100, 105, 106)] == [False, False, True]
    assert not is_exceeded(0, 5)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 1 << 40)), min_size=1, max_size=30))
def test_footprints_claim_is_never_less_than_any_kept_run_held(runs: list[tuple[int, int]]) -> None:
    known, kept = Footprints(), dict[int, int]()
    for number, amount in runs:
        known.add(replace(seen(number, 0), highest=amount))
        kept[number] = amount
        if len(kept) > RUNS:
            del kept[next(iter(kept))]
    claim = known.need("u", UNKNOWN).options[0]["GPU0"]

    assert claim == replace(seen(0, 0), highest=max(kept.values())).claim
    assert claim > max(kept.values())
