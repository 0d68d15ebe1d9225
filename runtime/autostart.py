"""Start of services at the beginning, without a request."""

from __future__ import annotations

import logging

from .errors import RequestError
from .host import ServiceHost

log = logging.getLogger(__name__)


async def autostart(supervisor: ServiceHost, name: str, now: float) -> None:
    """Start *name* as a request would, but evict no service for it; a failure is logged.

    Args:
        supervisor: Has the service.
        name: Name of the service.
        now: Present time in seconds on the loop's clock.
    """
    if name not in supervisor:
        return
    scheduler = supervisor.scheduler
    evicted, why, _ = scheduler.explain(name, now)
    if why and scheduler.memory is not None and scheduler.memory.decides:
        log.warning("%s does not start at the beginning: %s", name, why)
        return
    if evicted:
        text = "%s does not start at the beginning: the policy would evict %s for it"
        log.warning(text, name, ", ".join(sorted(evicted)))
        return
    try:
        await supervisor.acquire(name)
    except RequestError as error:
        log.warning("%s failed to start at the beginning: %s", name, error)
    else:
        supervisor.release(name)
