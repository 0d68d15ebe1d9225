"""Configuration files on disk: their paths, and detection of changes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from ...dataclass import dataclass
from ..config import Config, load_config
from ..system import threads

#: (path, modification time in ns, size in bytes, inode) of each file, in order.
Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]


_POLL_S = 2.0


_STEADY_S = 0.5  # a file that has not changed for this long counts as saved


_PATIENCE_S = 10.0  # then a file that keeps changing is read, unless a program has it open


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFiles:
    """Paths of the configuration; at least one of the two is given.

    Attributes:
        files: Files, in the order in which they are read.
        directory: Directory whose YAML files are read after *files*; None means none.
        is_lenient: A model with an error is refused, with a warning, instead of all of them.
    """

    files: Sequence[Path] = ()
    directory: Path | None = None
    is_lenient: bool = False

    def load(self, ports: Mapping[str, int] | None = None) -> Config:
        """Read and check the configuration; see ``config.load_config``.

        Raises:
            ConfigProblems: It has an error.
        """
        lenient = self.is_lenient
        return load_config(self.files, self.directory, ports=ports, is_lenient=lenient)

    def signature(self) -> Signature:
        """Return the state of all files on disk, to detect changes; missing files are left out."""
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

    def open_for_writing(self) -> list[str]:
        """Return the files that a program has open for writing.

        The kernel refuses a read lease on such a file. Where it grants no leases at all, as on NFS
        or for files of another user, the file is not among them.
        """
        return [path for path, *_ in self.signature() if _is_open_for_writing(Path(path))]

    def is_whole(self, signature: Signature) -> bool:
        """Return True if *signature* has all files, and at least one of the directory.

        Files are missing for a moment while an editor replaces them or a user moves them.
        """
        known = {path for path, *_ in signature}
        named = {str(path) for path in self.files}
        return named <= known and (self.directory is None or bool(known - named))


def _is_open_for_writing(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # ignored; SIGIO would end the process
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


async def watch(
    sources: ConfigFiles, seen: Callable[[], Signature], changed: Callable[[str], None],
    held: Callable[[str], None] = lambda path: None, *,
    poll_s: float = _POLL_S, steady_s: float = _STEADY_S, patience_s: float = _PATIENCE_S,
) -> None:  # fmt: skip
    """Call *changed* whenever the files have changed and are complete; runs until canceled.

    A file that disappears briefly, for example while an editor replaces it, does not trigger a
    call. A file that a program has open for writing is not read until that program closes it or a
    reload is requested.

    Args:
        sources: Files to watch.
        seen: Returns the signature of the files that were read last.
        changed: Receives the reason, in words.
        held: Receives, once for each change, the file that is still open for writing after
            *patience_s*.
        poll_s: Interval between two checks; seconds.
        steady_s: A change counts once nothing has changed for this long; seconds.
        patience_s: Longest wait for files that keep changing while no program has one open for
            writing; seconds.
    """
    reported: Signature | None = None
    while True:
        await asyncio.sleep(poll_s)
        found = await threads.run(sources.signature)
        if found in (seen(), reported):
            continue
        found = await _rested(sources, found, seen, held, steady_s, patience_s)
        if found != seen() and sources.is_whole(found):
            reported = found
            changed("a file was changed")


async def _rested(
    sources: ConfigFiles, found: Signature, seen: Callable[[], Signature],
    held: Callable[[str], None], steady_s: float, patience_s: float,
) -> Signature:  # fmt: skip
    """Wait until the files are stable and closed, and return their signature.

    Returns at once when *seen* shows that a reload has read them meanwhile.
    """
    patience = time.monotonic() + patience_s
    is_reported = False
    while True:
        await asyncio.sleep(steady_s)
        written = await threads.run(sources.open_for_writing)
        before, found = found, await threads.run(sources.signature)
        is_late = time.monotonic() >= patience
        if found == seen() or (not written and (found == before or is_late)):
            return found
        if written and is_late and not is_reported:
            is_reported = True
            held(written[0])
