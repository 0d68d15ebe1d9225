"""Identity of requests without their tokens: what continues what, and what may begin alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.kv import Kept
from tools.kv_library import say, text_of, told

from swapchart.adapters.kv.library.identity import (
    ANY_OPENING,
    continues,
    may_begin_alike,
    openings_of,
)
from swapchart.adapters.kv.library.requests import SlotRequest, slot_request
from swapchart.adapters.kv.library.table import SlotState, choose_at_once
from swapchart.adapters.kv.llama_server import LlamaServer

TEXTS = st.lists(st.text(max_size=60), min_size=1, max_size=4)


def request_of(*texts: str, path: str = "/v1/chat/completions", **more: Any) -> SlotRequest:
    """Return a chat of which a user and an assistant say *texts* in turn."""
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(texts)
    ]
    found = slot_request(path, json.dumps({"messages": messages, **more}).encode())
    assert found is not None
    return found


def openings(*texts: str, namespace: str = "", **more: Any) -> frozenset[int]:
    return openings_of(namespace, request_of(*texts, **more).body)


# ---- the next turn
@given(TEXTS, TEXTS)
def test_next_turn_continues_and_an_edit_does_not(before: list[str], more: list[str]) -> None:
    older, newer = request_of(*before), request_of(*before, *more)
    edited = request_of("x" + before[0], *before[1:], *more)

    assert continues(newer, older)
    assert continues(older, older)
    assert not continues(older, newer)
    assert not continues(edited, older)


@pytest.mark.parametrize(
    "newer",
    [
        request_of("a", "b", "c", path="/v1/responses"), request_of("a", "b", "c", tools=[{}]),
        request_of("a", "b", "c" * 5000), request_of("a"),
        slot_request("/v1/chat/completions", b'{"messages": "no list", "x": "%b"}' % (b"x" * 99)),
        slot_request("/v1/chat/completions", b'{"prompt": "a", "x": "%b"}' % (b"x" * 99)),
    ],
    ids=["path", "tools", "long", "shorter", "text", "prompt"],
)  # fmt: skip
def test_other_request_does_not_continue(newer: SlotRequest | None) -> None:
    assert newer is not None
    assert not continues(newer, request_of("a", "b"))


def test_prompt_that_grows_continues() -> None:
    older = slot_request("/v1/completions", b'{"prompt": "a b"}')
    newer = slot_request("/v1/completions", b'{"prompt": "a b c"}')
    assert older is not None
    assert newer is not None

    assert continues(newer, older)
    assert not continues(older, newer)


# ---- beginnings
@given(TEXTS, TEXTS)
def test_continued_conversation_may_begin_alike(texts: list[str], more: list[str]) -> None:
    """Also if its text has become a list of parts, or its parts have further keys."""
    before = openings(*texts)
    parts = [{"type": "text", "text": texts[0], "cache_control": {"type": "ephemeral"}}]
    changed = {"messages": [{"role": "user", "content": parts}]}

    assert before == openings(*texts, *more) == openings_of("", changed)
    assert may_begin_alike(before, before)


def test_conversations_that_share_a_system_prompt_or_tools_may_begin_alike() -> None:
    system = [{"role": "system", "content": "Be brief."}]
    one = openings_of("", {"messages": [*system, {"role": "user", "content": "a"}]})
    two = openings_of("", {"messages": [*system, {"role": "user", "content": "b"}]})
    tools = [{"type": "function", "function": {"name": "look"}}]

    assert may_begin_alike(one, two)
    assert may_begin_alike(openings("a", tools=tools), openings("b", tools=tools))
    assert not may_begin_alike(openings("a"), openings("b"))
    assert not may_begin_alike(openings("a", namespace="one"), openings("a", namespace="two"))
    assert may_begin_alike({ANY_OPENING}, openings("b"))


def test_choice_at_once_needs_no_tokens_only_where_nothing_begins_alike() -> None:
    """The next turn stays in its slot, unless it is of another key."""
    slots = [
        SlotState(number=0, tokens=640, openings=openings("a"), namespace="k", used=2),
        SlotState(number=1, tokens=640, openings=openings("z"), used=1),
    ]
    slots[0].request = request_of("a", "b")
    following = request_of("a", "b", "c")
    choice = choose_at_once(slots, following, "k", openings("a"))
    new = choose_at_once(slots, request_of("n"), "k", openings("n"))

    assert choice is not None
    assert (choice.slot.number, choice.continues, choice.blocks) == (0, True, 10)
    assert choose_at_once(slots, following, "other", openings("a")) is None
    assert choose_at_once(slots, request_of("a", "x"), "k", openings("a")) is None
    assert new is not None
    assert (new.slot.number, new.continues, new.restores) == (1, False, False)


# ---- on demo servers
@pytest.mark.anyio
@pytest.mark.slow
async def test_server_is_asked_for_tokens_after_the_request_not_before(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New conversations and their next turns cost nothing; each save needs the tokens once."""
    asked, prompt_tokens = list[str](), LlamaServer.prompt_tokens

    async def counted(self: LlamaServer, path: str, body: Any) -> Any:
        asked.append(body["prompt"][:5])
        return await prompt_tokens(self, path, body)

    async with kept.life() as life:
        await say(kept, life, "warm up")
        await kept.settled()
        kept.is_idle = False
        monkeypatch.setattr(LlamaServer, "prompt_tokens", counted)
        for word in ("red", "blue"):
            await say(kept, life, text_of(word))
            turn = await say(kept, life, text_of(word) + " go on")
            assert turn.cached > 300
            assert turn.source == "slot"
        assert asked == []
        kept.is_idle = True
        await told(kept, life, "red", "blue")
        assert len(asked) <= 4
        monkeypatch.undo()
        back = [await say(kept, life, text_of(word), namespace="") for word in ("red", "blue")]

    assert all(said.cached > 300 for said in back)
