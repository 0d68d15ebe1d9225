"""Hook recovery: runs the ``afterStop`` hooks of services whose supervisor was killed."""

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

    def run(self, service: str, incarnation: int, on_done: Callable[[], None]) -> None:
        """Begin to run the hooks of *service*; it is not started before they have ended.

        Args:
            service: Name of a service that has not been started yet.
            incarnation: Run of the earlier supervisor that the hooks belong to.
            on_done: Called when the hooks have run, successfully or not, and if there are none;
                not called if the supervisor ends before that.
        """
        supervisor = self._supervisor
        if service not in supervisor:
            on_done()
            return
        life, entry = supervisor[service], supervisor.scheduler.services[service]
        if entry.recovery_reason or not life.spec.hooks.get(_POINT):
            on_done()
            return
        log.warning("%s: running the %s hooks of a run that was killed", service, _POINT)
        entry.recovery_reason = f"{service} runs the {_POINT} hooks of a run that was killed"

        async def recover() -> None:
            try:
                await _run(life, incarnation)
                on_done()
            finally:
                entry.recovery_reason = ""
                supervisor.review()

        supervisor.spawn(recover)


async def _run(life: Lifecycle, incarnation: int) -> None:
    hooks = life.spec.hooks[_POINT]
    context = replace(
        life.context(_POINT), reason=_REASON, incarnation=incarnation,
        hook_id=f"{life.spec.name}:{incarnation}:{_POINT}",
    )  # fmt: skip
    await life.hooks.run(hooks, context, [])
