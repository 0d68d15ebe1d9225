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
        lifecycle, entry = supervisor[service], supervisor.scheduler.services[service]
        if entry.recovery_reason or not lifecycle.spec.hooks.get(_POINT):
            on_done()
            return
        log.warning("%s: running the %s hooks of a run that was killed", service, _POINT)
        entry.recovery_reason = f"{service} runs the {_POINT} hooks of a run that was killed"

        async def recover() -> None:
            try:
                await _run(lifecycle, incarnation)
                on_done()
            finally:
                entry.recovery_reason = ""
                supervisor.review()

        supervisor.spawn(recover)


async def _run(lifecycle: Lifecycle, incarnation: int) -> None:
    hooks = lifecycle.spec.hooks[_POINT]
    context = replace(
        lifecycle.context(_POINT), reason=_REASON, incarnation=incarnation,
        hook_id=f"{lifecycle.spec.name}:{incarnation}:{_POINT}",
    )  # fmt: skip
    await lifecycle.hooks.run(hooks, context, [])
