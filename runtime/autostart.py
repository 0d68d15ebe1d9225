"""Start of services at the beginning, without a request."""

from __future__ import annotations

import logging

from .errors import RequestError
from .host import ServiceHost
from .request_wait import RequestWait
from .scheduler import Scheduler

log = logging.getLogger(__name__)


def reason_against(scheduler: Scheduler, name: str, now: float) -> str:
    """Return why *name* cannot start at once beside what runs, in words; empty if it can.

    With memory the reason is the sum. An error is no reason: the start itself reports it.
    """
    evicted, why, _ = scheduler.explain(name, now)
    memory = scheduler.memory
    if memory is not None and memory.decides:
        if why:
            return why
        entry, residency_s = scheduler.services[name], scheduler.limits.min_residency_s
        plan = memory.plan(entry, now, min_residency_s=residency_s)
        if plan is not None and plan.kind == "evict":
            return plan.why
    return f"the policy would evict {', '.join(sorted(evicted))} for it" if evicted else ""


async def autostart(supervisor: ServiceHost, name: str, now: float) -> None:
    """Start *name* as a request would, but evict no service for it; a failure is logged.

    Args:
        supervisor: Has the service.
        name: Name of the service.
        now: Present time in seconds on the loop's clock.
    """
    if name not in supervisor:
        return
    if why := reason_against(supervisor.scheduler, name, now):
        log.warning("%s does not start at the beginning: %s", name, why)
        return
    try:
        await supervisor.acquire(name, wait=RequestWait(cause="autostart"))
    except RequestError as error:
        log.warning("%s failed to start at the beginning: %s", name, error)
    else:
        supervisor.release(name)
