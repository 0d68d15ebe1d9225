"""The models as clients see them: names, listings, and what is changed in a request on its way."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any

from ...runtime import Lifecycle, Supervisor

_STATES = {  # our innermost states -> the words llama-swap's clients know
    "stopped": "stopped", "backoff": "stopped", "tripped": "stopped", "half_open": "stopped",
    "ready": "ready", "asleep": "sleeping", "suspending": "sleeping", "waking": "starting",
    "shut_down": "shutdown",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One model, for listings and for the way of its requests.

    Attributes:
        id: Its real name.
        aliases: Further names.
        name: Display name.
        description: For people.
        command: The command line, as `/running` shows it.
        proxy: Base URL of its server.
        ttl_s: Idle limit; 0 is none.
        use_model_name: Replaces ``model`` in requests; empty: nothing is replaced.
        is_unlisted: Not in listings.
        priority: In the queue; higher goes first.
        header_timeout_s: Longest wait for the head of an answer; None is without limit.
        stall_s: Longest pause within an answer, after which the model counts as unhealthy.
        metadata: For `/v1/models`.
    """

    id: str
    aliases: tuple[str, ...] = ()
    name: str = ""
    description: str = ""
    command: str = ""
    proxy: str = ""
    ttl_s: float = 0
    use_model_name: str = ""
    is_unlisted: bool = False
    priority: int = 0
    header_timeout_s: float | None = None
    stall_s: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Catalogue:
    """All models of a configuration.

    Args:
        cards: The models, in the order of the configuration.
        ignored: Paths below ``/upstream`` that never start a model.
    """

    def __init__(
        self, cards: Sequence[ModelCard], *, ignored: Sequence[re.Pattern[str]] = ()
    ) -> None:
        self.cards = {card.id: card for card in cards}
        self._ignored = tuple(ignored)
        self._names = {alias: card.id for card in cards for alias in card.aliases}
        self._names.update({card.id: card.id for card in cards})

    def real_name(self, wanted: str) -> str | None:
        """Return the id of the model that *wanted* names, by id or alias, or None."""
        return self._names.get(wanted)

    def closest(self, wanted: str) -> str | None:
        """Return the known name that looks most like *wanted*, or None."""
        return next(iter(difflib.get_close_matches(wanted, self._names, 1)), None)

    def priority(self, name: str) -> int:
        """Return the priority of requests for model *name*."""
        return self.cards[name].priority

    def header_timeout_s(self, name: str) -> float | None:
        """Return how long the head of an answer of model *name* may take; None: for ever."""
        return self.cards[name].header_timeout_s

    def is_ignored(self, path: bytes) -> bool:
        """Tell whether *path* below ``/upstream`` never starts a model."""
        text = path.decode("utf-8", "replace")
        return any(pattern.search(text) for pattern in self._ignored)

    def rewrite(self, name: str, wanted: str, body: bytes) -> bytes:
        """Return *body* as model *name* is to get it; the same object if nothing changes."""
        card = self.cards[name]
        if not card.use_model_name or card.use_model_name == wanted:
            return body
        value = json.loads(body)
        value["model"] = card.use_model_name
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def listing(self, supervisor: Supervisor) -> dict[str, Any]:
        """Build the answer of ``/v1/models`` (llama-swap.md section 5.9)."""
        now = int(time())
        records = []
        for card in sorted(self.cards.values(), key=lambda card: card.id):
            if card.is_unlisted:
                continue
            state = shown_state(supervisor[card.id])
            meta = {**card.metadata, "type": "model"}
            if card.aliases:
                meta["aliases"] = list(card.aliases)
            record: dict[str, Any] = {
                "id": card.id, "object": "model", "created": now, "owned_by": "swapchart",
                "meta": {"llamaswap": meta},
                "status": {"value": "unloaded" if state in ("stopped", "shutdown") else "loaded"},
            }  # fmt: skip
            if card.name.strip():
                record["name"] = card.name.strip()
            if card.description.strip():
                record["description"] = card.description.strip()
            records.append(record)
        return {"object": "list", "data": records}

    def running(self, supervisor: Supervisor) -> dict[str, Any]:
        """Build the answer of ``/running`` (section 5.10), with our own facts beside theirs."""
        rows = []
        for card in sorted(self.cards.values(), key=lambda card: card.id):
            life = supervisor[card.id]
            state = shown_state(life)
            if state in ("stopped", "shutdown"):
                continue
            rows.append(
                {
                    "model": card.id, "state": state, "cmd": card.command, "proxy": card.proxy,
                    "ttl": card.ttl_s, "name": card.name, "description": card.description,
                    "configuration": list(life.configuration), "cause": life.cause,
                    "pid": life.process.pid if life.process else None,
                    "incarnation": life.incarnation, "in_flight": life.in_flight,
                    "waiting": life.waiting,
                }
            )  # fmt: skip
        return {"running": rows}


def shown_state(life: Lifecycle) -> str:
    """Return the state of *life* in the words of llama-swap's API (section 3.1)."""
    known = _STATES.get(life.state)
    if known is not None:
        return known
    return "stopping" if "stopping" in life.configuration else "starting"
