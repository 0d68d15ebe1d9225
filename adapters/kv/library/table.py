"""Table of slots: which conversation is in which, and the choice of a slot for a request. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ....dataclass import dataclass
from .chain import BLOCK_TOKENS, NO_CHAIN, Chain, common_blocks
from .identity import continues, may_begin_alike
from .requests import SlotRequest

_SHARED_BLOCKS = 4  # a shorter beginning that conversations share is not worth taking a slot for


@dataclass(slots=True, kw_only=True)
class SlotState:
    """A slot of the server, as far as it is known.

    Attributes:
        number: Number of the slot, from 0.
        chain: Prompt of its last request.
        request: Its last request; None after a restore.
        is_stale: The chain is that of an earlier request, or of none.
        openings: What its conversation begins with; see `openings_of`.
        tokens: Tokens in its cache; 0 if it is empty.
        unsaved: Tokens among them that no file has.
        file: File of an earlier state of its conversation, or "".
        namespace: Namespace of its conversation.
        is_busy: A request or a transfer uses it.
        used: Grows with each use of any slot; 0 means never used.
        words: Beginning of its conversation.
        task: Number of its last request, from the server's list of slots; None if unknown.
    """

    number: int
    chain: Chain = NO_CHAIN
    request: SlotRequest | None = None
    is_stale: bool = False
    openings: frozenset[int] = frozenset()
    tokens: int = 0
    unsaved: int = 0
    file: str = ""
    namespace: str = ""
    is_busy: bool = False
    used: int = 0
    words: str = ""
    task: int | None = None

    def clear(self) -> None:
        """Note that the slot is empty, or that its contents are unknown."""
        self.chain, self.tokens, self.unsaved, self.file = NO_CHAIN, 0, 0, ""
        self.namespace = self.words = ""
        self.request, self.is_stale, self.openings = None, False, frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Slot of a request.

    Attributes:
        slot: The slot.
        blocks: Blocks of the prompt that will be in it.
        restores: The stored conversation is to be restored into it.
        continues: The request continues the conversation in the slot, so nothing of it is lost.
    """

    slot: SlotState
    blocks: int
    restores: bool
    continues: bool


def choose_slot(
    slots: Iterable[SlotState], hashes: Sequence[int], stored: int, *, least_blocks: int = 1
) -> Choice:
    """Choose the slot of a request: by the longest prefix, then by age.

    A slot that another conversation shares only a beginning with, such as a system prompt, is left
    alone unless that beginning is long and no file has it.

    Args:
        slots: Idle slots; at least one.
        hashes: Chain of the request; empty if it must reuse nothing.
        stored: Blocks that the longest stored conversation has in common with it.
        least_blocks: A restore pays from so many blocks on.
    """
    idle = sorted(slots, key=lambda slot: slot.used)
    matches = {slot.number: common_blocks(slot.chain.hashes, hashes) for slot in idle}
    best = max(idle, key=lambda slot: (matches[slot.number], slot.used))
    match = matches[best.number]
    continues = _continues(best, match)
    if continues and stored - match < least_blocks:
        return Choice(slot=best, blocks=match, restores=False, continues=True)
    victim = best if continues else min(idle, key=lambda slot: (slot.tokens > 0, slot.used))
    gained = max(stored, matches[victim.number])
    if not continues and match - gained >= _SHARED_BLOCKS:
        return Choice(slot=best, blocks=match, restores=False, continues=False)
    restores = stored - matches[victim.number] >= least_blocks
    return Choice(
        slot=victim, blocks=stored if restores else matches[victim.number], restores=restores,
        continues=continues,
    )  # fmt: skip


def choose_at_once(
    slots: Sequence[SlotState], request: SlotRequest, namespace: str, openings: Iterable[int]
) -> Choice | None:
    """Choose the slot of a request whose tokens are unknown; None if they are needed.

    Args:
        slots: Idle slots; at least one.
        request: The request.
        namespace: Namespace of its API key.
        openings: What it begins with.
    """
    for slot in slots:
        if slot.request is None or slot.namespace != namespace:
            continue
        if continues(request, slot.request):
            blocks = slot.tokens // BLOCK_TOKENS
            return Choice(slot=slot, blocks=blocks, restores=False, continues=True)
    if any(slot.tokens and may_begin_alike(slot.openings, openings) for slot in slots):
        return None
    return choose_slot(slots, (), 0)


def _continues(slot: SlotState, match: int) -> bool:
    """Return True if a request with *match* blocks in common continues what is in *slot*.

    Templates change the end of a prompt when a response follows, so the last block may differ.
    """
    return match > 0 and match >= len(slot.chain.hashes) - 1


def tokens_of_blocks(blocks: int) -> int:
    """Return the number of tokens in *blocks*."""
    return blocks * BLOCK_TOKENS
