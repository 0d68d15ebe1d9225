"""What there is and what runs, as clients are told."""

from __future__ import annotations

from time import time
from typing import Any

from ...runtime import Lifecycle, Supervisor
from .catalogue import Catalogue

_STATES = {  # our innermost states -> the words llama-swap's clients know
    "stopped": "stopped", "backoff": "stopped", "tripped": "stopped", "half_open": "stopped",
    "ready": "ready", "asleep": "sleeping", "suspending": "sleeping", "waking": "starting",
    "shut_down": "shutdown",
}  # fmt: skip


def shown_state(life: Lifecycle) -> str:
    """Return the state of *life* in the words of llama-swap's API (section 3.1)."""
    known = _STATES.get(life.state)
    if known is not None:
        return known
    return "stopping" if "stopping" in life.configuration else "starting"


def models(catalogue: Catalogue, supervisor: Supervisor) -> dict[str, Any]:
    """Build the answer of ``/v1/models`` (llama-swap.md section 5.9)."""
    now = int(time())
    records = []
    for card in sorted(catalogue.cards.values(), key=lambda card: card.id):
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


def running(catalogue: Catalogue, supervisor: Supervisor) -> dict[str, Any]:
    """Build the answer of ``/running`` (section 5.10), with our own facts beside theirs."""
    rows = []
    for card in sorted(catalogue.cards.values(), key=lambda card: card.id):
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
