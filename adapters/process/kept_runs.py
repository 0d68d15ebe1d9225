"""Runs of a launcher that may outlive the proxy, and those that an earlier proxy has left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from ...runtime.adoption import RunFacts
from ...runtime.ports import Adopted, Ending
from .keeping.keeper import Keeper
from .keeping.memory import Remembered
from .keeping.takeover import TakeOver
from .kept_process import Adopter, KeptProcess
from .local_process import LocalProcess

_log = logging.getLogger(__name__)


class KeepingLauncher(Adopter, Protocol):
    """Launcher of the runs."""

    def own_environment(self) -> dict[str, str]:
        """Return the environment of this process, as far as children inherit it."""
        ...


class KeptRuns:
    """The runs of one launcher that its guard keeps, or that the guard before has kept.

    Args:
        launcher: The launcher.
        keeper: Its guard; None means that no run may outlive the proxy.
        earlier: Guard of an earlier proxy, or None.
    """

    def __init__(
        self, launcher: KeepingLauncher, keeper: Keeper | None, earlier: TakeOver | None
    ) -> None:
        self._launcher, self._keeper, self._earlier = launcher, keeper, earlier

    @property
    def containers(self) -> frozenset[str]:
        """Ids of the containers that the guard of an earlier proxy has kept or is ending."""
        runs = () if self._earlier is None else self._earlier.runs.values()
        records = (run.record.get("container") for run in runs)
        return frozenset(str(each["id"]) for each in records if each)

    def adoptable(self, *, contained: bool = False) -> list[Adopted]:
        """Return the processes that the guard of an earlier proxy has kept.

        Args:
            contained: Return the clients of containers, and not the processes of this machine.
        """
        earlier = self._earlier
        if earlier is None:
            return []
        found = []
        for run in [run for run in earlier.runs.values() if run.fds]:
            if ("container" in run.record) is not contained:
                continue
            try:
                process = KeptProcess(run, earlier, self._launcher)
                facts = RunFacts.from_text(str(run.record["facts"]))
            except (KeyError, TypeError, ValueError):  # a record of another version
                _log.warning("%s: another version of swapchart has started it", run.service)
                earlier.end(run.run)
                continue
            incarnation = 0 if facts is None else facts.incarnation
            found.append(
                Adopted(
                    service=run.service, incarnation=incarnation, id=run.run, process=process,
                    facts=str(run.record["facts"]),
                )
            )  # fmt: skip
        return found

    def decide(self) -> None:
        """Note that the processes of an earlier proxy are taken over or ended from now on."""
        if self._keeper is not None:
            self._keeper.publish()

    def remember(
        self, process: LocalProcess, facts: str, ending: Ending,
        more: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Keep *facts* with *process*; see `NodeProcess.remember`. A no-op without a keeper.

        Args:
            process: The process; the client of a container.
            facts: The facts; empty means that it may not outlive the proxy.
            ending: How to end it.
            more: Further entries of its record, in place of those of the process.
        """
        if self._keeper is None:
            return
        if not facts:
            self._keeper.forget(process.run_id)
            if process.memory is not None:
                process.memory.close_record()
            return
        record = {
            **process.record(), **(more or {}), "facts": facts, "ending": ending.record(),
            "environment": self._launcher.own_environment(),
        }  # fmt: skip
        try:
            if process.memory is None:
                process.memory = Remembered.of(process.pipe, process.log)
            process.memory.replace(record)
        except OSError as error:
            _log.warning("%s cannot outlive the proxy: %s", process.record()["service"], error)
            return
        self._keeper.remember(process.run_id, process.memory)

    def remember_again(self, process: LocalProcess) -> None:
        """Keep *process*, which was adopted, with the facts that an earlier proxy has kept."""
        if self._keeper is not None and process.memory is not None:
            self._keeper.remember(process.run_id, process.memory)

    def forget(self, process: LocalProcess) -> None:
        """Drop what was kept of a process whose tree has ended."""
        if process.memory is not None:
            if self._keeper is not None:
                self._keeper.forget(process.run_id)
            process.memory.close(process.log)
            process.memory = None
