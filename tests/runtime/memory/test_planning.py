"""The memory decision: acceptance cases, properties of every plan, and mutants."""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.runtime import memory
from swapchart.runtime.memory import (
    Amounts,
    Holder,
    Plan,
    Pool,
    Rules,
    Wanted,
    explain_sum,
    lru_cost,
    plan,
    reload_cost,
)

from .cases import CASES, GIB, NOW

POOLS = ("GPU0", "GPU1", "RAM")
PHASES: Sequence[Literal["starting", "ready", "stopping", "asleep", "reviving"]] = (
    "ready", "ready", "ready", "ready", "ready", "starting", "stopping", "asleep", "reviving",
)  # fmt: skip
World = tuple[dict[str, Pool], list[Holder], Wanted]


@pytest.mark.parametrize("name", CASES)
def test_plan_acceptance_case_gives_the_expected_plan(name: str) -> None:
    CASES[name](memory)


# ---- properties
_Draw = st.DrawFn


@st.composite
def worlds(draw: _Draw, most: int = 9) -> World:
    pools = {
        name: Pool(
            name=name, capacity=draw(st.integers(4, 48)), reserve=draw(st.integers(0, 3)),
            limit=draw(st.sampled_from([None, None, None, 3, 20])),
            foreign=draw(st.sampled_from([0, 0, 0, 1, 5])),
        )
        for name in POOLS
    }  # fmt: skip
    free = {name: max(pool.available, 0) for name, pool in pools.items()}
    holders = [draw(_holder(f"m{number}", free)) for number in range(draw(st.integers(0, most)))]
    places = st.sets(st.sampled_from(POOLS), min_size=1, max_size=2)
    options = tuple(
        {name: draw(st.integers(1, 40)) for name in sorted(draw(places))}
        for _ in range(draw(st.integers(1, 3)))
    )
    wanted = Wanted(
        name="w", options=options, is_overdue=draw(st.booleans()),
        source=draw(st.sampled_from(["declared", "declared", "learned", "estimated", "unknown"])),
    )  # fmt: skip
    return pools, holders, wanted


@st.composite
def _holder(draw: _Draw, name: str, free: dict[str, int]) -> Holder:
    claim, seen = {}, {}
    for pool in sorted(draw(st.sets(st.sampled_from(POOLS), min_size=1, max_size=2))):
        amount = draw(st.integers(0, free[pool]))
        free[pool] -= amount
        claim[pool] = amount
        seen[pool] = draw(st.integers(0, amount))
    phase = draw(st.sampled_from(PHASES))
    ending = draw(st.sampled_from(["stop", "sleep", "stuck"])) if phase == "stopping" else ""
    keeps = {pool: draw(st.integers(0, amount)) for pool, amount in claim.items()}
    return Holder(
        name=name, phase=phase, claim=claim, seen=seen,
        keeps=keeps if ending == "sleep" else {}, is_stuck=ending == "stuck",
        granted=draw(st.integers(0, 2)) if phase == "ready" else 0,
        is_pinned=draw(st.booleans()) and draw(st.booleans()),
        used_at=draw(st.floats(0, NOW)), stays_until=draw(st.floats(NOW - 20, NOW + 20)),
        load_s=draw(st.floats(0.5, 60)), at_risk_s=draw(st.floats(0, 60)),
    )  # fmt: skip


def fits(
    pools: Mapping[str, Pool], holders: Sequence[Holder], place: Amounts, gone: Collection[str]
) -> bool:
    return all(
        sum(holder.holds(name) for holder in holders if holder.name not in gone) + need
        <= pools[name].available
        for name, need in place.items()
    )


def stopping(holders: Sequence[Holder]) -> set[str]:
    return {holder.name for holder in holders if holder.phase == "stopping"}


def at_rest(holders: Sequence[Holder]) -> list[Holder]:
    """Return *holders* once all stops have ended."""
    return [
        replace(holder, phase="asleep", claim=holder.keeps, seen={}, keeps={})
        if holder.phase == "stopping" and not holder.is_stuck
        else holder
        for holder in holders
    ]


@given(worlds())
def test_plan_with_known_amounts_never_overcommits(world: World) -> None:
    pools, holders, wanted = world
    found = plan(pools, holders, wanted, NOW)
    if wanted.source == "declared" and found.kind == "start":
        assert fits(pools, holders, found.place, ())
    if wanted.source == "declared" and found.kind == "evict":
        assert fits(pools, at_rest(holders), found.place, found.evict)


@given(worlds())
def test_plan_evicts_only_idle_unpinned_services(world: World) -> None:
    pools, holders, wanted = world
    found = plan(pools, holders, wanted, NOW)
    for holder in holders:
        if holder.name in found.evict:
            assert not holder.is_pinned
            # What is going to sleep may be evicted once it sleeps, which a plan waits for.
            assert holder.phase != "stopping" or any(holder.keeps.values())
            if found.kind == "evict":
                assert not holder.granted
                assert holder.phase in ("ready", "asleep")


@given(worlds())
def test_plan_evicts_nothing_that_can_stay(world: World) -> None:
    pools, holders, wanted = world
    found = plan(pools, holders, wanted, NOW)
    if found.kind == "evict" and wanted.source == "declared":
        for name in found.evict:
            gone = {*found.evict} - {name}
            assert not fits(pools, at_rest(holders), found.place, gone)


@given(worlds(7))
def test_plan_evicts_the_cheapest_set(world: World) -> None:
    pools, holders, wanted = world
    found = plan(pools, holders, wanted, NOW)
    if found.kind != "evict" or wanted.source != "declared":
        return
    idle = [
        holder
        for holder in holders
        if holder.phase != "stopping"
        and not holder.is_pinned
        and not holder.busy_reason(NOW, is_overdue=wanted.is_overdue)
    ]
    for place in wanted.options:
        assert not fits(pools, holders, place, ())
        for count in range(1, len(idle) + 1):
            for some in combinations(idle, count):
                gone = {holder.name for holder in some}
                if fits(pools, at_rest(holders), place, gone):
                    assert found.cost <= sum(reload_cost(h, NOW) for h in some) + 1e-9


@given(worlds())
def test_plan_carried_out_ends_in_a_start_or_a_refusal(world: World) -> None:
    pools, holders, wanted = world
    for _ in range(3 * len(holders) + 3):
        found = plan(pools, holders, wanted, NOW)
        if found.kind in ("start", "refuse"):
            return
        holders, wanted = _carried_out(found, holders, wanted)
        if found.kind == "wait" and not found.waits_for:
            assert any(pool.foreign for pool in pools.values()) or any(
                holder.is_stuck for holder in holders
            )
            pools = {name: replace(pool, foreign=0) for name, pool in pools.items()}
            holders = [holder for holder in holders if not holder.is_stuck]
    raise AssertionError("the plans do not end")


def _carried_out(found: Plan, holders: list[Holder], wanted: Wanted) -> tuple[list[Holder], Wanted]:
    """Return the world after the plan was followed, and what it waits for has come."""
    if found.kind == "evict":
        return [h for h in at_rest(holders) if h.name not in found.evict], wanted
    after = []
    for holder in holders:
        if holder.name not in found.waits_for:
            after.append(holder)
        elif holder.phase != "stopping":
            after.append(replace(holder, granted=0, phase="ready"))
        else:
            assert not holder.is_stuck
            after += at_rest([holder])
    return after, replace(wanted, is_overdue=True)


@given(worlds())
def test_plan_refusal_is_final(world: World) -> None:
    pools, holders, wanted = world
    if plan(pools, holders, wanted, NOW).kind == "refuse":
        assert wanted.source == "declared"
        movable = {holder.name for holder in holders if not holder.is_pinned}
        empty = {name: replace(pool, foreign=0) for name, pool in pools.items()}
        assert not any(fits(empty, holders, place, movable) for place in wanted.options)


@given(worlds(), st.integers())
def test_plan_does_not_depend_on_the_order_of_holders(world: World, seed: int) -> None:
    pools, holders, wanted = world
    shuffled = list(holders)
    random.Random(seed).shuffle(shuffled)
    assert plan(pools, holders, wanted, NOW) == plan(pools, shuffled, wanted, NOW)


@given(worlds())
def test_plan_reason_names_the_services_and_amounts(world: World) -> None:
    pools, holders, wanted = world
    found = plan(pools, holders, wanted, NOW)
    for name in found.evict + found.waits_for:
        assert name in found.why
    for name in found.place:
        assert f"{name}: " in found.why
    lines = explain_sum(pools, holders, wanted, found, NOW)
    for holder in holders:
        if any(holder.holds(name) for name in found.place):
            assert any(holder.name in line for line in lines)


# ---- rules
def test_plan_lru_rule_evicts_the_least_recently_used() -> None:
    pools = {"GPU0": Pool(name="GPU0", capacity=24 * GIB)}
    holders = [
        Holder(name="slow", claim={"GPU0": 12 * GIB}, used_at=NOW - 100, load_s=100),
        Holder(name="fast", claim={"GPU0": 12 * GIB}, used_at=NOW - 50, load_s=1),
    ]
    wanted = Wanted(name="w", options=({"GPU0": 6 * GIB},))
    assert plan(pools, holders, wanted, NOW).evict == ("fast",)
    assert plan(pools, holders, wanted, NOW, Rules(cost=lru_cost)).evict == ("slow",)


def test_plan_unknown_amount_can_be_refused() -> None:
    pools = {"GPU0": Pool(name="GPU0", capacity=24 * GIB)}
    wanted = Wanted(name="w", options=({"GPU0": 0},), source="unknown")
    found = plan(pools, [], wanted, NOW, Rules(refuse_unknown=True))
    assert (found.kind, "set `memory`" in found.why) == ("refuse", True)


def test_explain_sum_prints_one_amount_a_line() -> None:
    pools = {"GPU0": Pool(name="GPU0", capacity=24 * GIB, reserve=GIB, foreign=2 * GIB)}
    holders = [
        Holder(name="embed", claim={"GPU0": 2 * GIB}, is_pinned=True, granted=1),
        Holder(
            name="coder",
            claim={"GPU0": 12 * GIB},
            source="learned",
            used_at=NOW - 42,
            load_s=9.2,
            at_risk_s=4.9,
            weight=2,
        ),
        Holder(name="vision", claim={"GPU0": 5 * GIB}, seen={"GPU0": 6 * GIB}, used_at=NOW - 1080),
    ]
    wanted = Wanted(name="qwen", options=({"GPU0": 6 * GIB},), source="estimated")
    found = plan(pools, holders, wanted, NOW)
    assert found.evict == ("vision",)
    assert explain_sum(pools, holders, wanted, found, NOW) == [
        "qwen on GPU0: 24.0 GiB capacity",
        "- 1.0 GiB reserve",
        "- 2.0 GiB other programs",
        "- 2.0 GiB embed (declared, ready, pinned, 1 in flight)",
        "- 12.0 GiB coder (learned, ready, last used 42 s ago)",
        "- 6.0 GiB vision (declared less, measured, ready, last used 1080 s ago)",
        "= 1.0 GiB free, 6.0 GiB needed (estimated)",
        "stays: coder would free 12.0 GiB, costs 2 x (9.2 s to load + 4.9 s of prefill)"
        " / 42 s idle",
        "goes: vision frees 6.0 GiB, costs 1.0 s to load / 1080 s idle",
    ]


# ---- mutants
MUTANTS = {
    "claims only": ("values.py", "max(self.claim.get(pool, 0), self.seen.get(pool, 0))",
                    "self.claim.get(pool, 0)"),
    "measurements only": ("values.py", "max(self.claim.get(pool, 0), self.seen.get(pool, 0))",
                          "self.seen.get(pool, self.claim.get(pool, 0))"),
    "no reserve": ("values.py", "self.capacity - self.reserve", "self.capacity"),
    "what stops holds nothing": ("planning.py", "sum(holder.holds(name) for holder in others)",
                                 'sum(h.holds(name) for h in others if h.phase != "stopping")'),
    "busy services go": ("values.py", "if self.granted:", "if False:"),
    "overdue requests keep no place": ("planning.py", "- wanted.ahead.get(name, 0)", "- 0"),
    "overdue does not end residency": ("values.py", " and not is_overdue", ""),
    "pinned services go": ("values.py", "return not self.is_pinned", "return True"),
    "stuck services free their memory": ("values.py", ' or self.is_stuck:\n            return 0',
                                         ':\n            return 0'),
    "what stops goes again": ("values.py", "return False", "return not self.is_pinned"),
    "sleep holds nothing": ("values.py", " - self.keeps.get(pool, 0)", ""),
    "one pool is enough": ("cover.py", "return all(amount >= need", "return any(amount >= need"),
    "nothing is left to other programs": ("values.py",
        "self.room if self.keep is None else min(self.room, self.keep)", "self.room"),
    "guesses are tried beside other programs": ("planning.py",
        "if reason := self._left_because(lack):", 'if reason := "":'),
    "unknown ones are tried beside other programs": ("planning.py",
        "if reason := self._left_because(place):", 'if reason := "":'),
    "pinned services leave too": ("readings.py", "if with_pinned or not holder.is_pinned",
                                  "if True"),
    "busy services leave first": ("readings.py", "for some in (idle, able):",
                                  "for some in (able,):"),
    "other programs are not counted": ("values.py", " - self.foreign", ""),
    "a claim is not raised": ("shortage.py", "max(amount, least.get(pool, 0))", "amount"),
    "what was free is no bound": ("shortage.py", "free + GRANULE if free > 0 else 0", "0"),
    "a raised claim refuses": ("shortage.py", 'source="learned"', "source=need.source"),
    "a raised claim lasts": ("shortage.py", "each.good_runs + 1)", "each.good_runs)"),
    "a raised claim grows for ever": ("shortage.py", "if claim <= pool.budget", "if True"),
    "what was asked for is no bound": ("shortage.py", "else 0, asked)", "else 0)"),
}  # fmt: skip


@contextmanager
def mutant(folder: Path, file: str, old: str, new: str) -> Iterator[ModuleType]:
    """Yield a copy of the package with one place changed."""
    copy = folder / "mutant"
    shutil.copytree(Path(memory.__file__).parent, copy)
    for path in copy.glob("*.py"):  # the copy is a package of its own
        path.write_text(path.read_text().replace("from ...dataclass", "from swapchart.dataclass"))
    source = (copy / file).read_text()
    assert old in source
    (copy / file).write_text(source.replace(old, new, 1))
    spec = importlib.util.spec_from_file_location("memory_mutant", copy / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["memory_mutant"] = package
    try:
        spec.loader.exec_module(package)
        yield package
    finally:
        for name in [name for name in sys.modules if name.startswith("memory_mutant")]:
            del sys.modules[name]


@pytest.mark.parametrize("name", MUTANTS)
def test_plan_mutant_is_refuted_by_a_case(name: str, tmp_path: Path) -> None:
    with mutant(tmp_path, *MUTANTS[name]) as package:
        assert any(_fails(case, package) for case in CASES), f"no case refutes {name!r}"


def _fails(case: str, package: ModuleType) -> bool:
    try:
        CASES[case](package)
    except AssertionError:
        return True
    return False
