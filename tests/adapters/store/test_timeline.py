"""Store of the timeline: bounded answers to each query, however long the span is."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter, time

import pytest

from swapchart.adapters.store import Database
from swapchart.adapters.store.activity import ActivityRow, ActivityStore, WaitRow
from swapchart.adapters.store.activity_schema import MIGRATIONS as ACTIVITY
from swapchart.adapters.store.journal import MIGRATIONS as JOURNAL
from swapchart.adapters.store.journal import Journal
from swapchart.adapters.store.timeline import SPAN_MS, TimelineStore
from swapchart.runtime import Swap, Transition

DAY_MS = 86_400_000


class Stores:
    """The stores of one proxy, on disk."""

    def __init__(self, folder: Path) -> None:
        self.databases = [
            Database(folder / "journal.db", JOURNAL, limit=1_000_000),
            Database(folder / "activity.db", ACTIVITY, limit=1_000_000),
        ]
        for database in self.databases:
            database.open()
        journal, activity = self.databases
        self.journal = Journal(journal, "now", boot="", started_of=lambda _: None)
        self.activity = ActivityStore(activity)
        self.timeline = TimelineStore(journal, activity, "now")

    def put_transition(
        self, at: float, service: str, target: str, swap: str = "", instance: str = "now"
    ) -> None:
        """Write a transition at a time that has passed."""
        self.databases[0].put(
            "INSERT INTO transition (at, instance, service, incarnation, event, cause, source, "
            "target, configuration, seconds, hooks, swap_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, "
            "?, ?, ?)",
            (at, instance, service, 1, "x", "", "", target, f"alive.{target}", 0.0, "[]", swap),
        )

    def put_request(self, number: int, at: int, model: str, waited: int, swap: str = "") -> None:
        """Write a finished request, and how it waited if it was for a swap."""
        self.activity.put(
            ActivityRow(
                id=number, time=at, model=model, req_path="/x", resp_content_type="",
                resp_status_code=200, duration=waited + 500, waited=waited, first_byte=waited + 9,
            )
        )  # fmt: skip
        if swap:
            self.activity.put_wait(
                WaitRow(
                    id=number, swap_id=swap, queue=1, evict=2, start=waited - 7, hooks=4,
                    resident='["b"]', evicted='["b"]', reasons='[[0,"evicting b"]]',
                )
            )  # fmt: skip


@asynccontextmanager
async def stores(folder: Path) -> AsyncIterator[Stores]:
    found = Stores(folder)
    try:
        yield found
    finally:
        for database in found.databases:
            database.close()


def test_transitions_of_a_span_come_with_the_one_before(tmp_path: Path) -> None:
    """The state at the beginning of the span is known by it."""

    async def main() -> None:
        async with stores(tmp_path) as found:
            for at, service in ((1.0, "a"), (2.0, "b"), (3.0, "a"), (5.0, "b"), (9.0, "a")):
                found.put_transition(at, service, "ready", swap="s-1")
            rows = await found.timeline.transitions(4000, 6000)

        assert [(row.service, row.at) for row in rows] == [("a", 3.0), ("b", 2.0), ("b", 5.0)]
        assert {row.until for row in rows} == {9.0}
        assert rows[0].swap_id == "s-1"

    asyncio.run(main())


def test_requests_are_grouped_and_the_longest_wait_stands_for_its_group(tmp_path: Path) -> None:
    """The group has the sums; what it is about is one request, with its own parts."""

    async def main() -> None:
        async with stores(tmp_path) as found:
            found.put_request(1, 10_100, "a", 0)
            found.put_request(2, 10_200, "a", 900, swap="s-1")
            found.put_request(3, 10_300, "b", 0)
            found.put_request(4, 12_300, "a", 0)
            rows = await found.timeline.requests(10_000, 13_000, 1000)

        assert [(row.model, row.requests, row.id) for row in rows] == [
            ("a", 2, 2), ("b", 1, 3), ("a", 1, 4),
        ]  # fmt: skip
        first = rows[0]
        assert (first.total_waited, first.answering, first.until) == (900.0, 10_100, 11_600)
        assert (first.swap_id, first.queue, first.start, first.hooks) == ("s-1", 1, 893, 4)
        assert rows[1].swap_id is None

    asyncio.run(main())


def test_requests_of_a_group_are_counted_by_their_end(tmp_path: Path) -> None:
    """One that was never admitted is rejected, unless it was canceled."""
    ends = [(200, 5, 9), (503, 9, 9), (502, 5, 9), (499, 9, 9), (499, 5, 9), (404, 0, 0)]

    async def main() -> None:
        async with stores(tmp_path) as found:
            for number, (status, waited, duration) in enumerate(ends, 1):
                row = ActivityRow(
                    id=number, time=10_000, model="a", req_path="/x", resp_content_type="",
                    resp_status_code=status, duration=duration, waited=waited,
                )  # fmt: skip
                found.activity.put(row)
            (group,) = await found.timeline.requests(10_000, 11_000, 1000)

        counted = (group.requests, group.rejected, group.failed, group.canceled)
        assert counted == (6, 2, 1, 2)

    asyncio.run(main())


def test_load_times_are_those_of_whole_starts(tmp_path: Path) -> None:
    """The median of the last five; a start that another run of the proxy began is none."""
    rows = [
        (0.0, "a", "before_start", "old"), (99.0, "a", "ready", "old"),
        *[(at, "a", target, "old") for number in range(5) for at, target in (
            (100.0 + 20 * number, "before_start"), (101.0 + 21 * number, "ready"),
        )],
        (300.0, "b", "before_start", "old"), (310.0, "b", "ready", "now"),
        (320.0, "b", "ready", "now"), (400.0, "c", "before_start", "now"),
        (401.0, "c", "backoff", "now"), (405.0, "c", "before_start", "now"),
        (407.5, "c", "ready", "now"), (500.0, "d", "ready", "now"),
    ]  # fmt: skip

    async def main() -> None:
        async with stores(tmp_path) as found:
            for at, service, target, instance in rows:
                found.put_transition(at, service, target, instance=instance)
            assert await found.journal.load_times() == {"a": 3.0, "c": 2.5}

    asyncio.run(main())


def test_memory_keeps_the_highest_value_of_each_step(tmp_path: Path) -> None:
    """A spike between two points is not lost; samples beyond seven days are deleted."""

    async def main() -> None:
        async with stores(tmp_path) as found:
            now = round(time() * 1000)
            old = "INSERT INTO memory_sample VALUES (?, 'gpu0', 1, 100)"
            found.databases[0].put(old, (now - SPAN_MS - DAY_MS,))
            for used in (10, 90, *[20] * 300):
                found.timeline.put_memory("gpu0", used, 100)
            rows = await found.timeline.memory(now - SPAN_MS - 2 * DAY_MS, now + 60_000, SPAN_MS)

        assert max(row.used for row in rows) == 90
        assert {row.capacity for row in rows} == {100}
        assert min(row.at for row in rows) >= now - SPAN_MS

    asyncio.run(main())


def test_restored_tokens_are_kept(tmp_path: Path) -> None:
    async def main() -> None:
        async with stores(tmp_path) as found:
            now = round(time() * 1000)
            found.timeline.put_restored("a", 1200, 40.0, 900.0, "s-1")
            found.timeline.put_restored("b", 10, 5.0, None, "")
            rows = await found.timeline.restored(now - 1000, now + 60_000)

        assert sorted((row.service, row.tokens, row.saved_ms) for row in rows) == [
            ("a", 1200, 900.0), ("b", 10, None),
        ]  # fmt: skip

    asyncio.run(main())


def test_swap_is_kept_with_its_hooks(tmp_path: Path) -> None:
    """The journal returns the transitions of one swap, the oldest first."""

    async def main() -> None:
        async with stores(tmp_path) as found:
            for target, swap in (("before_start", "s-1"), ("ready", "s-1"), ("draining", "s-2")):
                found.journal.take(
                    Transition(
                        service="a", at=1.0, event="x", cause="", source="", target=target,
                        configuration=("alive", target), seconds=0.0, incarnation=1,
                        swap=Swap(swap, "load", "r-1"),
                    )
                )  # fmt: skip
            rows = await found.journal.swap("s-1")

        assert [(row["target"], row["swap_id"], row["swap_cause"]) for row in rows] == [
            ("before_start", "s-1", "load"), ("ready", "s-1", "load"),
        ]  # fmt: skip

    asyncio.run(main())


@pytest.mark.measures
def test_timeline_of_seven_days_with_many_requests_is_fast(tmp_path: Path) -> None:
    """10,000 requests, 2,000 swaps of 12 transitions and a week of memory take 0.3 s at most."""
    draw = random.Random(1)

    async def main() -> dict[str, float]:
        async with stores(tmp_path) as found:
            now = round(time() * 1000)
            since = now - SPAN_MS
            for number in range(1, 10_001):
                at = since + number * SPAN_MS // 10_001
                waited = draw.choice([0, 0, 0, 4000])
                found.put_request(number, at, f"m{number % 20}", waited, f"s-{number // 5}")
            for number in range(24_000):
                second = (since + number * SPAN_MS // 24_001) / 1000
                target = ("before_start", "ready", "draining", "stopped")[number % 4]
                found.put_transition(second, f"m{number // 4 % 20}", target, f"s-{number // 12}")
            sql = "INSERT INTO memory_sample VALUES (?, ?, ?, ?)"
            for number in range(10_000):
                at = since + number * SPAN_MS // 10_001
                found.databases[0].put(sql, (at, f"gpu{number % 4}", number, 10_000))
            await found.databases[0].query("SELECT 1")
            await found.databases[1].query("SELECT 1")
            step, took = SPAN_MS // 600, {}
            began = perf_counter()
            assert len(await found.timeline.transitions(since, now)) == 24_000
            took["transitions"] = perf_counter() - began
            began = perf_counter()
            assert 5000 < len(await found.timeline.requests(since, now, step)) <= 10_000
            took["requests"] = perf_counter() - began
            began = perf_counter()
            assert 2000 < len(await found.timeline.memory(since, now, step)) <= 2404
            took["memory"] = perf_counter() - began
            return took

    took = asyncio.run(main())
    print(json.dumps({name: round(seconds, 3) for name, seconds in took.items()}))

    assert sum(took.values()) < 0.9  # 0.12 s without load
