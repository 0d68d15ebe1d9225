"""Port to an engine whose caches are kept: slots, save, restore, erase, facts.

`llama_server.LlamaServer` implements it. Saves, restores, checkpoints and the library know engines
by this protocol only. An engine that keeps its caches by itself, such as vLLM with LMCache, needs
no backend: its models have ``kv: engine``, and nothing here acts on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from .server import LaunchContext, Server
from .slots import Slot, SlotTransfer


class UnsupportedServerError(Exception):
    """Nothing of this server can be kept; the text is the reason.

    Attributes:
        about: Short name of the reason, by which repeated warnings are recognized.
    """

    def __init__(self, about: str, why: str) -> None:
        super().__init__(why)
        self.about = about


class KvBackend(Protocol):
    """Connection to one running server; an asynchronous context manager.

    All methods raise `SlotError` if the server refuses, and OSError if it does not respond.
    """

    async def __aenter__(self) -> Self:
        """Return the backend; the first call connects."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        """Close the connection."""
        ...

    async def facts(self, launch: LaunchContext) -> Server:
        """Return the identity of the server.

        Raises:
            UnsupportedServerError: Nothing of it can be kept.
        """
        ...

    async def slots(self) -> Sequence[Slot]:
        """Return all slots, in the order of their numbers."""
        ...

    async def save(self, number: int, filename: str) -> SlotTransfer:
        """Save slot *number*, once it is idle."""
        ...

    async def restore(self, number: int, filename: str) -> SlotTransfer:
        """Restore slot *number*, once it is idle. After an error the slot is empty."""
        ...

    async def erase(self, number: int) -> None:
        """Empty slot *number*, once it is idle."""
        ...

    async def prompt_tokens(self, path: str, body: Mapping[str, Any]) -> Sequence[int] | None:
        """Return the tokens of the prompt of a request; None if the server cannot render it.

        Args:
            path: Path of the request at the server.
            body: Its JSON body.
        """
        ...
