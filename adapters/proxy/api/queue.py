"""Who waits for what and why, and what a request would bring about."""

from __future__ import annotations

from typing import Any

from ....runtime import Supervisor
from ...http1.asgi_types import Send
from ..context import ProxyContext
from ..request import Request
from ..responses import send_json, send_not_good_for, send_unknown_model


def queue_value(supervisor: Supervisor) -> dict[str, Any]:
    """Return the queue in its order, the swaps under way, and how busy each model is.

    Times are those of coming, not of waiting, so that two looks differ only if something changed:
    ``since`` is in seconds on a clock whose ``now`` is told by ``queue``.
    """
    scheduler = supervisor.scheduler
    return {
        "queue": [
            {
                "position": place, "model": ticket.service, "priority": ticket.priority,
                "since": round(ticket.since, 3), "why": ticket.why,
            }
            for place, ticket in enumerate(scheduler.queue, 1)
        ],
        "swaps": [
            {"target": target, "evicting": sorted(evicted)}
            for target, evicted in scheduler.swaps.items()
        ],
        "models": [
            {
                "model": seat.name, "phase": seat.phase, "granted": seat.granted,
                "limit": seat.limit, "pinned": seat.is_pinned,
            }
            for seat in scheduler.services.values()
            if seat.phase not in ("stopped", "failed") or seat.granted
        ],
    }  # fmt: skip


async def queue(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell who waits for what and why."""
    value = proxy.view(request.access).queue(queue_value(proxy.supervisor))
    now = proxy.now()
    value["now"] = round(now, 3)
    for row in value["queue"]:
        row["waited_s"] = round(now - row["since"], 3)
    await send_json(send, value)


async def explain(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Tell what a request for a model would bring about, without making one."""
    name = proxy.catalog.real_name(request.path_suffix)
    if name is None:
        closest = proxy.catalog.closest(request.path_suffix)
        await send_unknown_model(request, send, request.path_suffix, closest)
        return
    view = proxy.view(request.access)
    if not view.shows(name):
        await send_not_good_for(request, send, request.path_suffix)
        return
    scheduler = proxy.supervisor.scheduler
    seat = scheduler.services[name]
    evict, why = scheduler.explain(name, proxy.now())
    if seat.is_open and seat.has_room:
        outcome, evict, why = "serve", frozenset(), ""
    elif why:
        outcome = "wait"
    else:
        outcome = "swap" if evict else "start"
    life = proxy.supervisor[name]
    await send_json(
        send,
        view.row({
            "model": name, "outcome": outcome, "evict": view.those(sorted(evict)), "why": why,
            "phase": seat.phase, "state": life.state, "cause": life.cause,
            "configuration": list(life.configuration),
            "granted": seat.granted, "limit": seat.limit,
            "position": 1 + sum(t.priority >= _priority(proxy, name) for t in scheduler.queue),
        }),
    )  # fmt: skip


def _priority(proxy: ProxyContext, name: str) -> int:
    return proxy.catalog.cards[name].priority
