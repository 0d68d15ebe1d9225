"""The parts of the library that decide: chains, index, slots, quota. No process."""

from __future__ import annotations

import time
from array import array
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.adapters.kv.library.chain import (
    BLOCK_TOKENS,
    Chain,
    chain_of_text,
    chain_of_tokens,
    common_blocks,
    first_words,
)
from swapchart.adapters.kv.library.conversation import (
    Conversation,
    DescriptionError,
    NewerVersionError,
)
from swapchart.adapters.kv.library.index import Index
from swapchart.adapters.kv.library.quota import over_quota
from swapchart.adapters.kv.library.requests import slot_request, with_slot
from swapchart.adapters.kv.library.table import SlotState, choose_slot
from swapchart.adapters.proxy.options import ApiKey

HASHES = st.lists(st.integers(0, 3), max_size=8)


def chained(path: list[int]) -> list[int]:
    """Return hashes as of a chain: each covers all before it."""
    found, last = [], 0
    for step in path:
        last = hash((last, step)) & (2**64 - 1)
        found.append(last)
    return found


def stored(file: str, path: list[int], *, used_at: float = 0.0, size: int = 100) -> Conversation:
    return Conversation(
        file=file, model="m", fingerprint="f", hashes=chained(path), tokens=64 * len(path) + 1,
        size=size, sha256="0", saved_at=0.0, used_at=used_at,
    )  # fmt: skip


# ---- chains
@given(st.lists(st.integers(0, 9), max_size=400), st.lists(st.integers(0, 9), max_size=400))
def test_chains_have_the_complete_blocks_of_the_common_prefix(a: list[int], b: list[int]) -> None:
    shared = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    shared = min(len(a), len(b)) if shared is None else shared
    one, two = chain_of_tokens("k", a), chain_of_tokens("k", b)

    assert common_blocks(one.hashes, two.hashes) == shared // BLOCK_TOKENS
    assert common_blocks(one.hashes, chain_of_tokens("other", a).hashes) == 0


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(texts)
    ]
    return {"messages": messages, **more}


@given(st.lists(st.text(max_size=900), min_size=1, max_size=4), st.text(max_size=300))
def test_text_of_a_continued_chat_has_the_earlier_one_as_prefix(texts: list[str], new: str) -> None:
    """With the JSON of messages alone, no block that was complete changes."""
    before, after = chain_of_text("", chat(*texts)), chain_of_text("", chat(*texts, new))

    assert common_blocks(before.hashes, after.hashes) == len(before.hashes)


def test_edited_message_keeps_the_prefix_before_it() -> None:
    texts = ["a" * 2000, "b" * 2000, "c" * 2000]
    before = chain_of_text("", chat(*texts))
    after = chain_of_text("", chat(texts[0], texts[1], "edited " * 300))

    assert 4000 // 256 <= common_blocks(before.hashes, after.hashes) < len(before.hashes)


def test_other_tools_or_another_system_prompt_are_another_chain() -> None:
    body = chat("x" * 3000)
    plain = chain_of_text("", body).hashes
    changed = [{**body, "tools": [{"name": "t"}]}, {**body, "system": "be brief"}]

    assert [common_blocks(plain, chain_of_text("", each).hashes) for each in changed] == [0, 0]


def test_first_words_are_those_of_the_user() -> None:
    body = {
        "messages": [
            {"role": "system", "content": "be nice"},
            {"role": "user", "content": [{"type": "text", "text": "Hello  there\nmy " * 40}]},
        ]
    }
    assert first_words(body).startswith("Hello there my Hello")
    assert len(first_words(body)) <= 80
    assert first_words({"prompt": "once upon"}) == "once upon"
    assert first_words({"messages": 3}) == ""


# ---- requests
@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b'{"n": 2, "prompt": "a"}', b'{"prompt": ["a", "b"]}',
        b'{"prompt": "a", "lora": [{"id": 0}]}', b'{"prompt": "a", "id_slot": null}',
        b'{"prompt": [1, 2]}', b"[" * 100_000, b'{"a": "\xff"}',
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_request_that_runs_in_no_single_slot_is_left_alone(body: bytes) -> None:
    assert slot_request("/v1/completions", body) is None


def test_request_tells_slot_and_cache_of_its_client() -> None:
    own = slot_request("/v1/chat/completions", b'{"id_slot": 3, "cache_prompt": false}')
    none = slot_request("/v1/messages", b"{}")
    wild = slot_request("/completion", b'{"id_slot": -1}')
    assert own is not None
    assert none is not None
    assert wild is not None
    assert (own.own_slot, own.uses_cache, own.can_choose) == (3, False, True)
    assert (none.own_slot, none.uses_cache, none.can_choose) == (None, True, False)
    assert (wild.own_slot, wild.can_choose) == (None, False)
    assert slot_request("/v1/embeddings", b"{}") is None
    assert with_slot(b' {"a": 1}', 2) == b'{"id_slot":2,"a": 1}'


# ---- the index
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6), HASHES), max_size=40), HASHES
)  # fmt: skip
def test_index_finds_the_longest_prefix(
    changes: list[tuple[bool, int, list[int]]], wanted: list[int]
) -> None:
    """Whatever was added and removed, the answer is that of comparing with each."""
    index, known = Index(), dict[str, Conversation]()
    for number, (is_added, name, path) in enumerate(changes):
        file = f"f{name}"
        if is_added and file not in known:
            known[file] = stored(file, path, used_at=float(number))
            index.put(known[file])
        elif not is_added:
            known.pop(file, None)
            index.remove(file)
    hashes = chained(wanted)
    lengths = {file: common_blocks(one.hashes, hashes) for file, one in known.items()}
    found, blocks = index.longest(hashes)

    assert blocks == max(lengths.values(), default=0)
    assert len(index) == len(known)
    if blocks:
        assert found is not None
        best = [file for file, length in lengths.items() if length == blocks]
        assert found.file == max(best, key=lambda file: known[file].used_at)
    else:
        assert found is None


@pytest.mark.measures
def test_lookup_among_10000_conversations_takes_less_than_a_millisecond() -> None:
    """All begin with the same system prompt of 500 tokens."""
    index = Index()
    for number in range(10_000):
        tokens = [1] * 500 + [number] * 500
        index.put(replace(stored(f"f{number}", []), hashes=chain_of_tokens("", tokens).hashes))
    requests = [[1] * 500 + [number] * 500 + [7] * 50 for number in range(0, 10_000, 500)]
    times = []
    for tokens in requests:
        began = time.perf_counter()
        found, _ = index.longest(chain_of_tokens("", tokens).hashes)
        times.append(time.perf_counter() - began)

        assert found is not None
        assert found.file == f"f{tokens[600]}"
    assert sorted(times)[len(times) // 2] < 0.001


# ---- slots
SLOTS = st.lists(st.tuples(HASHES, st.integers(0, 9)), min_size=1, max_size=4)


def slots_of(given_: list[tuple[list[int], int]]) -> list[SlotState]:
    return [
        SlotState(
            number=number, chain=Chain(chained(path), 64 * len(path)), tokens=64 * len(path),
            used=used,
        )
        for number, (path, used) in enumerate(given_)
    ]  # fmt: skip


@given(SLOTS, HASHES, st.integers(0, 8))
def test_choice_reuses_nearly_the_longest_prefix_there_is(
    given_: list[tuple[list[int], int]], wanted: list[int], longest: int
) -> None:
    """At most three blocks less than the best of slots and library, to spare a conversation."""
    slots, hashes = slots_of(given_), chained(wanted)
    blocks = min(longest, len(hashes))
    choice = choose_slot(slots, hashes, blocks)
    best = max(common_blocks(slot.chain.hashes, hashes) for slot in slots)
    mine = common_blocks(choice.slot.chain.hashes, hashes)

    assert choice.blocks >= max(best, blocks) - 3
    assert choice.blocks == (blocks if choice.restores else mine)
    assert not (choice.restores and blocks <= mine)
    if choice.continues:
        assert mine >= len(choice.slot.chain.hashes) - 1 > -1


@given(SLOTS, HASHES)
def test_conversation_that_is_in_a_slot_stays_in_it(
    given_: list[tuple[list[int], int]], more: list[int]
) -> None:
    slots = slots_of(given_)
    longest = max(slots, key=lambda slot: len(slot.chain.hashes))
    path = given_[longest.number][0]
    if not path:
        return
    choice = choose_slot(slots, chained([*path, *more]), 0)

    assert choice.continues
    assert choice.slot.chain.hashes == longest.chain.hashes


def test_new_conversation_takes_an_empty_slot_then_the_oldest() -> None:
    slots = slots_of([([1, 1], 5), ([], 0), ([2, 2], 3)])
    first = choose_slot(slots, chained([3, 3]), 0)
    second = choose_slot([slots[0], slots[2]], chained([3, 3]), 0)

    assert (first.slot.number, second.slot.number) == (1, 2)
    assert not first.continues
    assert not second.continues


def test_shared_system_prompt_takes_no_conversation_from_its_slot() -> None:
    """Three blocks in common are read again, or restored from the file of the other one."""
    slots = slots_of([([1, 1, 1, 2, 2, 2], 5), ([], 0)])
    request = chained([1, 1, 1, 3, 3])

    assert choose_slot(slots, request, 0).slot.number == 1
    assert choose_slot(slots, request, 3).restores
    long = chained([1, 1, 1, 2, 2, 7])
    assert choose_slot(slots, long, 0).slot.number == 0  # five of six: too much to read again


# ---- files
@given(HASHES, st.text(max_size=30), st.floats(0, 1e12), st.integers(0, 10))
def test_description_is_read_as_it_was_written(
    path: list[int], words: str, at: float, restores: int
) -> None:
    one = replace(stored("f", path, used_at=at), words=words, restores=restores)
    found = Conversation.parse(one.text())

    assert list(found.hashes) == list(one.hashes)
    assert replace(found, hashes=()) == replace(one, hashes=())


@given(st.text(max_size=60))
def test_any_other_text_is_no_description(text: str) -> None:
    with pytest.raises(DescriptionError):
        Conversation.parse(text)


def test_newer_description_is_told_from_an_invalid_one() -> None:
    text = stored("f", [1]).text().replace('"version": 1', '"version": 2')
    with pytest.raises(NewerVersionError, match="version 2, expected 1"):
        Conversation.parse(text)
    for broken in (text.replace('"version": 2', '"version": true'), "[" * 9999, "{}"):
        with pytest.raises(DescriptionError) as error:
            Conversation.parse(broken)
        assert not isinstance(error.value, NewerVersionError)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50), st.integers(0, 3)), max_size=12),
    st.integers(0, 200),
)
def test_quota_keeps_the_last_used_ones(given_: list[tuple[float, int, int]], limit: int) -> None:
    all_ = [
        replace(stored(f"f{at}", [1], used_at=used, size=size), misses=misses)
        for at, (used, size, misses) in enumerate(given_)
    ]
    gone = over_quota(all_, limit, 60.0, 100.0)
    kept = [one for one in all_ if one not in gone]

    assert sum(one.size for one in kept) <= limit
    assert all(one.used_at >= 40 and one.misses < 2 for one in kept)
    if limit >= sum(one.size for one in all_):
        assert all(one.used_at < 40 or one.misses >= 2 for one in gone)


def test_conversation_restored_in_vain_twice_is_useless_until_a_restore_helps() -> None:
    """A wrong guess costs one restore; the second one in a row is the last."""
    once = stored("f", [1]).restored(cached=10, wanted=64, saved_ms=-5.0, now=1.0)
    twice = once.restored(cached=10, wanted=64, saved_ms=-5.0, now=2.0)
    helped = once.restored(cached=64, wanted=64, saved_ms=300.0, now=2.0)

    assert [one.is_useless for one in (once, twice, helped)] == [False, True, False]
    assert over_quota([twice], 1000, None, 2.0) == [twice]
    assert (helped.misses, helped.restores, helped.saved_ms) == (0, 2, 295.0)


def test_key_has_a_namespace_that_does_not_show_it() -> None:
    one, two = ApiKey(key="a" * 30).access("key 1"), ApiKey(key="b" * 30).access("key 2")
    again = ApiKey(key="a" * 30).access("key 7")

    assert one.namespace == again.namespace != two.namespace
    assert ApiKey(key="a" * 30).digest().hex()[:16] not in one.namespace
    assert "namespace" not in repr(one)


def test_chain_is_small_in_memory() -> None:
    chain = chain_of_tokens("", range(100_000))

    assert isinstance(chain.hashes, array)
    assert len(chain.hashes) == 100_000 // BLOCK_TOKENS
