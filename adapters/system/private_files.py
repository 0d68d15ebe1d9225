"""Private files and folders, accessible only by the user of this process.

The state of the proxy may contain secrets (paths, names, conversations), and a user who can write
it could choose which processes are killed or which caches are restored. So files are created with
private permissions, permissive ones are restricted, and files of other users are rejected. Symbolic
links are not followed.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_OTHERS = 0o077
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a named pipe must not block


class UnsafeFileError(OSError):
    """Another user or program may change a file or folder; the text says what to do."""


def make_folder(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Create the folder at *path* with mode 0700, or restrict an existing one to that mode.

    The mode of a folder is changed only if it belongs to this user, has no sticky bit, and is empty
    or contains a file of this program, since other programs may need the present mode. A symbolic
    link to a folder is followed.

    Args:
        path: Path of the folder.
        is_ours: Return True for names of files that only this program creates.

    Raises:
        UnsafeFileError: It belongs to another user, or other users have access that they may need.
        OSError: It cannot be created, or is not a folder.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        if stat.S_IMODE(about.st_mode) & _OTHERS:
            _check_alone(fd, path, about, is_ours)
        _restrict(fd, path, 0o700)
    finally:
        os.close(fd)


def check_folder_is_ours(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Check that `make_folder` would accept the existing folder at *path*; nothing is changed.

    Raises:
        UnsafeFileError: As `make_folder` does.
        OSError: It cannot be read, or is not a folder.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        if stat.S_IMODE(about.st_mode) & _OTHERS:
            _check_alone(fd, path, about, is_ours)
        _check_owner(path, about)
    finally:
        os.close(fd)


def _check_alone(
    fd: int, path: Path, about: os.stat_result, is_ours: Callable[[str], bool]
) -> None:
    """Raise UnsafeFileError if other users or programs may need the folder."""
    user, mode = os.geteuid(), stat.S_IMODE(about.st_mode)
    found = ""
    if about.st_uid != user:
        found = f"it belongs to user {about.st_uid}, and this process runs as {user}"
    elif mode & stat.S_ISVTX:
        found = "it is shared (sticky bit)"
    elif not _is_made_by_us(fd, is_ours):
        found = "it holds files of other programs"
    if found:
        raise UnsafeFileError(
            f"{path} is not used: expected a folder for this user only (mode 700), found mode "
            f"{mode:o}, and {found}: choose a folder of its own, such as {path / 'swapchart'}"
        )


def _is_made_by_us(folder: int, is_ours: Callable[[str], bool]) -> bool:
    """Return True if the open *folder* is empty or contains a regular file of this program."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name != "lost+found"]
    return not found or any(
        is_ours(entry.name) and entry.is_file(follow_symlinks=False) for entry in found
    )


def open_file(path: Path, flags: int) -> int:
    """Open the file at *path*, created with mode 0600 or restricted to it.

    Args:
        path: Path of the file.
        flags: Flags of ``os.open``; with O_CREAT a missing file is created.

    Raises:
        UnsafeFileError: It is a link, not a regular file, or belongs to another user.
        OSError: It cannot be opened.
    """
    try:
        fd = os.open(path, flags | _FLAGS, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise UnsafeFileError(f"{path} is a link: remove it") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UnsafeFileError(f"{path} is not a regular file: remove it")
        _restrict(fd, path, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def restrict_file(path: Path) -> None:
    """Restrict the file at *path* to mode 0600; a no-op if there is none.

    Raises:
        UnsafeFileError: It is a link, not a regular file, or belongs to another user.
        OSError: It cannot be opened.
    """
    try:
        os.close(open_file(path, os.O_RDONLY))
    except FileNotFoundError:
        return


def _check_owner(path: Path, about: os.stat_result) -> None:
    """Raise UnsafeFileError if the file or folder belongs to another user; root may use all."""
    user = os.geteuid()
    if about.st_uid != user and user != 0:
        raise UnsafeFileError(
            f"{path} belongs to user {about.st_uid}, and this process runs as {user}: "
            "choose another place, or change its owner"
        )


def _restrict(fd: int, path: Path, mode: int) -> None:
    about = os.fstat(fd)
    _check_owner(path, about)
    found = stat.S_IMODE(about.st_mode)
    if found & _OTHERS:
        os.fchmod(fd, found & mode)
        log.warning("%s was accessible by other users: mode %o -> %o", path, found,
                    found & mode)  # fmt: skip
