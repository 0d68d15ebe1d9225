"""Files and folders that only our user may read: made so, tightened, or refused.

What we keep may hold secrets (paths, names, conversations), and whoever may write it decides what
we end or restore. A link that somebody else put in its place is never followed.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

_OTHERS = 0o077
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe must not hold us up


class UnsafeFileError(OSError):
    """Somebody else decides what is in a file or folder; the text says what to do."""


def make_folder(path: Path, is_ours: Callable[[str], bool]) -> None:
    """Make the folder at *path*, or tighten the one that is there to mode 0700.

    A folder is tightened only if it belongs to our user, has no sticky bit, and is empty or holds a
    file of ours: other programs may need the rights of any other. A link to a folder is followed:
    where the folder lies is its owner's choice.

    Args:
        path: Of the folder.
        is_ours: Return True for the name of a file that only we make.

    Raises:
        UnsafeFileError: It belongs to another user, or others have rights in it that they may need.
        OSError: It cannot be made, or is no folder.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        about = os.fstat(fd)
        if stat.S_IMODE(about.st_mode) & _OTHERS:
            _check_alone(fd, path, about, is_ours)
        _tighten(fd, path, 0o700)
    finally:
        os.close(fd)


def _check_alone(
    fd: int, path: Path, about: os.stat_result, is_ours: Callable[[str], bool]
) -> None:
    """Raise UnsafeFileError if the folder may be for others too."""
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
            f"{path} is not used: expected a folder that is ours alone (mode 700), found mode "
            f"{mode:o}, and {found}: choose a folder of its own, such as {path / 'swapchart'}"
        )


def _is_made_by_us(folder: int, is_ours: Callable[[str], bool]) -> bool:
    """Return True if the open *folder* is empty or holds a plain file that *is_ours* names."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name != "lost+found"]
    return not found or any(
        is_ours(entry.name) and entry.is_file(follow_symlinks=False) for entry in found
    )


def open_file(path: Path, flags: int) -> int:
    """Open the file at *path*, made with mode 0600 if *flags* say so, or tightened to that.

    Raises:
        UnsafeFileError: It is a link or no plain file, or belongs to another user.
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
            raise UnsafeFileError(f"{path} is no plain file: remove it")
        _tighten(fd, path, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def tighten_file(path: Path) -> None:
    """Tighten the file at *path* to mode 0600; nothing happens if there is none.

    Raises:
        UnsafeFileError: It is a link or no plain file, or belongs to another user.
        OSError: It cannot be opened.
    """
    try:
        os.close(open_file(path, os.O_RDONLY))
    except FileNotFoundError:
        return


def _tighten(fd: int, path: Path, mode: int) -> None:
    about = os.fstat(fd)
    user = os.geteuid()
    if about.st_uid != user and user != 0:
        raise UnsafeFileError(
            f"{path} belongs to user {about.st_uid}, and this process runs as {user}: "
            "choose another place, or change its owner"
        )
    found = stat.S_IMODE(about.st_mode)
    if found & _OTHERS:
        os.fchmod(fd, found & mode)
        log.warning("%s could be read or written by others: mode %o -> %o", path, found,
                    found & mode)  # fmt: skip
