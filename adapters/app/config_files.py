"""Configuration files on disk: where they are, and whether they have changed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..config import Config, load_config
from ..system import threads

#: (path, modification time in ns, size in bytes, inode) of each file, in order.
Signature: TypeAlias = tuple[tuple[str, int, int, int], ...]


_POLL_S = 2.0


_STEADY_S = 0.5  # unchanged for so long, a file is taken for saved


_PATIENCE_S = 10.0  # a file that never rests, and that no program has open, is read all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFiles:
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

    def open_for_writing(self) -> list[str]:
        """Return those of the files that a program has open for writing.

        The kernel knows it: a read lease is refused then. Where it gives none, as on NFS or for a
        file of another user, the file is not among them.
        """
        return [path for path, *_ in self.signature() if _is_open_for_writing(Path(path))]

    def is_whole(self, signature: Signature) -> bool:
        """Tell whether *signature* has all files, and any of the directory.

        If not, an editor is at work, or somebody is moving things.
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


async def watch(
    sources: ConfigFiles, seen: Callable[[], Signature], changed: Callable[[str], None],
    held: Callable[[str], None] = lambda path: None, *,
    poll_s: float = _POLL_S, steady_s: float = _STEADY_S, patience_s: float = _PATIENCE_S,
) -> None:  # fmt: skip
    """Call *changed* whenever the files rest after a change; for ever.

    A file that has vanished is nothing to act on: editors replace them so. A file that a program
    has open for writing is waited for until it is closed, however long that takes, or until
    somebody reloads.

    Args:
        sources: What to watch.
        seen: Returns the signature of what was read last.
        changed: Told why.
        held: Told, once for each change, which file is still open for writing after *patience_s*.
        poll_s: Between two looks; seconds.
        steady_s: A change counts once nothing has changed for so long; seconds.
        patience_s: Longest wait for files that keep changing while no program has one open for
            writing at the looks; seconds.
    """
    told: Signature | None = None
    while True:
        await asyncio.sleep(poll_s)
        found = await threads.run(sources.signature)
        if found in (seen(), told):
            continue
        found = await _rested(sources, found, seen, held, steady_s, patience_s)
        if found != seen() and sources.is_whole(found):
            told = found
            changed("a file was changed")


async def _rested(
    sources: ConfigFiles, found: Signature, seen: Callable[[], Signature],
    held: Callable[[str], None], steady_s: float, patience_s: float,
) -> Signature:  # fmt: skip
    """Wait until the files rest and no program writes to them; returns their signature.

    It returns at once when *seen* says that a reload has read them meanwhile.
    """
    patience = time.monotonic() + patience_s
    is_told = False
    while True:
        await asyncio.sleep(steady_s)
        written = await threads.run(sources.open_for_writing)
        before, found = found, await threads.run(sources.signature)
        is_late = time.monotonic() >= patience
        if found == seen() or (not written and (found == before or is_late)):
            return found
        if written and is_late and not is_told:
            is_told = True
            held(written[0])
