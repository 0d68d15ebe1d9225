"""Checkpoints: when they are due, and that they are there after a kill."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.kv import NAME, STORY, Kept, demo_command, keeping
from tools.net import wait_until_async

from swapchart.adapters.kv.checkpoints.policy import (
    SHORT_SAVE_MS,
    Collisions,
    SaveSpeed,
    WriteBudget,
    is_due,
    quiet_s,
)
from swapchart.adapters.kv.effectiveness import Effectiveness
from swapchart.adapters.kv.settings import KvSettings

CHECKED = KvSettings(min_tokens=10, timeout_s=20.0, has_checkpoints=True)
RECORD = Effectiveness(read_ms_per_token=2.0, bytes_per_token=1000.0)


# ---- the write budget
@given(
    st.integers(1, 10**9),
    st.lists(st.tuples(st.floats(0, 7200), st.integers(1, 10**9)), max_size=40),
)
def test_write_budget_holds_in_every_hour(size: int, wishes: list[tuple[float, int]]) -> None:
    """However saves are spaced, no hour sees more than twice the budget, which begins full."""
    budget, now, spent = WriteBudget(size, 0.0), 0.0, list[tuple[float, int]]()
    for gap, wish in wishes:
        now += gap
        if budget.allows(wish, now):
            budget.spend(wish, now)
            spent.append((now, wish))
        total = sum(amount for at, amount in spent if at > now - 3600)

        assert total <= 2 * size + 1
        assert 0 <= budget.share(now) <= 1


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0, 1))
def test_growth_that_is_due_with_less_budget_is_due_with_more(
    tokens: int, grown: int, share: float
) -> None:
    def due(share: float, grown: int) -> bool:
        return is_due(tokens, grown, RECORD, save_ms=None, budget_share=share, min_tokens=256)

    grown = min(grown, tokens)
    if due(share, grown):
        assert due(1.0, grown)
        assert due(share, tokens)
        assert grown >= 16
        assert tokens >= 256


def test_growth_that_is_read_faster_than_saved_is_not_due() -> None:
    fast = Effectiveness(read_ms_per_token=0.1, bytes_per_token=1000.0)
    found = [
        is_due(1000, grown, fast, save_ms=50.0, budget_share=1.0, min_tokens=256)
        for grown in (400, 600)
    ]

    assert found == [False, True]


def test_spent_budget_requires_growth_by_half() -> None:
    found = [
        is_due(1000, grown, RECORD, save_ms=5.0, budget_share=0.0, min_tokens=256)
        for grown in (499, 500)
    ]

    assert found == [False, True]


# ---- the time of a save
@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0.1, 10**4)), min_size=1))
def test_expected_save_is_no_shorter_than_the_last_of_that_size(
    saves: list[tuple[int, float]],
) -> None:
    speed = SaveSpeed()
    assert speed.expected_ms(1) is None
    for size, ms in saves:
        speed.note(size, ms)
        expected = speed.expected_ms(size)

        assert expected is not None
        assert expected >= ms


@given(
    st.lists(st.tuples(st.booleans(), st.one_of(st.none(), st.floats(0, 5000))), max_size=600),
)
def test_at_most_one_request_of_a_hundred_meets_a_long_save(
    requests: list[tuple[bool, float | None]],
) -> None:
    """Even if each long save that is allowed is met by a request."""
    collisions = Collisions()
    for meets, save_ms in requests:
        pause = quiet_s(save_ms, collisions)
        is_long = save_ms is None or save_ms > SHORT_SAVE_MS
        if pause is not None and is_long and meets:
            collisions.met += 1
        collisions.requests += 1

        assert collisions.met <= 0.01 * (collisions.requests + 100)
        if pause is not None and is_long:
            assert pause >= 2.0
            assert pause >= 20 * (save_ms or 0) / 1000


# ---- on demo servers
@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    async with keeping(tmp_path / "kv", demo_command(model, slots=2), CHECKED) as kept:
        yield kept


async def checkpoints(kept: Kept, count: int) -> None:
    await wait_until_async(
        lambda: kept.facts()["checkpoints"] >= count, what=lambda: str(kept.facts())
    )
    await kept.settled()


@pytest.mark.anyio
@pytest.mark.slow
async def test_checkpoint_survives_a_kill_of_the_server(kept: Kept) -> None:
    """No stop, no save: what an idle moment has saved is restored."""
    async with kept.life() as life:
        await life.ask(STORY * 20)
        await checkpoints(kept, 1)
    async with kept.life() as life:
        cached = await life.cached(STORY * 20)

    assert cached >= kept.entries()[0]["tokens"] - 3 > 300


@pytest.mark.anyio
@pytest.mark.slow
async def test_continued_conversation_replaces_its_checkpoint(kept: Kept) -> None:
    async with kept.life() as life:
        await life.ask(STORY * 20)
        await checkpoints(kept, 1)
        (first,) = kept.entries()
        await life.ask(STORY * 24)
        await checkpoints(kept, 2)
        (second,) = kept.entries()

    assert second["tokens"] > first["tokens"]
    assert second["misses"] == 0
    assert len(kept.slot_files()) == 1


@pytest.mark.anyio
@pytest.mark.slow
async def test_no_checkpoint_while_a_request_is_in_flight(kept: Kept) -> None:
    """A save would delay it; the end of that request is the next occasion."""
    async with kept.life() as life:
        kept.is_idle = False
        await life.ask(STORY * 20)
        with anyio.move_on_after(1.0):
            await checkpoints(kept, 1)
        assert kept.facts()["checkpoints"] == 0
        kept.is_idle = True
        await life.ask(STORY * 20)
        await checkpoints(kept, 1)

    assert kept.facts()["checkpoints"] == 1


@pytest.mark.anyio
@pytest.mark.slow
async def test_conversation_that_has_not_grown_is_not_saved_again(kept: Kept) -> None:
    async with kept.life() as life:
        await life.ask(STORY * 20)
        await checkpoints(kept, 1)
        await life.ask(STORY * 20)
        await life.ask("another " * 400)
        await checkpoints(kept, 2)

    assert kept.facts()["checkpoints"] == 2
    assert len(kept.entries()) == 2


@pytest.mark.anyio
@pytest.mark.slow
async def test_server_that_dies_while_saving_keeps_the_last_checkpoint(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept.life() as life:
        await life.ask(STORY * 20)
        await checkpoints(kept, 1)
        before = kept.entries()
        life.child.process.kill()
        life.child.process.wait()
        kept.keeper.note(_Ended())
        await wait_until_async(lambda: "no checkpoint" in caplog.text, what="a failed save")

    assert kept.entries() == before
    assert [path.name for path in kept.slot_files()] == [before[0]["file"]]


class _Ended:
    """A finished request, as the proxy reports it."""

    model, status, body_chunks, first_chunk = NAME, 200, (b"{}",), b""
