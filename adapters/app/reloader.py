"""Reads the configuration again when asked to, one at a time, and never forgets that it was asked.

Nothing is changed by a configuration that has an error. A request that comes while a reload runs
is answered by one more after it, so that whoever saved a file and then asked gets that file.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ...runtime import ConfigError, RequestError, SwapchartError
from ..config import Config, ConfigProblems, Problem, load_config
from ..system import threads
from .reload_plan import ReloadPlan

log = logging.getLogger(__name__)

#: (path, modification time in ns, size in bytes, inode) of each file, in order.
Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]

_POLL_S = 2.0
_STEADY_S = 0.5  # unchanged for so long, a file is taken for saved
_PATIENCE_S = 10.0  # a file that never rests is read all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the configuration is; at least one of the two.

    Attributes:
        files: Read in this order.
        directory: Its YAML files are read after them; None: there is none.
    """

    files: Sequence[Path] = ()
    directory: Path | None = None

    def load(self, ports: Mapping[str, int] | None = None) -> Config:
        """Read it; see ``config.load_config``.

        Raises:
            ConfigProblems: It has an error.
        """
        return load_config(self.files, self.directory, ports=ports)

    def signature(self) -> Signature:
        """Return what tells whether a file was changed; those that are not there are left out."""
        paths = list(self.files)
        if self.directory is not None:
            with suppress(OSError):
                children = self.directory.iterdir()
                paths += sorted(path for path in children if path.suffix in (".yaml", ".yml"))
        found = []
        for path in paths:
            with suppress(OSError):
                stat = path.stat()
                found.append((str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def is_being_written(self) -> bool:
        """Return True if a program has one of the files open for writing.

        The kernel knows it: a read lease is refused then. Where it gives none, as on NFS or for a
        file of another user, the answer is False.
        """
        return any(_is_open_for_writing(Path(path)) for path, *_ in self.signature())

    def is_whole(self, signature: Signature) -> bool:
        """Tell whether *signature* has all files, and any of the directory.

        If not, an editor is at work, or somebody is moving things.
        """
        known = {path for path, *_ in signature}
        named = {str(path) for path in self.files}
        return named <= known and (self.directory is None or bool(known - named))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadReport:
    """How one reload went.

    Attributes:
        why: Who asked, in words.
        at: When; seconds since the epoch.
        seconds: How long it took.
        plan: What was changed; None when nothing could be.
        problems: What is wrong with the configuration, or doubtful.
    """

    why: str
    at: float
    seconds: float
    plan: ReloadPlan | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def is_ok(self) -> bool:
        """Tell whether the configuration is in force now."""
        return self.plan is not None

    def as_json(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "ok": self.is_ok,
            "why": self.why,
            "at": self.at,
            "seconds": round(self.seconds, 6),
            "plan": None if self.plan is None else self.plan.as_json(),
            "problems": [problem_json(problem) for problem in self.problems],
        }


def _is_open_for_writing(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # ignored, unlike SIGIO, which would end us
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def in_place(before: Signature, after: Signature) -> list[str]:
    """Return the files that were written to, and not replaced by another, between two looks.

    Those may be half-written; a file that was put in the place of another is complete.
    """
    known = {path: (time_, size, inode) for path, time_, size, inode in before}
    return [
        path
        for path, time_, size, inode in after
        if path in known and known[path] != (time_, size, inode) and known[path][2] == inode
    ]


def problem_json(problem: Problem) -> dict[str, Any]:
    """Return *problem* as the API tells it."""
    fields = {name: getattr(problem, name) for name in Problem.__slots__}
    return {**fields, "text": str(problem)}


def problems_of(error: SwapchartError) -> tuple[Problem, ...]:
    """Return all that *error* says."""
    if isinstance(error, ConfigProblems):
        return error.problems
    path, message = "", str(error)
    if isinstance(error, ConfigError):
        path, message = error.where, error.why
    notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
    return (Problem(file="", path=path, line=0, column=0, message=message + notes),)


class ReloadClosedError(SwapchartError):
    """The proxy is ending: nothing is reloaded any more."""


#: Does it: reads, checks, and applies all or nothing. Raises ConfigProblems or ConfigError.
Change: TypeAlias = Callable[[], Awaitable[tuple[ReloadPlan, Sequence[Problem]]]]


@dataclass(slots=True)
class _Asked:
    why: list[str] = field(default_factory=list)
    is_by_somebody: bool = False
    answer: asyncio.Future[ReloadReport] | None = None


class Reloader:
    """Reloads, one at a time.

    Args:
        change: Reads the configuration and applies it.

    Attributes:
        last: The last report, or None.
        count: How many reloads there were, failed ones included.
        is_asked_for: Somebody asked for the reload that runs; else a changed file began it.
    """

    def __init__(self, change: Change) -> None:
        self._change = change
        self._asked = _Asked()
        self._wake = asyncio.Event()
        self._is_closed = False
        self._listeners: list[Callable[[ReloadReport], None]] = []
        self.is_asked_for = True
        self.last: ReloadReport | None = None
        self.count = 0

    def listen(self, listener: Callable[[ReloadReport], None]) -> None:
        """Call *listener* with every report, failed ones included; it must not wait."""
        self._listeners.append(listener)

    def ask(self, why: str) -> None:
        """Reload as soon as possible; for signals."""
        self._asked.is_by_somebody = True
        self.note_change(why)

    def note_change(self, why: str) -> None:
        """Reload as soon as possible, because a file was changed."""
        self._asked.why.append(why)
        self._wake.set()

    async def reload(self, why: str) -> ReloadReport:
        """Reload, and return how it went: a reload that began after this call.

        Raises:
            ReloadClosedError: The proxy ended before.
        """
        if self._is_closed:
            raise ReloadClosedError("the proxy is ending")
        self.ask(why)
        asked = self._asked
        if asked.answer is None:
            asked.answer = asyncio.get_running_loop().create_future()
        return await asyncio.shield(asked.answer)

    async def run(self) -> None:
        """Do what is asked for, until cancelled."""
        answers: list[asyncio.Future[ReloadReport] | None] = []
        self._is_closed = False
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                asked, self._asked = self._asked, _Asked()
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
                    answer.set_exception(ReloadClosedError("the proxy is ending"))
                    answer.exception()  # whoever asked may have left

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
        log.error("reload (%s): the configuration is wrong; the old one stays", report.why)
    else:
        log.info("reload (%s):\n%s", report.why, report.plan)


async def watch(
    sources: Sources, seen: Callable[[], Signature], changed: Callable[[str], None], *,
    poll_s: float = _POLL_S, steady_s: float = _STEADY_S, patience_s: float = _PATIENCE_S,
) -> None:  # fmt: skip
    """Call *changed* whenever the files rest after a change; for ever.

    A file that has vanished is nothing to act on: editors replace them so. One that a program
    still writes to is waited for.

    Args:
        sources: What to watch.
        seen: Returns the signature of what was read last.
        changed: Told why.
        poll_s: Between two looks; seconds.
        steady_s: A change counts once nothing has changed for so long; seconds.
        patience_s: And at the latest after so long; seconds.
    """
    told: Signature | None = None
    while True:
        await asyncio.sleep(poll_s)
        found = await threads.run(sources.signature)
        if found in (seen(), told):
            continue
        found = await _rested(sources, found, steady_s, patience_s)
        if found != seen() and sources.is_whole(found):
            told = found
            changed("a file was changed")


async def _rested(
    sources: Sources, found: Signature, steady_s: float, patience_s: float
) -> Signature:
    """Wait until the files rest and no program writes to them; returns their signature."""
    patience = time.monotonic() + patience_s
    is_told = False
    while True:
        await asyncio.sleep(steady_s)
        is_written = await threads.run(sources.is_being_written)
        before, found = found, await threads.run(sources.signature)
        is_late = time.monotonic() >= patience
        if not is_written and (found == before or is_late):
            return found
        if is_late and not is_told:
            is_told = True
            log.warning("a configuration file is still being written: it is read after that")
