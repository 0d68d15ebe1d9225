"""State directory of one configuration, and the lock that keeps other proxies out."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ..system.lock_file import LockedError, holder_of, lock_file
from ..system.private_files import check_folder_is_ours, make_folder, open_file

#: Files by which a state directory is recognized; earlier versions had no lock file.
_FILES = frozenset({"lock", "journal.db", "activity.db"})
_OWNER_DIGITS = 16


class StateInUseError(Exception):
    """Another proxy uses this state directory.

    Attributes:
        directory: Path of the state directory.
    """

    def __init__(self, directory: Path, holder: str) -> None:
        who = f"another swapchart (pid {holder})" if holder else "another swapchart"
        super().__init__(
            f"{who} runs with this configuration and holds {directory}: stop it, or use --state-dir"
        )
        self.directory = directory


class NotAFolderError(OSError):
    """The state directory cannot exist, because something else has its path or a parent's."""


def check_folder(path: Path) -> None:
    """Check that *path* is a folder or could become one; nothing is created.

    Raises:
        NotAFolderError: *path*, or the parent below which it would be, is not a folder.
    """
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if os.path.lexists(place):
            inside = "" if place == path else f" in {path}"
            raise NotAFolderError(
                f"the state cannot be kept{inside}: expected a folder at {place}, found something "
                "else; choose another one with --state-dir or SWAPCHART_STATE_DIR"
            )


def default_directory(files: Sequence[Path]) -> Path:
    """Return the state directory of the configuration in *files*.

    It is a folder named after these files, in SWAPCHART_STATE_DIR if that is set, else in the XDG
    state directory.
    """
    chosen = os.environ.get("SWAPCHART_STATE_DIR")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    root = Path(chosen) if chosen else Path(base) / "swapchart"
    names = "\0".join(str(file.resolve()) for file in files)
    return root / hashlib.sha256(names.encode()).hexdigest()[:12]


def check_private(directory: Path) -> None:
    """Check that a proxy may keep its state in *directory*, which exists; nothing is changed.

    Raises:
        OSError: Other users or programs may need the directory, or it cannot be read.
    """
    check_folder_is_ours(directory, _FILES.__contains__)


def state_holder(directory: Path) -> str | None:
    """Return the process id of the proxy that uses *directory*; empty if it is not known.

    Nothing is created or changed. None means that no proxy uses it.

    Raises:
        OSError: Its lock file cannot be read.
    """
    return holder_of(directory / "lock")


class StateDirectory:
    """Locked state directory; the lock ends with the process or with `close`.

    Args:
        path: Created if it does not exist, with access for this user only.

    Raises:
        StateInUseError: Another proxy holds the lock.
        NotAFolderError: The path is taken by something that is not a folder.
        OSError: The folder cannot be created or written, or other users or programs may need it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _locked(path)

    def owner(self) -> str:
        """Return a random id that is made once and kept in the directory, 16 hex digits.

        Raises:
            OSError: It cannot be read or written.
        """
        fd = open_file(self.path / "owner", os.O_RDWR | os.O_CREAT)
        try:
            known = os.read(fd, _OWNER_DIGITS + 1)
            if len(known) == _OWNER_DIGITS and known.isalnum():
                return known.decode("ascii")
            made = secrets.token_hex(_OWNER_DIGITS // 2)
            os.ftruncate(fd, 0)
            os.pwrite(fd, made.encode("ascii"), 0)
            return made
        finally:
            os.close(fd)

    def is_there(self) -> bool:
        """Return True if the folder and its lock file are still those that were opened."""
        try:
            found, ours = (self.path / "lock").lstat(), os.fstat(self._lock)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)

    def renew(self) -> None:
        """Create and lock the folder again after it was deleted; raise as the constructor does."""
        old, self._lock = self._lock, _locked(self.path)
        os.close(old)

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)


def _locked(path: Path) -> int:
    check_folder(path)
    make_folder(path, _FILES.__contains__)
    try:
        return lock_file(path / "lock")
    except LockedError as error:
        raise StateInUseError(path, error.holder) from error
