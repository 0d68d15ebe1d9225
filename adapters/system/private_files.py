"""Files and folders that only our user may read: made so, tightened, or refused.

What we keep may hold secrets (paths, names, conversations), and whoever may write it decides what
we end or restore. A link that somebody else put in its place is never followed.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)

_OTHERS = 0o077
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a named pipe must not hold us up


class UnsafeFileError(OSError):
    """Somebody else decides what is in a file or folder; the text says what to do."""


def make_folder(path: Path) -> None:
    """Make the folder at *path*, or tighten the one that is there to mode 0700.

    A link to a folder is followed: where the folder lies is its owner's choice.

    Raises:
        UnsafeFileError: It belongs to another user.
        OSError: It cannot be made, or is no folder.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _tighten(fd, path, 0o700)
    finally:
        os.close(fd)


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
