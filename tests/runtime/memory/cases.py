"""Acceptance cases of the memory decision, by number.

GPU0 has 24 GiB, 1 GiB of which is reserved, and every amount is declared, unless a case says
otherwise. Each case takes the package under test, so that mutants of it can be refuted by them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swapchart.runtime import memory

GIB = 1 << 30
MIB = 1 << 20
NOW = 1000.0

Case = Callable[[Any], None]


class World:
    """Pools and holders of one case, built with the classes of the package under test."""

    def __init__(
        self, package: Any, *, foreign: float = 0, capacity: float = 24, reserve: float = 1,
        pool: str = "GPU0",
    ) -> None:  # fmt: skip
        self.package, self.pool = package, pool
        self.pools = {pool: self._pool(pool, capacity, reserve, foreign)}
        self.holders: list[memory.Holder] = []

    def _pool(self, name: str, capacity: float, reserve: float, foreign: float) -> memory.Pool:
        made: memory.Pool = self.package.Pool(
            name=name, capacity=int(capacity * GIB), reserve=int(reserve * GIB),
            foreign=int(foreign * GIB),
        )  # fmt: skip
        return made

    def with_pool(self, name: str, capacity: float, reserve: float = 1) -> World:
        """Add another pool."""
        self.pools[name] = self._pool(name, capacity, reserve, 0)
        return self

    def holding(self, name: str, gib: float, *, seen: float | None = None, **more: Any) -> World:
        """Add a service that holds *gib* GiB."""
        holder = self.package.Holder(
            name=name, claim={self.pool: int(gib * GIB)},
            seen={} if seen is None else {self.pool: int(seen * GIB)}, **more,
        )  # fmt: skip
        self.holders.append(holder)
        return self

    def plan(self, gib: float, name: str = "w", **more: Any) -> memory.Plan:
        """Return the plan for a service that needs *gib* GiB of the pool."""
        return self.plan_in(({self.pool: int(gib * GIB)},), name, **more)

    def plan_in(
        self, options: tuple[memory.Amounts, ...], name: str = "w", **more: Any
    ) -> memory.Plan:
        """Return the plan for a service that can run in any of *options*."""
        wanted = self.package.Wanted(name=name, options=options, **more)
        found: memory.Plan = self.package.plan(self.pools, self.holders, wanted, NOW)
        return found


def _expect(found: memory.Plan, kind: str, evict: str = "", waits_for: str = "") -> memory.Plan:
    actual = (found.kind, " ".join(found.evict), " ".join(found.waits_for))
    assert actual == (kind, evict, waits_for), found
    return found


def case_01_empty(m: Any) -> None:
    found = _expect(World(m).plan(20), "start")
    assert found.leftover == 3 * GIB


def case_02_beside(m: Any) -> None:
    assert _expect(World(m).holding("a", 12).plan(8), "start").leftover == 3 * GIB


def case_03_cheapest_goes(m: Any) -> None:
    world = World(m).holding("a", 12, load_s=9.0, used_at=NOW - 10)
    _expect(world.holding("b", 8, load_s=4.0, used_at=NOW - 400).plan(6), "evict", "b")


def case_04_fewest_then_least(m: Any) -> None:
    world = World(m)
    for name, gib in (("a", 12), ("b", 2), ("c", 3)):
        world.holding(name, gib, used_at=NOW)
    _expect(world.plan(9), "evict", "c")


def case_05_refused(m: Any) -> None:
    world = World(m).holding("embed", 2, is_pinned=True).holding("a", 12)
    assert "at most 21.0 GiB of GPU0 can ever be free" in _expect(world.plan(22), "refuse").why


def case_06_beside_pinned(m: Any) -> None:
    world = World(m).holding("embed", 2, is_pinned=True).holding("a", 12)
    _expect(world.plan(21), "evict", "a")


def case_07_busy(m: Any) -> None:
    world = World(m).holding("a", 12, granted=2).holding("b", 8)
    found = _expect(world.plan(14), "wait", "a", "a")
    assert "a has 2 requests in flight" in found.why


def case_08_idle_before_busy(m: Any) -> None:
    _expect(World(m).holding("a", 12, granted=1).holding("b", 8).plan(8), "evict", "b")


def case_09_stopping_covers(m: Any) -> None:
    world = World(m).holding("a", 12, phase="stopping").holding("x", 3)
    _expect(world.plan(14), "wait", "", "a")
    world.holders = world.holders[1:]
    _expect(world.plan(14), "start")


def case_10_starting_holds_its_claim(m: Any) -> None:
    world = World(m).holding("a", 12, seen=3, phase="starting", granted=1)
    _expect(world.plan(11), "start")
    _expect(world.plan(12), "wait", "a", "a")


def case_11_grown(m: Any) -> None:
    _expect(World(m).holding("a", 12, seen=15).plan(9), "evict", "a")


def case_12_other_programs(m: Any) -> None:
    _expect(World(m, foreign=6).holding("a", 12).plan(6), "evict", "a")


def case_13_wait_for_other_programs(m: Any) -> None:
    assert "other programs" in _expect(World(m, foreign=20).plan(6), "wait").why
    _expect(World(m, foreign=17).plan(6), "start")


def case_14_estimate_is_tried(m: Any) -> None:
    """It is tried alone; when it runs out of memory, no other service can make room for it."""
    world = World(m, foreign=20)
    found = _expect(world.plan(6, source="estimated"), "start")
    assert found.place == {"GPU0": 3 * GIB}
    raised = _raised(m, world, 6, free=3)
    assert raised == 7.5
    assert not _makes_room(world.plan(raised, source="learned"))


def case_15_unknown_alone(m: Any) -> None:
    world = World(m).holding("a", 2).holding("b", 3)
    _expect(world.plan(0, source="unknown"), "evict", "a b")
    world.holders = []
    assert world.plan(0, source="unknown").place == {"GPU0": 23 * GIB}
    world.holding("a", 2).holding("b", 3)
    _expect(world.plan(7.4, source="learned"), "start")


def case_16_scaled_estimate(m: Any) -> None:
    world = World(m).holding("a", 2)
    _expect(world.plan(22, name="x", source="estimated"), "evict", "a")
    _expect(world.plan(20, name="x", source="learned"), "start")


def case_17_raised_claim(m: Any) -> None:
    world = World(m).holding("a", 12)
    _expect(world.plan(11, source="learned"), "start")
    raised = _raised(m, world, 11, free=11)
    assert raised == 13.75
    assert _makes_room(_expect(world.plan(raised, source="learned"), "evict", "a"))


def case_18_fails_again_alone(m: Any) -> None:
    """All that was free was not enough, so no eviction can help; it is not refused for that."""
    world = World(m)
    raised = _raised(m, world, 13.75, free=23, source="declared")
    assert raised == 23.25
    again = _expect(world.plan(raised, source="learned"), "start")
    assert not _makes_room(again)
    assert "23.0 GiB free, 23.2 GiB needed (learned)" in again.why
    assert _raised(m, world, raised, free=23) == raised, "more than all cannot be given"
    assert _raised(m, world, 11, free=11, asked=16) == 16


def _raised(
    m: Any, world: World, gib: float, *, free: float, asked: float = 0, source: str = "learned"
) -> float:
    """Return the GiB that a model needs after *gib* were not enough, as long as that counts."""
    amount = m.next_amount(
        int(gib * GIB), world.pools["GPU0"], free=int(free * GIB), asked=int(asked * GIB)
    )
    shortages = m.Shortages()
    before = m.MemoryNeed(options=({"GPU0": int(gib * GIB)},), source=source, key="k")
    shortages.add(
        m.Shortage(
            model="b", key="k", pool="GPU0", at=NOW, claim=int(gib * GIB), amount=amount
        )
    )  # fmt: skip
    for _ in range(9):
        shortages.count_good_run("b", "k")
    need: memory.MemoryNeed = shortages.need("b", before)
    assert need.source == "learned" or need == before, "a raised amount never refuses"
    assert shortages.need("other", before) == before
    shortages.count_good_run("b", "k")
    assert shortages.need("b", before) == before, "ten good runs end it"
    return need.options[0]["GPU0"] / GIB


def _makes_room(found: memory.Plan) -> bool:
    return found.kind in ("evict", "wait") and bool(found.evict or found.waits_for)


def _two(m: Any, one: float, two: float) -> World:
    return World(m, capacity=one, reserve=0).with_pool("GPU1", two, 0)


def _either(gib: int) -> tuple[dict[str, int], ...]:
    return ({"GPU0": gib * GIB}, {"GPU1": gib * GIB})


def case_19_the_gpu_with_room(m: Any) -> None:
    assert _expect(_two(m, 3, 9).plan_in(_either(8)), "start").place == {"GPU1": 8 * GIB}


def case_20_the_tightest_fit(m: Any) -> None:
    assert _expect(_two(m, 9, 20).plan_in(_either(8)), "start").place == {"GPU0": 8 * GIB}


def case_21_split(m: Any) -> None:
    options = (*_either(20), {"GPU0": 10 * GIB, "GPU1": 10 * GIB})
    found = _expect(_two(m, 12, 12).plan_in(options), "start")
    assert found.place == {"GPU0": 10 * GIB, "GPU1": 10 * GIB}


def case_22_asleep_holds_ram(m: Any) -> None:
    world = World(m).with_pool("RAM", 32, 2)
    world.holders = [m.Holder(name="v", phase="asleep", claim={"GPU0": GIB, "RAM": 18 * GIB})]
    _expect(world.plan_in(({"RAM": 14 * GIB},)), "evict", "v")


def case_23_three_in_one_gib(m: Any) -> None:
    world = World(m, capacity=1, reserve=0, pool="RAM").holding("s", 157 / 1024)
    _expect(world.plan(342 / 1024), "start")
    _expect(world.holding("m", 342 / 1024).plan(899 / 1024), "evict", "m s")


def case_24_residency(m: Any) -> None:
    world = World(m).holding("a", 20, stays_until=NOW + 7)
    assert "a stays for another 7.0 s" in _expect(world.plan(6), "wait", "a", "a").why
    _expect(world.plan(6, is_overdue=True), "evict", "a")


def case_25_room_for_the_overdue(m: Any) -> None:
    world = World(m)
    for number in range(4):
        world.holding(f"s{number}", 4, granted=1)
    _expect(world.plan(4, name="s6"), "start")
    found = world.plan(4, name="s6", ahead={"GPU0": 7 * GIB})
    assert found.kind == "wait"
    assert "for overdue requests" in found.why


def case_26_left_to_other_programs(m: Any) -> None:
    """Idle a goes at once, busy b later; a request waits with the reason, or runs elsewhere."""
    world = World(m).with_pool("RAM", 32, 2).holding("a", 12).holding("b", 8, granted=1)
    because = "GPU0 is left to other programs (blender is running)"
    free = world.pools["GPU0"]
    left = world.pools["GPU0"] = m.Pool(
        name="GPU0", capacity=24 * GIB, reserve=GIB, keep=0, left_because=because
    )
    assert m.leavers(left, world.holders, NOW, m.Rules()) == ("a", "b")
    assert m.leavers(left, world.holders, NOW, m.Rules(), leaving=("a", "b")) == ()
    some = m.Pool(name="GPU0", capacity=24 * GIB, keep=12 * GIB, left_because=because)
    assert m.leavers(some, world.holders, NOW, m.Rules()) == ("a",)
    world.holders = world.holders[1:]
    for source in ("declared", "learned", "estimated", "unknown"):
        assert _expect(world.plan(12, name="a", source=source), "wait").why.endswith(because)
    either = ({"GPU0": 12 * GIB}, {"RAM": 12 * GIB})
    assert _expect(world.plan_in(either, name="a"), "start").place == {"RAM": 12 * GIB}
    world.holding("p", 2, is_pinned=True)
    assert m.leavers(left, world.holders, NOW, m.Rules()) == ("b",)
    assert m.leavers(left, world.holders, NOW, m.Rules(), with_pinned=True) == ("b", "p")
    _expect(world.plan(22, name="a"), "refuse")
    world.pools["GPU0"], world.holders = free, []
    _expect(world.plan(12, name="a"), "start")


def case_27_no_percentage(m: Any) -> None:
    world = World(m, capacity=128, reserve=4, pool="RAM").holding("a", 118)
    _expect(world.plan(5), "start")


def beyond_two_pools(m: Any) -> None:
    world = World(m).with_pool("RAM", 32, 2)
    world.holders = [
        m.Holder(name="a", claim={"GPU0": 20 * GIB}),
        m.Holder(name="r", claim={"RAM": 28 * GIB}),
    ]
    _expect(world.plan_in(({"GPU0": 8 * GIB, "RAM": 8 * GIB},)), "evict", "a r")


def beyond_no_way_without_pinned(m: Any) -> None:
    world = World(m).holding("p", 12, is_pinned=True).holding("a", 8)
    _expect(world.plan(15), "refuse")


def beyond_own_sleep_counts(m: Any) -> None:
    world = World(m).holding("v", 6, phase="asleep")
    _expect(world.plan(23, name="v"), "start")


def beyond_limit_counts_services_only(m: Any) -> None:
    """A limit is what services may hold, whatever other programs use beside them."""
    world = World(m, foreign=6).holding("a", 0.5)
    world.pools["GPU0"] = m.Pool(
        name="GPU0", capacity=24 * GIB, reserve=GIB, limit=GIB, foreign=6 * GIB
    )
    _expect(world.plan(0.5), "start")
    _expect(world.plan(0.6), "evict", "a")
    _expect(world.plan(1.1), "refuse")


def beyond_stuck_memory_does_not_come_back(m: Any) -> None:
    world = World(m).holding("s", 12, phase="stopping", is_stuck=True).holding("a", 8)
    _expect(world.plan(6), "evict", "a")
    found = _expect(world.plan(20), "wait")
    assert "s, which cannot be stopped" in found.why
    assert _expect(world.plan(0, source="unknown"), "evict", "a").place == {"GPU0": 11 * GIB}


def beyond_what_stops_does_not_go_again(m: Any) -> None:
    world = World(m).holding("s", 12, phase="stopping")
    _expect(world.plan(0, source="unknown"), "wait", "", "s")


def beyond_sleep_keeps_its_memory(m: Any) -> None:
    """A service that is going to sleep gives back the difference, and can be evicted then."""
    world = World(m).holding("v", 12, phase="stopping", keeps={"GPU0": 4 * GIB})
    _expect(world.plan(18), "wait", "", "v")
    found = _expect(world.plan(20), "wait", "v", "v")
    assert "v (4.0 GiB) must go; v is going to sleep" in found.why
    _expect(world.holding("a", 4).plan(16), "evict", "a", "v")


CASES: dict[str, Case] = {
    name: function
    for name, function in list(globals().items())
    if name.startswith(("case_", "beyond_"))
}
