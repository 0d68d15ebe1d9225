"""Routes for the queue: which requests wait and why, and what a request would cause."""

from __future__ import annotations

from typing import Literal

from ....runtime import Supervisor
from ..context import ProxyContext
from ..request import Request
from .handler import ApiHandler
from .models import local_model
from .schema.models import Explanation, ModelLoad, Queue, QueuedRequest, Swap


def queue_view(supervisor: Supervisor) -> Queue:
    """Return the queue in its order, the swaps under way, and the load of each model.

    Requests have the time of their arrival and no waiting time, so that two views differ only if
    something changed.
    """
    scheduler = supervisor.scheduler
    return Queue(
        queue=[
            QueuedRequest(
                position=place, model=request.service, priority=request.priority,
                since=round(request.since, 3), why=request.why,
            )
            for place, request in enumerate(scheduler.queue, 1)
        ],
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


@ApiHandler
async def queue(proxy: ProxyContext, request: Request) -> Queue:
    """Return the queue, and how long each request has been in it."""
    view = proxy.view(request.access).queue(queue_view(proxy.supervisor))
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
    return view.row(
        Explanation(
            model=name, outcome=outcome, evict=view.visible(sorted(evict)), why=why,
            phase=entry.phase, state=life.state, cause=life.cause,
            configuration=list(life.configuration), granted=entry.granted, limit=entry.limit,
            position=1 + sum(queued.priority >= priority for queued in scheduler.queue),
        )
    )  # fmt: skip
