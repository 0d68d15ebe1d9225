"""Assignment of a request to a slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from ....dataclass import dataclass
from ..effectiveness import CacheUsage
from .chain import Chain
from .conversation import Conversation
from .requests import SlotRequest
from .table import SlotState

CacheSource: TypeAlias = Literal["", "slot", "library", "server"]
"""Origin of reused tokens: a slot, a file of the library, or the server's own cache in RAM."""

Outcome: TypeAlias = Literal["complete", "partial", "rejected", "unknown"]
"""End of a request: with a response, within one, without effect on the slot, or without response.
"""


@dataclass(slots=True, kw_only=True, eq=False)
class Assignment:
    """A request and its slot, from before it is forwarded until its response has ended.

    Attributes:
        body: Body to forward.
        request: The request.
        chain: Identity of its prompt; None if it is not known yet.
        openings: What it begins with; see `openings_of`.
        namespace: Namespace of its conversation.
        words: Beginning of its conversation.
        slot: Its slot; None if the server chooses one.
        blocks: Blocks of the prompt that are expected to be reused.
        continues: It continues the conversation in its slot.
        is_placed: The server puts it into ``slot``; else it chooses a slot by itself.
        is_cached: It may reuse tokens, and leaves some.
        restored: Conversation that was restored for it; None without one.
        restore_ms: Time that saves and restores took before it was forwarded.
        on_end: Called once, when it has ended.
        source: Origin of the reused tokens; known from its end on.
    """

    body: bytes
    request: SlotRequest
    chain: Chain | None
    openings: frozenset[int]
    namespace: str
    words: str
    on_end: Callable[[Assignment, Outcome, CacheUsage | None], None]
    slot: SlotState | None = None
    blocks: int = 0
    continues: bool = False
    is_placed: bool = False
    is_cached: bool = True
    restored: Conversation | None = None
    restore_ms: float = 0.0
    source: CacheSource = ""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt; estimated while they are unknown."""
        return self.request.size // 4 if self.chain is None else self.chain.tokens

    def finish(self, outcome: Outcome, seen: CacheUsage | None) -> None:
        """Note the end of the request, with the cache usage that its response reports."""
        self.on_end(self, outcome, seen)
