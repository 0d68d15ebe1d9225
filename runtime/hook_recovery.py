"""Runs the ``afterStop`` hooks that a killed supervisor owes, before its services start again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from .host import ServiceHost
from .lifecycle import Lifecycle

log = logging.getLogger(__name__)

_POINT = "afterStop"
_REASON = "orphan"


class HookRecovery:
    """Runs the hooks of all services concurrently, and those of one service in order.

    `HookLimiter` limits how many run at once. Requests for a service wait until its hooks have run;
    requests for other services do not.
    """

    def __init__(self, supervisor: ServiceHost) -> None:
        self._supervisor = supervisor

    def run(self, service: str, incarnation: int, paid: Callable[[], None]) -> None:
        """Begin to run the hooks of *service*; nothing starts it before they have ended.

        Args:
            service: Its name; it has not been started yet.
            incarnation: Which run of the earlier supervisor they belong to.
            paid: Called when they have run, whatever came out, and when there are none; not when
                we end before that.
        """
        supervisor = self._supervisor
        if service not in supervisor:
            paid()
            return
        life, entry = supervisor[service], supervisor.scheduler.services[service]
        if entry.recovery_reason or not life.spec.hooks.get(_POINT):
            paid()
            return
        log.warning("%s: an earlier run was killed: running its %s hooks", service, _POINT)
        entry.recovery_reason = f"{service} runs the {_POINT} hooks of a run that was killed"

        async def repay() -> None:
            try:
                await _run(life, incarnation)
                paid()
            finally:
                entry.recovery_reason = ""
                supervisor.review()

        supervisor.spawn(repay)


async def _run(life: Lifecycle, incarnation: int) -> None:
    hooks = life.spec.hooks[_POINT]
    context = replace(
        life.context(_POINT), reason=_REASON, incarnation=incarnation,
        hook_id=f"{life.spec.name}:{incarnation}:{_POINT}",
    )  # fmt: skip
    await life.hooks.run(hooks, context, [])
