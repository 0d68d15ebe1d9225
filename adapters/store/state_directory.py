"""The state directory of one configuration: its lock, and the files of its journal."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from ..system.private_files import make_folder, open_file

#: Files that tell a state directory; earlier versions made no lock.
_FILES = frozenset({"lock", "journal.db", "activity.db"})


class StateInUseError(Exception):
    """Another proxy works on this state directory.

    Attributes:
        directory: Which one.
    """

    def __init__(self, directory: Path, holder: str) -> None:
        who = f"another swapchart (pid {holder})" if holder else "another swapchart"
        super().__init__(
            f"{who} runs with this configuration: it holds {directory}; stop it, or say --state-dir"
        )
        self.directory = directory


def default_directory(files: Sequence[Path]) -> Path:
    """Return where the state of the configuration in *files* is kept.

    The variable SWAPCHART_STATE_DIR comes first, then the XDG state directory, with a folder
    for each configuration.
    """
    chosen = os.environ.get("SWAPCHART_STATE_DIR")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    root = Path(chosen) if chosen else Path(base) / "swapchart"
    names = "\0".join(str(file.resolve()) for file in files)
    return root / hashlib.sha256(names.encode()).hexdigest()[:12]


class StateDirectory:
    """A state directory that is ours while the process lives.

    Args:
        path: Made if need be, for our user only. One that others use too is refused.

    Raises:
        StateInUseError: Another proxy has it.
        OSError: It cannot be made or written, or it may be for others too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _locked(path)

    def is_there(self) -> bool:
        """Return True if the folder and its lock are still what we opened."""
        try:
            found, ours = (self.path / "lock").lstat(), os.fstat(self._lock)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def renew(self) -> None:
        """Make and lock the folder again, after it was deleted; raises as the constructor."""
        old, self._lock = self._lock, _locked(self.path)
        os.close(old)

    def close(self) -> None:
        """Let others have it."""
        os.close(self._lock)


def _locked(path: Path) -> int:
    make_folder(path, _FILES.__contains__)
    lock = open_file(path / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(lock, 32).decode("ascii", "replace").strip()
        os.close(lock)
        raise StateInUseError(path, holder) from error
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
