"""Routes for the queue and for readiness: which requests wait, what a request would cause."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import structs

from ....runtime import RequestError
from ..context import ProxyContext
from ..models.public_state import reported_state
from ..request import Request
from .handler import ApiHandler
from .model_listing import container_facts
from .models import local_model
from .schema.models import (
    Explanation,
    ModelLoad,
    ModelNotReady,
    ModelReadiness,
    Queue,
    QueuedRequest,
    Readiness,
    ReportedState,
    Swap,
)

_TOO_MANY = 429


def queue_view(proxy: ProxyContext) -> Queue:
    """Return the queue in its order, the swaps under way, and the load of each model.

    Requests have the time of their arrival and no waiting time, so that two views differ only if
    something changed.
    """
    scheduler = proxy.supervisor.scheduler
    return Queue(
        queue=_queued(proxy),
        swaps=[
            Swap(target=target, evicting=sorted(evicted))
            for target, evicted in scheduler.swaps.items()
        ],
        models=[
            ModelLoad(
                model=entry.name, phase=entry.phase, granted=entry.granted, limit=entry.limit,
                pinned=entry.is_pinned,
            )
            for entry in scheduler.services.values()
            if entry.phase not in ("stopped", "failed") or entry.granted
        ],
    )  # fmt: skip


def _queued(proxy: ProxyContext) -> list[QueuedRequest]:
    """Return the queue; a request is known in it by its wait, which only one request has."""
    queue = proxy.supervisor.scheduler.queue
    if not queue:
        return []
    records = {record.wait: record for record in proxy.in_flight.open.values()}
    rows = []
    for place, request in enumerate(queue, 1):
        row = QueuedRequest(
            position=place, model=request.service, priority=request.priority,
            since=round(request.since, 3), why=request.why,
        )  # fmt: skip
        record = records.get(request.wait)
        if record is not None:
            row.id, row.request_id = str(record.id), record.request.request_id.decode()
        rows.append(row)
    return rows


@ApiHandler
async def queue(proxy: ProxyContext, request: Request) -> Queue:
    """Return the queue, and how long each request has been in it."""
    view = proxy.view(request.access).queue(queue_view(proxy))
    now = proxy.now()
    view.now = round(now, 3)
    for row in view.queue:
        row.waited_s = round(now - row.since, 3)
    return view


@ApiHandler
async def explain(proxy: ProxyContext, request: Request) -> Explanation:
    """Return what a request for a model would cause, without making one."""
    name = local_model(proxy, request)
    view = proxy.view(request.access)
    scheduler = proxy.supervisor.scheduler
    entry = scheduler.services[name]
    life = proxy.supervisor[name]
    evict, why, error = scheduler.explain(name, proxy.now())
    if entry.is_rejecting:
        error = life.refusal_now()
    outcome: Literal["serve", "wait", "swap", "start", "reject"]
    if entry.is_open and entry.has_room:
        outcome, evict, why = "serve", frozenset(), ""
    elif error is not None:
        outcome, evict, why = "reject", frozenset(), str(error)
    elif why:
        outcome = "wait"
    else:
        outcome = "swap" if evict else "start"
    priority = proxy.catalog.models[name].priority
    ledger = scheduler.memory
    sums = (
        []
        if ledger is None
        else ledger.explain(entry, proxy.now(), scheduler.limits.min_residency_s)
    )
    return view.row(
        Explanation(
            model=name, outcome=outcome, evict=view.visible(sorted(evict)), why=why,
            phase=entry.phase, state=life.state, cause=life.cause,
            configuration=list(life.configuration), granted=entry.granted, limit=entry.limit,
            position=1 + sum(queued.priority >= priority for queued in scheduler.queue),
            container=container_facts(proxy, name) or msgspec.UNSET,
            memory=sums or msgspec.UNSET,
        )
    )  # fmt: skip


@ApiHandler
async def readiness(proxy: ProxyContext, request: Request) -> Readiness:
    """Return the readiness of all models that the client's key may use; loads none of them."""
    names = sorted(proxy.catalog.models)
    rows = proxy.view(request.access).rows([_readiness(proxy, name) for name in names])
    return Readiness(models=rows)


@ApiHandler
async def model_readiness(proxy: ProxyContext, request: Request) -> ModelReadiness | ModelNotReady:
    """Return the readiness of one model; the status is 503 if its requests would be refused."""
    found = proxy.view(request.access).row(_readiness(proxy, local_model(proxy, request)))
    return found if found.accepts else ModelNotReady(**structs.asdict(found))


def _readiness(proxy: ProxyContext, name: str) -> ModelReadiness:
    scheduler = proxy.supervisor.scheduler
    entry, life = scheduler.services[name], proxy.supervisor[name]
    error: RequestError | None
    if entry.is_rejecting:
        error = life.refusal_now()
    else:
        _, _, error = scheduler.explain(name, proxy.now())
    is_busy = error is not None and error.status_hint == _TOO_MANY  # refused for the moment only
    return ModelReadiness(
        model=name, state=msgspec.convert(reported_state(life), ReportedState),
        accepts=error is None or is_busy, loaded=entry.is_open,
        why="" if error is None or is_busy else str(error), cause=life.cause,
    )  # fmt: skip
