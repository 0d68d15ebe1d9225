"""The state directory of one configuration: its lock, and the files of its journal."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path


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
        path: Made if need be, for our user only.

    Raises:
        StateInUseError: Another proxy has it.
        OSError: It cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._lock, 32).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise StateInUseError(path, holder) from error
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let others have it."""
        os.close(self._lock)
