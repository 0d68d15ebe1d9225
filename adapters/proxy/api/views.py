"""Requests and models in flight, as they are shown: to people, so without secrets."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import Any

from ....runtime import Transition
from ..accounting.request_record import RequestRecord, metadata_of
from ..context import ProxyContext
from ..formatting import shown_headers, shown_time
from ..models.public_state import shown_state
from .model_listing import capabilities_of


def in_flight_view(proxy: ProxyContext, exchange: RequestRecord) -> dict[str, Any]:
    """Return the entry of one request that is not over."""
    return {
        "id": str(exchange.id),
        "timestamp": shown_time(exchange.at),
        "model": exchange.model,
        "req_path": exchange.path,
        "method": exchange.method.decode("latin-1"),
        "req_headers": proxy.admission.ring.redacted(shown_headers(exchange.request.headers)),
        "remote_ip": exchange.request.client or "",
        "resp_headers": shown_headers(exchange.answer_headers),
        "resp_status": exchange.status,
        "resp_bytes": exchange.sent_bytes,
        "elapsed_ms": round((perf_counter() - exchange.started) * 1000),
        "is_waiting": not exchange.admitted,
        "metadata": metadata_of(exchange),
    }


def model_status_views(proxy: ProxyContext) -> list[dict[str, Any]]:
    """Return one entry for each model, ours first, sorted, with our own facts beside theirs."""
    rows: list[dict[str, Any]] = []
    for card in sorted(proxy.catalog.cards.values(), key=lambda card: card.id):
        life = proxy.supervisor[card.id]
        row: dict[str, Any] = {
            "id": card.id, "name": card.name, "description": card.description,
            "state": shown_state(life), "unlisted": card.is_unlisted, "peerID": "",
            "configuration": list(life.configuration), "cause": life.cause,
            "pid": life.process.pid if life.process else None, "incarnation": life.incarnation,
            "in_flight": life.in_flight, "waiting": life.waiting, "failures": life.failures,
        }  # fmt: skip
        if card.aliases:
            row["aliases"] = list(card.aliases)
        capabilities = capabilities_of(card.abilities)
        if capabilities:
            row["capabilities"] = capabilities
        if card.abilities.context:
            row["context_length"] = card.abilities.context
        rows.append(row)
    return [*rows, *_peer_statuses(proxy)]


def _peer_statuses(proxy: ProxyContext) -> Iterable[dict[str, Any]]:
    for peer in sorted(proxy.catalog.peers.values(), key=lambda card: card.id):
        for model in peer.models:
            yield {
                "id": f"{peer.id}/{model}", "name": f"{peer.id}: {model}", "description": "",
                "state": "", "unlisted": False, "peerID": peer.id,
            }  # fmt: skip


def transition(record: Transition) -> dict[str, Any]:
    """Return one transition of a model."""
    return {
        "model": record.service, "event": record.event, "cause": record.cause,
        "source": record.source, "target": record.target,
        "configuration": list(record.configuration), "seconds": round(record.seconds, 4),
        "incarnation": record.incarnation, "pid": record.pid,
        "exit": None if record.exit is None else str(record.exit),
        "hooks": [
            {"point": hook.point, "action": hook.action, "outcome": hook.outcome,
             "seconds": round(hook.seconds, 4)}
            for hook in record.hooks
        ],
    }  # fmt: skip
