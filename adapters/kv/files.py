"""Files of one model's saved slots: created before the server writes them, checked, removed.

They are in the folder in which the server saves, its ``--slot-save-path``. If that folder is in
memory, copies are on a disk. We choose the names, and files with other names are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..system.private_files import UnsafeFileError, make_folder, open_file, restrict_file

log = logging.getLogger(__name__)

_SPARE_BYTES = 64 << 20  # free space that a save leaves on a disk
_SPARE_SHARE = 20  # and on a small disk 1/20 of it
_FOLDER_NAME = re.compile(r"swapchart-[0-9a-f]{12}")


class KvStoreError(Exception):
    """The store cannot be used; the text says how to fix it."""


class FolderLock:
    """Lock of a folder: one process owns it, for all of its models.

    Raises:
        KvStoreError: Another process owns it, or it cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_folder(folder)
            self._file = open_file(folder / ".swapchart.lock", os.O_RDWR | os.O_CREAT)
        except UnsafeFileError as error:
            raise KvStoreError(str(error)) from error
        except OSError as error:
            raise KvStoreError(f"{folder} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise KvStoreError(
                f"another swapchart uses {folder}; configure another folder for this proxy"
            ) from error

    def close(self) -> None:
        """Release the folder."""
        os.close(self._file)


def _check_folder(folder: Path) -> None:
    """Restrict a folder that we named; reject a folder of the user that is world-writable.

    Raises:
        UnsafeFileError: Other users could replace our files.
    """
    if _is_named_by_us(folder):
        make_folder(folder, _is_file_of_ours)
        return
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise UnsafeFileError(
            f"every user can write to {folder} and replace the saved caches; run chmod o-w {folder}"
        )


def _is_named_by_us(folder: Path) -> bool:
    """Return True if `prefix_of` made the folder's name; a user's may only begin like that."""
    return _FOLDER_NAME.fullmatch(folder.name) is not None


def _is_file_of_ours(name: str) -> bool:
    return name == ".swapchart.lock" or name.startswith("swapchart-")


def prefix_of(model: str) -> str:
    """Return the prefix of *model*'s file names, a hash: the model's name is in no path."""
    return f"swapchart-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def is_name_of_ours(text: str) -> bool:
    """Return True if *text* is a file name that we make, and not a path."""
    head, dash, tail = text.partition("-")
    return head == "swapchart" and bool(dash) and tail.endswith(".kv") and "/" not in tail


class SlotFiles:
    """Files of one model.

    Args:
        folder: Folder in which the server saves, under its name on this host; locked by us.
        prefix: Prefix of the file names.
        disk: Folder of the copies; None means that *folder* is on a disk itself.
        evicts: If memory is full, files with a copy are removed from it, the oldest first.
    """

    def __init__(
        self, folder: Path, prefix: str, disk: Path | None = None, *, evicts: bool = False
    ) -> None:
        self.folder, self._prefix, self.disk = folder, prefix, disk
        self._evicts = evicts and disk is not None
        self._held = Counter[str]()
        self._lock = threading.Lock()  # saves and restores run in threads

    def path(self, name: str) -> Path:
        """Return the path at which the server reads and writes file *name*."""
        return self.folder / name

    def size(self, name: str) -> int:
        """Return the size of file *name*; bytes, -1 if it is not a regular file."""
        return _size(self.folder / name)

    def reserve(self, expected_bytes: int = 0) -> str:
        """Create an empty file for the server to write, readable by our user only; return its name.

        The server truncates the file and keeps its mode, so its own umask does not matter.

        Raises:
            KvStoreError: The disk is full or read-only.
        """
        name = f"{self._prefix}-{secrets.token_hex(8)}.kv"
        for folder in self._folders():
            if _is_named_by_us(folder):  # it may have been deleted together with the state folder
                with contextlib.suppress(OSError):  # reported below
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_room(folder, expected_bytes)
        try:
            os.close(_create(self.folder / name))
        except OSError as error:
            raise KvStoreError(f"{self.folder} cannot be written: {error.strerror}") from error
        return name

    def digest(self, name: str) -> str:
        """Return the SHA-256 of file *name*, in hexadecimal; copies it from the disk if needed.

        Raises:
            OSError: It cannot be read, or is not a regular file.
            KvStoreError: It does not fit into memory.
        """
        self._fetch(name)
        return _digest(self.folder / name)

    def kept(self, name: str) -> tuple[int, str]:
        """Return size and SHA-256 of file *name*, also if it is only on the disk; never copies.

        Raises:
            OSError: It cannot be read, or is not a regular file.
        """
        is_here = self.disk is None or self.size(name) >= 0
        path = (self.folder if is_here else self.disk or self.folder) / name
        return _size(path), _digest(path)

    def _fetch(self, name: str) -> None:
        if self.disk is not None and self.size(name) < 0 <= _size(self.disk / name):
            self._check_room(self.folder, _size(self.disk / name))
            _copy(self.disk / name, self.folder / name)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep file *name* in memory for the duration of the block, once it is there."""
        with self._lock:
            self._held[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[name] -= 1

    def _check_room(self, folder: Path, wanted: int) -> None:
        if self._evicts and folder == self.folder:
            self._evict(wanted)
        _check_room(folder, wanted)

    def _evict(self, wanted: int) -> None:
        """Remove files from memory that the disk has too, until *wanted* bytes fit."""
        with self._lock:
            for path in sorted(self.folder.glob(f"{self._prefix}-*.kv"), key=_used_ns):
                if not _lack_of_room(self.folder, wanted):
                    return
                if not self._held[path.name] and self._has_copy(path.name):
                    with contextlib.suppress(OSError):  # it counts as used still
                        path.unlink()

    def _has_copy(self, name: str) -> bool:
        return self.disk is not None and 0 <= self.size(name) == _size(self.disk / name)

    def note_use(self, name: str) -> None:
        """Note that file *name* was restored; among files in memory, it is removed last."""
        with contextlib.suppress(OSError):
            path = self.folder / name
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def persist(self, name: str) -> None:
        """Copy file *name* to the disk, unless the copy exists.

        Raises:
            KvStoreError: The disk is full or read-only.
        """
        if self.disk is None or self._has_copy(name):
            return
        try:
            _copy(self.folder / name, self.disk / name)
        except OSError as error:
            raise KvStoreError(f"{self.disk} cannot be written: {error.strerror}") from error

    def sync(self, name: str) -> None:
        """Write file *name* through to the disk, so that a power cut does not damage it.

        Raises:
            KvStoreError: The disk is full or broken.
        """
        try:
            file = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise KvStoreError(f"{name} cannot be written: {error.strerror}") from error

    def remove(self, *names: str) -> None:
        """Remove files *names* and their copies; failures are logged."""
        for name in names:
            for folder in self._folders():
                try:
                    (folder / name).unlink(missing_ok=True)
                except OSError as error:
                    log.warning("%s cannot be removed: %s", folder / name, error.strerror)

    def sweep(self, known: Iterable[str]) -> set[str]:
        """Remove files of this model that are not *known*; return the missing *known* ones."""
        known, found = set(known), set[str]()
        for folder in self._folders():
            with contextlib.suppress(OSError):
                found |= {path.name for path in folder.glob(f"{self._prefix}-*")}
        self.remove(*(found - known))
        for name in found & known:
            for folder in self._folders():
                with contextlib.suppress(OSError):  # anything else counts as missing later
                    restrict_file(folder / name)
        return known - found

    def _folders(self) -> tuple[Path, ...]:
        return (self.folder,) if self.disk is None else (self.folder, self.disk)


def _size(path: Path) -> int:
    try:
        about = path.lstat()
    except OSError:
        return -1
    return about.st_size if stat.S_ISREG(about.st_mode) else -1


def _used_ns(path: Path) -> int:
    try:
        about = path.lstat()
    except OSError:
        return 0
    return max(about.st_atime_ns, about.st_mtime_ns)


def _digest(path: Path) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path.name} is not a regular file")
        return hashlib.file_digest(file, "sha256").hexdigest()


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _check_room(folder: Path, wanted: int) -> None:
    if flaw := _lack_of_room(folder, wanted):
        raise KvStoreError(flaw)


def _lack_of_room(folder: Path, wanted: int) -> str:
    try:
        about = os.statvfs(folder)
    except OSError as error:
        return f"{folder} cannot be read: {error.strerror}"
    free = about.f_bavail * about.f_frsize
    spare = min(_SPARE_BYTES, about.f_blocks * about.f_frsize // _SPARE_SHARE)
    if free < wanted + spare:
        return f"{folder} has {free >> 20} MiB left, and {(wanted + spare) >> 20} MiB are needed"
    return ""


def _copy(source: Path, target: Path) -> None:
    """Copy *source* under a temporary name, and rename the copy once it is on the disk."""
    temporary = target.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with (
            os.fdopen(os.open(source, flags), "rb") as data,
            os.fdopen(_create(temporary), "wb") as copy,
        ):
            shutil.copyfileobj(data, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
