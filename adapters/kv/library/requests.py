"""Requests as the library sees them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ....dataclass import dataclass

_LONGEST_BODY = 4 << 20  # takes 10 ms to decode
#: Paths of requests that run in a slot -> whether ``id_slot`` in their body is respected (b10434).
_PATHS = {
    "/v1/chat/completions": True, "/chat/completions": True, "/v1/completions": True,
    "/completions": True, "/completion": True, "/v1/responses": True, "/v1/messages": False,
}  # fmt: skip
_HARMLESS = frozenset({"/tokenize", "/detokenize", "/apply-template"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRequest:
    """A request that runs in one slot.

    Attributes:
        path: Path at the server.
        body: Its JSON body.
        can_choose: The server respects ``id_slot`` in it.
        own_slot: ``id_slot`` of the client; None without one.
        uses_cache: False with ``cache_prompt: false``.
        size: Length of its body as it was sent; bytes.
    """

    path: str
    body: Mapping[str, Any]
    can_choose: bool
    own_slot: int | None
    uses_cache: bool
    size: int


def slot_request(path: str, body: bytes) -> SlotRequest | None:
    """Return the request with *body* to *path*; None if it runs in no slot, or in several."""
    can_choose = _PATHS.get(path)
    if can_choose is None or len(body) > _LONGEST_BODY:
        return None
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    if not isinstance(value, dict) or value.get("n", 1) not in (1, None) or value.get("lora"):
        return None
    prompt, own = value.get("prompt", ""), value.get("id_slot")
    if own is None and "id_slot" in value:
        return None
    if not isinstance(prompt, str):  # several prompts, or one that is not text
        return None
    is_own = isinstance(own, int) and not isinstance(own, bool) and own >= 0
    return SlotRequest(
        path=path, body=value, can_choose=can_choose and (is_own or own is None),
        own_slot=own if is_own else None, uses_cache=value.get("cache_prompt", True) is not False,
        size=len(body),
    )  # fmt: skip


def runs_in_slots(path: str) -> bool:
    """Return True if a POST to *path* may change the contents of slots."""
    return path not in _HARMLESS


def with_slot(body: bytes, number: int) -> bytes:
    """Return *body*, a JSON object without ``id_slot`` and not empty, with it."""
    return b'{"id_slot":%d,%b' % (number, body.lstrip()[1:])
