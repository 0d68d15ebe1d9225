"""Reload queue: runs one reload at a time and loses no request for one.

A configuration with an error changes nothing. A request that arrives during a reload is answered
by a further reload, so that a user who saves a file and then requests a reload gets that file.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from ...dataclass import dataclass, field
from ...runtime import ConfigError, RequestError, SwapchartError
from ..config import ConfigProblems, Problem
from .config_files import Signature
from .reload_plan import ReloadPlan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadReport:
    """Outcome of one reload.

    Attributes:
        why: Reasons, in words.
        at: Time of the reload; seconds since the epoch.
        seconds: Duration.
        plan: Changes that were applied; None after a failure.
        problems: Errors and warnings of the configuration.
    """

    why: str
    at: float
    seconds: float
    plan: ReloadPlan | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def is_ok(self) -> bool:
        """True if the configuration is now in force."""
        return self.plan is not None

    def as_json(self) -> dict[str, Any]:
        """Return the report as the API's JSON value."""
        return {
            "ok": self.is_ok,
            "why": self.why,
            "at": self.at,
            "seconds": round(self.seconds, 6),
            "plan": None if self.plan is None else self.plan.as_json(),
            "problems": [problem_json(problem) for problem in self.problems],
        }


def in_place(before: Signature, after: Signature) -> list[str]:
    """Return the files that were written in place between two signatures.

    Such a file may be half-written. A file that replaced another one is complete.
    """
    known = {path: (time_, size, inode) for path, time_, size, inode in before}
    return [
        path
        for path, time_, size, inode in after
        if path in known and known[path] != (time_, size, inode) and known[path][2] == inode
    ]


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return *problem* as the API's JSON value."""
    fields = {name: getattr(problem, name) for name in Problem.__slots__}
    return {**fields, "text": str(problem)}


def problems_of(error: SwapchartError) -> tuple[Problem, ...]:
    """Return all problems that *error* contains."""
    if isinstance(error, ConfigProblems):
        return error.problems
    path, message = "", str(error)
    if isinstance(error, ConfigError):
        path, message = error.where, error.why
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    return (Problem(file="", path=path, line=0, column=0, message=message + notes),)


class ReloadClosedError(SwapchartError):
    """The proxy is shutting down and reloads nothing any more."""


#: Reads, checks, and applies all or nothing. Raises ConfigProblems or ConfigError.
Change: TypeAlias = Callable[[], Awaitable[tuple[ReloadPlan, Sequence[Problem]]]]


@dataclass(slots=True)
class _PendingReload:
    why: list[str] = field(default_factory=list)
    is_by_somebody: bool = False
    answer: asyncio.Future[ReloadReport] | None = None


class Reloader:
    """Runs reloads, one at a time.

    Args:
        change: Reads the configuration and applies it.

    Attributes:
        last: Last report, or None.
        count: Number of reloads, including failed ones.
        is_asked_for: True if the running reload was requested explicitly; False if a changed file
            caused it.
    """

    def __init__(self, change: Change) -> None:
        self._change = change
        self._asked = _PendingReload()
        self._wake = asyncio.Event()
        self._is_closed = False
        self._listeners: list[Callable[[ReloadReport], None]] = []
        self.is_asked_for = True
        self.last: ReloadReport | None = None
        self.count = 0

    def listen(self, listener: Callable[[ReloadReport], None]) -> None:
        """Call *listener* with every report, failed ones included; it must not block."""
        self._listeners.append(listener)

    def ask(self, why: str) -> None:
        """Schedule a reload without waiting for it; for signal handlers."""
        self._asked.is_by_somebody = True
        self.note_change(why)

    def note_change(self, why: str) -> None:
        """Schedule a reload because a file has changed."""
        self._asked.why.append(why)
        self._wake.set()

    async def reload(self, why: str) -> ReloadReport:
        """Run a reload that begins after this call, and return its report.

        Raises:
            ReloadClosedError: The proxy shut down before.
        """
        if self._is_closed:
            raise ReloadClosedError("the proxy is shutting down")
        self.ask(why)
        asked = self._asked
        if asked.answer is None:
            asked.answer = asyncio.get_running_loop().create_future()
        return await asyncio.shield(asked.answer)

    async def run(self) -> None:
        """Run the requested reloads until canceled."""
        answers: list[asyncio.Future[ReloadReport] | None] = []
        self._is_closed = False
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                asked, self._asked = self._asked, _PendingReload()
                answers.append(asked.answer)
                self.is_asked_for = asked.is_by_somebody
                report = await self._reload(" and ".join(dict.fromkeys(asked.why)))
                answers.clear()
                if asked.answer is not None:
                    asked.answer.set_result(report)
        finally:
            self._is_closed = True
            for answer in (*answers, self._asked.answer):
                if answer is not None:
                    answer.set_exception(ReloadClosedError("the proxy is shutting down"))
                    answer.exception()  # marks it as retrieved: its waiter may be gone

    async def _reload(self, why: str) -> ReloadReport:
        at, began = time.time(), time.monotonic()
        plan: ReloadPlan | None = None
        problems: Sequence[Problem] = ()
        try:
            plan, problems = await self._change()
        except (ConfigError, ConfigProblems, RequestError) as error:
            problems = problems_of(error)
        except Exception as error:
            log.exception("reload (%s) failed", why)
            message = f"internal error, see the log: {error}"
            problems = [Problem(file="", path="", line=0, column=0, message=message)]
        report = ReloadReport(
            why=why, at=at, seconds=time.monotonic() - began, plan=plan, problems=tuple(problems)
        )
        self.last, self.count = report, self.count + 1
        _tell(report)
        for listener in self._listeners:
            listener(report)
        return report


def _tell(report: ReloadReport) -> None:
    for problem in report.problems:
        (log.error if problem.severity == "error" else log.warning)("%s", problem)
    if report.plan is None:
        log.error("reload (%s): the configuration has errors; the old one stays", report.why)
    else:
        log.info("reload (%s):\n%s", report.why, report.plan)
