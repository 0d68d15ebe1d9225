"""Conditions under which memory is left to other programs: a program that runs, or a command."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from fnmatch import translate
from pathlib import Path
from re import compile as compile_pattern

from .command import run_named
from .one_thread import OneThread

_LIMIT_S = 1.5


class _Condition:
    """A condition that is read in a thread of its own."""

    def __init__(self, read: Callable[[Collection[int]], str], limit_s: float) -> None:
        self._read, self._limit_s = read, limit_s
        self._thread = OneThread()

    async def reason(self, own: Collection[int]) -> str:
        """Return why it holds at present, in words; empty if it does not hold.

        Raises:
            OSError: It is not known.
        """
        return await self._thread.call(self._read, own, limit_s=self._limit_s)


class ProgramRuns(_Condition):
    """Holds while a program of a certain name runs that is not one of the services.

    A name is that of the executable file or the first argument without folders, or the one that
    the kernel shows, which is cut after 15 characters.

    Args:
        patterns: Names, in which ``*``, ``?`` and ``[...]`` have their usual meaning.
        root: Root of the file system, for tests.
    """

    def __init__(self, patterns: Sequence[str], root: Path = Path("/")) -> None:
        super().__init__(self._running, _LIMIT_S)
        self._patterns = [compile_pattern(translate(pattern)) for pattern in patterns]
        self._root = root

    def _running(self, own: Collection[int]) -> str:
        skipped = {str(pid) for pid in own}
        for folder in (self._root / "proc").iterdir():
            if folder.name.isdecimal() and folder.name not in skipped:
                for name in _names_of(folder):
                    if any(pattern.fullmatch(name) for pattern in self._patterns):
                        return f"{name} is running"
        return ""


def _names_of(folder: Path) -> list[str]:
    """Return the names of the process of a folder of ``/proc``; none if it has ended."""
    names = []
    with suppress(OSError):
        names.append((folder / "comm").read_text("utf-8", "replace").rstrip("\n"))
        first = (folder / "cmdline").read_bytes().split(b"\0", 1)[0].decode("utf-8", "replace")
        names.append(first.replace("\\", "/").rpartition("/")[2])  # Wine shows paths of Windows
    return [name for name in dict.fromkeys(reversed(names)) if name]


class CommandSucceeds(_Condition):
    """Holds while a command ends with status 0.

    Args:
        argv: Program and arguments.
        limit_s: Time limit of the command in seconds.
    """

    def __init__(self, argv: Sequence[str], *, limit_s: float = _LIMIT_S) -> None:
        super().__init__(self._succeeds, limit_s + 0.3)
        self._argv, self._command_limit_s = tuple(argv), limit_s

    def _succeeds(self, own: Collection[int]) -> str:
        del own
        text = " ".join(self._argv)
        status, _, _ = run_named(text, self._argv, self._command_limit_s)
        return "" if status else f"{text} succeeds"
