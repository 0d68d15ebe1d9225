"""Models that outlive the proxy: adoption at the start, facts for the next proxy meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from ....runtime import Supervisor, Transition
from ....runtime.adoption import RunFacts
from ....runtime.leaving import ending_of, facts_of
from ....runtime.ports import Adopted, Ending, NodeLauncher, NodeProcess
from ...process.container import KeptContainer
from ...process.keeping.takeover import KeptRun, TakeOver, read_ended
from ...process.kept_process import KeptProcess
from ...store import StoreError
from ...store.journal import IncompleteHooks, Journal, Launched
from ...store.state_directory import StateDirectory

log = logging.getLogger(__name__)

_KEPT = ("ready", "asleep")


class ModelKeeper:
    """Adopts the models that an earlier proxy has left, and lets this one's outlive it.

    Args:
        supervisor: Has the models.
        journal: Knows what earlier proxies have launched.
        state: State directory of the proxy, or None.

    Attributes:
        taken: (instance of an earlier proxy, service) of each run that was adopted or is ended as
            its own proxy would have, so that none of its hooks is left to run.
    """

    def __init__(
        self, supervisor: Supervisor, journal: Journal, state: StateDirectory | None
    ) -> None:
        self._supervisor, self._journal, self._state = supervisor, journal, state
        self.taken: set[tuple[str, str]] = set()

    def note(self, record: Transition) -> None:
        """Tell the launcher whether the process of a model may outlive the proxy."""
        lifecycle = self._supervisor.get(record.service)
        if lifecycle is None or not isinstance(lifecycle.process, NodeProcess):
            return
        process, entry = lifecycle.process, self._supervisor.scheduler.services[record.service]
        facts = facts_of(lifecycle, entry) if record.target in _KEPT else None
        if facts is not None:
            process.remember(facts.as_text(), ending_of(lifecycle))
        elif process.is_remembered and record.target != "adopting":
            process.remember("", Ending())

    async def adopt(
        self, launcher: NodeLauncher, earlier: TakeOver | None, launched: Sequence[Launched]
    ) -> None:
        """Adopt what fits the configuration, and begin to end the rest, each with its own hooks.

        Args:
            launcher: Has the processes.
            earlier: Guard of the earlier proxy, or None.
            launched: Rows of the journal about these processes.
        """
        self._complete_ended()
        kept: set[str] = set()
        for adopted in await launcher.adopt():
            if self._adopt(adopted):
                kept.add(adopted.service)
            else:
                self._supervisor.spawn(self._dismiss, adopted)
        for run in () if earlier is None else earlier.runs.values():
            self.taken.add((run.instance, run.service))
            if not run.fds and run.service not in kept:
                self._supervisor.spawn(self._await_end, run)
        self._journal.discard([row for row in launched if row.service not in kept])

    def _adopt(self, adopted: Adopted) -> bool:
        facts, process = RunFacts.from_text(adopted.facts), adopted.process
        if facts is None or not self._supervisor.adopt(adopted.service, process, facts):
            return False
        log.info("%s: adopted pid %d of an earlier proxy", adopted.service, process.pid)
        if isinstance(process, (KeptContainer, KeptProcess)):
            self._journal.adopt(adopted.service, process.instance, adopted.incarnation, process.pid)
        else:
            self._journal.inherit(adopted.service, adopted.incarnation)
        return True

    async def _dismiss(self, adopted: Adopted) -> None:
        """End a process that is not adopted; requests for its model wait until it has ended."""
        log.info(
            "%s: ending pid %d of an earlier proxy, which was started by another configuration",
            adopted.service, adopted.process.pid,
        )  # fmt: skip
        has_hooks_run = await self._block(adopted.service, adopted.process.dismiss)
        if has_hooks_run and isinstance(adopted.process, (KeptContainer, KeptProcess)):
            self._complete(adopted.process.instance, adopted.service)

    async def _await_end(self, run: KeptRun) -> None:
        if await self._block(run.service, run.wait_ended):
            self._complete(run.instance, run.service)

    async def _block(self, service: str, wait: Callable[[], Awaitable[bool]]) -> bool:
        """Return the result of *wait*; requests for *service* wait for it."""
        entry = self._supervisor.scheduler.services.get(service)
        if entry is not None:
            entry.recovery_reason = f"the process of {service} of an earlier proxy ends first"
        try:
            return await wait()
        finally:
            if entry is not None:
                entry.recovery_reason = ""
                self._supervisor.review()

    def _complete(self, instance: str, service: str) -> None:
        self._journal.complete(IncompleteHooks(instance, service, 0))

    def _complete_ended(self) -> None:
        """Note what a guard has ended, with its hooks, while no proxy ran."""
        for instance, service in [] if self._state is None else read_ended(self._state.path):
            self.taken.add((instance, service))
            self._complete(instance, service)


async def recover_hooks(supervisor: Supervisor, journal: Journal, keeper: ModelKeeper) -> None:
    """Begin to run the hooks of runs that were killed, but not of those that are adopted.

    Those of a run on a node are run there, by its agent.
    """
    try:
        incomplete = await journal.incomplete_hooks()
    except StoreError:
        return  # the database has logged it
    for hooks in incomplete:
        lifecycle = supervisor.get(hooks.service)
        if lifecycle is not None and lifecycle.spec.command.launcher == "ray":
            journal.complete(hooks)
        elif (hooks.instance, hooks.service) not in keeper.taken:
            supervisor.hook_recovery.run(
                hooks.service, hooks.incarnation, partial(journal.complete, hooks)
            )
