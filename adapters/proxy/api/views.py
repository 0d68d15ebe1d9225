"""Requests and models as events show them, without secrets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import perf_counter, time

import msgspec

from ....runtime import RequestWait as Wait
from ....runtime import Transition
from ...system.own_node import own_node_name
from ..accounting.request_record import RequestRecord, metadata_of, session_of
from ..context import ProxyContext
from ..formatting import redacted_headers, rfc3339
from ..models.public_state import public_state
from .model_listing import capabilities_of
from .schema.models import ModelStatus
from .schema.requests import InFlightRequest, Phase, RequestWait, WaitReason
from .schema.transitions import HookSummary, TransitionEvent


def phase_of(record: RequestRecord) -> Phase:
    """Return which part of its time a request that has not ended is in."""
    if record.status:
        return "response"
    if record.admitted:
        return "first"
    wait = record.wait
    if wait is None or wait.queued_at is None:
        return "queue"
    if wait.granted_at is not None:
        return "start"
    return "queue" if wait.evicting_at is None else "evict"


def in_flight_view(proxy: ProxyContext, record: RequestRecord) -> InFlightRequest:
    """Return one request that has not ended."""
    names = proxy.accounting.recorder.session_headers
    found = InFlightRequest(
        id=str(record.id),
        timestamp=rfc3339(record.at),
        model=record.model,
        req_path=record.path,
        method=record.method.decode("latin-1"),
        req_headers=proxy.admission.keys.redacted(redacted_headers(record.request.headers)),
        remote_ip=record.request.client or "",
        resp_headers=redacted_headers(record.response_headers),
        resp_status=record.status,
        resp_bytes=record.sent_bytes,
        elapsed_ms=round((perf_counter() - record.started) * 1000),
        is_waiting=not record.admitted,
        metadata=metadata_of(record, session_of(record.request, names)),
        request_id=record.request.request_id.decode(),
        phase=phase_of(record),
    )
    if record.admitted:
        found.wait_ms = round((record.admitted - record.started) * 1000)
    if record.headers_at:
        found.first_byte_ms = round((record.headers_at - record.started) * 1000)
    if record.wait is not None and record.wait.queued_at is not None:
        found.swap_id = msgspec.UNSET if record.wait.swap is None else record.wait.swap.id
        found.wait = _wait_so_far(proxy, record.model, record.wait)
    return found


def _wait_so_far(proxy: ProxyContext, model: str, wait: Wait) -> RequestWait:
    hooks_s = proxy.supervisor[model].hooks_s if model in proxy.supervisor else 0.0
    since = wait.queued_at or 0.0
    wait = wait.until(proxy.now(), hooks_s)
    return RequestWait(
        queue_ms=round(wait.queue_s * 1000), evict_ms=round(wait.evict_s * 1000),
        start_ms=round(wait.start_s * 1000), hooks_ms=round(wait.start_hooks_s * 1000),
        resident=list(wait.resident), evicted=list(wait.evicted),
        reasons=[
            WaitReason(after_ms=round((at - since) * 1000), why=why) for at, why in wait.reasons
        ],
    )  # fmt: skip


def model_status_views(proxy: ProxyContext) -> list[ModelStatus]:
    """Return the state of each model, sorted by id, followed by the models of peers."""
    rows: list[ModelStatus] = []
    for definition in sorted(proxy.catalog.models.values(), key=lambda item: item.id):
        life = proxy.supervisor[definition.id]
        row = ModelStatus(
            id=definition.id, name=definition.name, description=definition.description,
            state=public_state(life), unlisted=definition.is_unlisted, peer_id="",
            configuration=list(life.configuration), cause=life.cause,
            pid=life.process.pid or None if life.process else None, incarnation=life.incarnation,
            in_flight=life.in_flight, waiting=life.waiting, failures=life.failures,
        )  # fmt: skip
        if life.node not in ("", own_node_name()):
            row.node = life.node
        entry = proxy.supervisor.scheduler.services[definition.id]
        if entry.is_pinned:
            row.pinned = True
        if life.is_kept:
            row.kept = True
        if entry.has_load_time:
            row.load_s = round(entry.load_s, 3)
        if definition.aliases:
            row.aliases = list(definition.aliases)
        if capabilities := capabilities_of(definition.capabilities):
            row.capabilities = capabilities
        if definition.capabilities.context:
            row.context_length = definition.capabilities.context
        rows.append(row)
    return [*rows, *_peer_statuses(proxy)]


def unload_deadlines(proxy: ProxyContext) -> dict[str, float]:
    """Return when each idle model is unloaded, in seconds on the loop's clock, by id.

    Models that are in use, are not loaded, or have no idle limit are left out.
    """
    deadlines = {
        name: proxy.supervisor[name].deadline("idle_limit") for name in proxy.catalog.models
    }
    return {name: at for name, at in deadlines.items() if at is not None}


def kept_models(proxy: ProxyContext) -> frozenset[str]:
    """Return the models whose idle limit was removed until they are unloaded."""
    return frozenset(name for name in proxy.catalog.models if proxy.supervisor[name].is_kept)


def unload_times(proxy: ProxyContext, deadlines: Mapping[str, float]) -> dict[str, float]:
    """Return *deadlines* in seconds since 1970."""
    offset = time() - proxy.now()
    return {name: round(at + offset, 1) for name, at in deadlines.items()}


def _peer_statuses(proxy: ProxyContext) -> Iterable[ModelStatus]:
    for peer in sorted(proxy.catalog.peers.values(), key=lambda item: item.id):
        for model in peer.models:
            yield ModelStatus(
                id=f"{peer.id}/{model}", name=f"{peer.id}: {model}", description="", state="",
                unlisted=False, peer_id=peer.id,
            )  # fmt: skip


def transition_view(record: Transition, request_id: str) -> TransitionEvent:
    """Return a transition that has just happened, for the request *request_id*, "" for none."""
    return TransitionEvent(
        model=record.service, event=record.event, cause=record.cause, source=record.source,
        target=record.target, configuration=list(record.configuration),
        seconds=round(record.seconds, 4), incarnation=record.incarnation, pid=record.pid,
        exit=None if record.exit is None else str(record.exit),
        hooks=[
            HookSummary(
                point=hook.point, action=hook.action, outcome=hook.outcome,
                seconds=round(hook.seconds, 4),
            )
            for hook in record.hooks
        ],
        request_id=request_id,
        node=record.node,
        swap_id="" if record.swap is None else record.swap.id,
        swap_cause="" if record.swap is None else record.swap.cause,
    )  # fmt: skip
