"""Saved slots of one model on disk: a manifest, the files it names, and nothing else.

The server writes only into its own ``--slot-save-path``, so the files lie there. Names are made by
us; what others put into the same folder is never touched. A file that the manifest does not name
is one that a killed save left, and goes at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .entry import Entry, by_value

log = logging.getLogger(__name__)

_VERSION = 1
_BLOCK = 1 << 20
_SPARE_BYTES = 64 << 20  # a save must not take the last of a disk


class KvStoreError(Exception):
    """The store cannot be used; the text says what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much may be kept for one model.

    Attributes:
        max_bytes: Of all its files; None is without limit.
        max_age_s: Since a file was saved; None is without limit.
    """

    max_bytes: int | None = None
    max_age_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Manifest:
    """What is known of one model's saved slots.

    Attributes:
        model: Whose they are.
        entries: The most valuable first.
        facts: Fingerprint key -> its facts, of every fingerprint that an entry has.
        learned: Fingerprint key -> what was measured; see ``proof.Record``.
    """

    model: str
    entries: list[Entry] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)


class FolderLock:
    """One folder for one process; the models of a process share it.

    Raises:
        KvStoreError: Another process has it, or the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(folder / ".swapchart.lock", flags, 0o600)
        except OSError as error:
            raise KvStoreError(f"{folder} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise KvStoreError(
                f"another swapchart works in {folder}: give each proxy a folder of its own"
            ) from error

    def close(self) -> None:
        """Let others have it."""
        os.close(self._file)


def prefix_of(model: str) -> str:
    """Return how the names of *model*'s files begin: nothing of its name is in a path."""
    return f"swapchart-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


class ModelStore:
    """The saved slots of one model; its methods do not wait for anything but the disk.

    Args:
        folder: Where the server saves, as we see it; it is ours (`FolderLock`).
        model: Name of the model.
        quota: How much may be kept.

    Attributes:
        manifest: What there is.
    """

    def __init__(self, folder: Path, model: str, quota: Quota | None = None) -> None:
        self.folder, self.quota = folder, quota or Quota()
        self._prefix = prefix_of(model)
        self._path = folder / f"{self._prefix}.json"
        self.manifest = Manifest(model=model)

    def open(self) -> None:
        """Read the manifest, and remove what a killed save left and what is too old.

        A manifest that cannot be read is put aside, and its files go: nothing tells any more what
        is in them.

        Raises:
            KvStoreError: The folder cannot be read.
        """
        try:
            self.manifest = _read(self._path, self.manifest.model)
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError) as error:
            aside = self._path.with_suffix(".json.bad")
            log.warning("%s: cannot be read (%s): put aside as %s", self._path, error, aside.name)
            with contextlib.suppress(OSError):
                self._path.replace(aside)
        except OSError as error:
            raise KvStoreError(f"{self._path} cannot be read: {error.strerror}") from error
        self._sweep()
        self.enforce_quota()

    def _sweep(self) -> None:
        known = {entry.file for entry in self.manifest.entries}
        found = set()
        for path in self.folder.glob(f"{self._prefix}-*"):
            found.add(path.name)
            if path.name not in known:
                self._unlink(path.name)
        lost = known - found
        if lost:
            self.manifest.entries = [e for e in self.manifest.entries if e.file not in lost]

    # ---- saving
    def reserve(self, expected_bytes: int = 0) -> str:
        """Make an empty file, for our user only, that the server may write; returns its name.

        The server truncates what is there and keeps its mode, so its own umask does not count.

        Raises:
            KvStoreError: The disk is full or read-only.
        """
        name = f"{self._prefix}-{secrets.token_hex(8)}.kv"
        try:
            about = os.statvfs(self.folder)
            free = about.f_bavail * about.f_frsize
            if free < expected_bytes + min(_SPARE_BYTES, about.f_blocks * about.f_frsize // 20):
                raise KvStoreError(
                    f"{self.folder} has {free >> 20} MiB left, and a save would need "
                    f"{expected_bytes >> 20} MiB: nothing is saved, what was saved is kept"
                )
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self.folder / name, flags, 0o600))
        except OSError as error:
            raise KvStoreError(f"{self.folder} cannot be written: {error.strerror}") from error
        return name

    def size(self, name: str) -> int:
        """Return the size of file *name*; bytes, 0 when there is none."""
        try:
            return (self.folder / name).lstat().st_size
        except OSError:
            return 0

    def path(self, name: str) -> Path:
        """Return where file *name* lies."""
        return self.folder / name

    def digest(self, name: str) -> str:
        """Return the SHA-256 of file *name*, in hexadecimal.

        Raises:
            OSError: It cannot be read, or is no plain file.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with os.fdopen(os.open(self.folder / name, flags), "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(f"{name} is no plain file")
            return hashlib.file_digest(file, "sha256").hexdigest()

    def discard(self, *names: str) -> None:
        """Remove files of ours that the manifest does not name any more."""
        known = {entry.file for entry in self.manifest.entries}
        for name in names:
            if name not in known:
                self._unlink(name)

    # ---- restoring
    def flaw(self, entry: Entry) -> str:
        """Say why the file of *entry* must not be offered to a server; empty when it may be."""
        if entry.is_suspect:
            return "a server crashed while it restored this file"
        found = self.size(entry.file)
        if found != entry.size:
            return f"expected {entry.size} bytes, found {found}"
        try:
            digest = self.digest(entry.file)
        except OSError as error:
            return str(error)
        return "" if digest == entry.sha256 else "its checksum is wrong"

    # ---- the manifest
    def commit(self, *, is_durable: bool = True) -> None:
        """Write the manifest: a temporary file, fsync where *is_durable*, rename.

        Raises:
            KvStoreError: The disk is full or read-only; the old manifest is still there.
        """
        keys = {entry.fingerprint for entry in self.manifest.entries}
        facts = {key: value for key, value in self.manifest.facts.items() if key in keys}
        self.manifest.facts = facts
        value = {"version": _VERSION, **asdict(self.manifest)}
        temporary = self.folder / f"{self._prefix}.tmp"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
                json.dump(value, file, indent=1)
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            temporary.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise KvStoreError(f"{self._path} cannot be written: {error.strerror}") from error

    def update(self, *changed: Entry) -> None:
        """Put *changed* in the place of the entries of the same files."""
        by_file = {entry.file: entry for entry in changed}
        self.manifest.entries = [by_file.get(e.file, e) for e in self.manifest.entries]

    def forget(self, *files: str) -> None:
        """Remove the entries of *files* and the files; the manifest is not written yet."""
        self.manifest.entries = [e for e in self.manifest.entries if e.file not in files]
        self.discard(*files)

    def enforce_quota(self, now: float | None = None) -> list[Entry]:
        """Remove what is too old, then the least valuable beyond the limit; returns these."""
        now = time.time() if now is None else now
        quota, kept, total = self.quota, list[Entry](), 0
        for entry in by_value(self.manifest.entries):
            is_young = quota.max_age_s is None or now - entry.saved_at <= quota.max_age_s
            fits = quota.max_bytes is None or total + entry.size <= quota.max_bytes
            if is_young and fits:
                kept.append(entry)
                total += entry.size
        files = {entry.file for entry in kept}
        gone = [entry for entry in self.manifest.entries if entry.file not in files]
        self.manifest.entries = kept
        self.discard(*(entry.file for entry in gone))
        return gone

    def purge(self) -> int:
        """Remove everything of this model; returns how many bytes that were."""
        total = 0
        self.manifest = Manifest(model=self.manifest.model)
        for path in [*self.folder.glob(f"{self._prefix}-*"), self._path]:
            total += self.size(path.name)
            self._unlink(path.name)
        return total

    def _unlink(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: cannot be removed: %s", self.folder / name, error.strerror)


def _read(path: Path, model: str) -> Manifest:
    value = json.loads(path.read_text())
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        raise ValueError(f"expected version {_VERSION}")
    if value["model"] != model:
        raise ValueError(f"expected model {model!r}")
    return Manifest(
        model=model,
        entries=[_entry(item) for item in value["entries"]],
        facts={str(key): dict(facts) for key, facts in value["facts"].items()},
        learned={str(key): dict(learned) for key, learned in value["learned"].items()},
    )


_TYPES: Mapping[str, tuple[type, ...]] = {
    "file": (str,), "fingerprint": (str,), "tokens": (int,), "size": (int,), "sha256": (str,),
    "saved_at": (int, float), "save_ms": (int, float), "restore_ms": (int, float, type(None)),
    "misses": (int,), "is_suspect": (bool,),
}  # fmt: skip


def _entry(value: Any) -> Entry:
    for name, types in _TYPES.items():
        if not isinstance(value[name], types):
            raise TypeError(f"{name}: expected {types[0].__name__}, got {value[name]!r}")
    if "/" in value["file"] or not value["file"].startswith("swapchart-"):
        raise ValueError(f"file: expected a name of ours, got {value['file']!r}")
    return Entry(**{name: value[name] for name in _TYPES})


def without_suspicion(entries: Iterable[Entry]) -> list[Entry]:
    """Return *entries* after restores that ended well."""
    return [replace(entry, is_suspect=False) for entry in entries]
