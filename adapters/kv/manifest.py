"""Manifest of one model's saved slots, and their quota."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...dataclass import dataclass, field
from ..system.private_files import open_file
from .entry import Entry, by_value
from .files import KvStoreError, SlotFiles, is_name_of_ours, prefix_of

log = logging.getLogger(__name__)

_VERSION = 1
_LONGEST = 16 << 20  # limit of a manifest; characters
_LARGEST = 1e15  # limit of tokens, bytes, milliseconds, seconds since 1970


class ManifestError(KvStoreError):
    """A manifest is invalid, so the contents of the files are unknown."""


@dataclass(slots=True, kw_only=True)
class Manifest:
    """Saved slots of one model, and what was learned about them.

    Attributes:
        model: Id of the model.
        entries: Saved slots, in no order.
        facts: Fingerprint key -> its facts, for every fingerprint that an entry has.
        learned: Fingerprint key -> measurements; see `Effectiveness`.
    """

    model: str
    entries: list[Entry] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    learned: dict[str, dict[str, Any]] = field(default_factory=dict)


class ModelStore:
    """Store of one model's saved slots; its methods block on the disk only.

    Args:
        model: Id of the model.
        folder: Folder in which the server saves, under its name on this host; locked by us.
        disk: Folder of the copies and the manifest; None means *folder*.

    Attributes:
        files: Files of the saved slots.
        manifest: Manifest in memory.
        path: Path of the manifest.
    """

    def __init__(self, model: str, folder: Path, disk: Path | None = None) -> None:
        prefix = prefix_of(model)
        self.files = SlotFiles(folder, prefix, disk)
        self.manifest = Manifest(model=model)
        self.path = (disk or folder) / f"{prefix}.json"

    @property
    def _aside(self) -> Path:
        return self.path.with_suffix(".json.bad")

    # ---- the manifest
    def open(self) -> None:
        """Read the manifest, and remove the files of a save that was killed.

        An invalid manifest is renamed, and its files are removed, because their contents are
        unknown.

        Raises:
            KvStoreError: It cannot be read.
        """
        try:
            self.read()
        except ManifestError as error:
            log.warning("%s: put aside as %s", error, self._aside.name)
            with contextlib.suppress(OSError):
                self.path.replace(self._aside)
        missing = self.files.sweep(entry.file for entry in self.manifest.entries)
        if missing:
            log.warning("%s: %d saved slots are missing", self.manifest.model, len(missing))
            self.manifest.entries = [e for e in self.manifest.entries if e.file not in missing]

    def read(self) -> None:
        """Read the manifest without changing anything.

        Raises:
            ManifestError: It is invalid.
            KvStoreError: It cannot be read.
        """
        self.manifest = Manifest(model=self.manifest.model)
        try:
            value = json.loads(_text_of(self.path))
            self._check_version(value["version"])
            self.manifest = _parse(value, self.manifest.model)
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ManifestError(f"{self.path} is invalid ({error})") from error
        except OSError as error:
            raise KvStoreError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def _check_version(self, version: object) -> None:
        if isinstance(version, int) and version > _VERSION:
            raise KvStoreError(
                f"{self.path} has version {version}, but this program knows {_VERSION}: it was "
                "written by a newer one, and is left unchanged"
            )

    def commit(self, *, is_durable: bool = True) -> None:
        """Write the manifest: to a temporary file, fsync if *is_durable*, then rename.

        Raises:
            KvStoreError: The disk is full or read-only; the old manifest is unchanged.
        """
        keys = {entry.fingerprint for entry in self.manifest.entries}
        facts = {key: value for key, value in self.manifest.facts.items() if key in keys}
        self.manifest.facts = facts
        text = json.dumps({"version": _VERSION, **asdict(self.manifest)}, indent=1)
        temporary = self.path.with_suffix(".tmp")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "w") as file:
                file.write(text)
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise KvStoreError(f"{self.path} cannot be written: {error.strerror}") from error

    # ---- entries; these methods do not write the manifest
    def update(self, *changed: Entry) -> None:
        """Replace the entries of the same files by *changed*."""
        by_file = {entry.file: entry for entry in changed}
        self.manifest.entries = [by_file.get(e.file, e) for e in self.manifest.entries]

    def forget(self, *files: str) -> None:
        """Remove *files* and their entries."""
        self.manifest.entries = [e for e in self.manifest.entries if e.file not in files]
        self.files.remove(*files)

    def flaw(self, entry: Entry) -> str:
        """Return why *entry* must not be restored, without its checksum; empty if it may be."""
        return _flaw(entry, self.files.size(entry.file))

    def verify(self, entry: Entry) -> str:
        """Return what is wrong with *entry*, including its checksum; reads the whole file."""
        try:
            size, digest = self.files.kept(entry.file)
        except OSError as error:
            return str(error)
        return _flaw(entry, size) or ("" if digest == entry.sha256 else "its checksum is wrong")

    def over_quota(
        self, max_bytes: int | None, max_age_s: float | None, now: float | None = None
    ) -> list[Entry]:
        """Return the entries that are too old, and the least valuable ones beyond the limit.

        Args:
            max_bytes: Limit of all files together; None means unlimited.
            max_age_s: Limit of the time since the save; seconds, None means unlimited.
            now: Wall clock; seconds since 1970, None means the present.
        """
        now = time.time() if now is None else now
        gone, total = [], 0
        for entry in by_value(self.manifest.entries):
            is_young = max_age_s is None or now - entry.saved_at <= max_age_s
            if is_young and (max_bytes is None or total + entry.size <= max_bytes):
                total += entry.size
            else:
                gone.append(entry)
        return gone

    def purge(self) -> int:
        """Remove all files of this model; return the size of its saved slots, in bytes."""
        total = sum(entry.size for entry in self.manifest.entries)
        self.manifest = Manifest(model=self.manifest.model)
        self.files.sweep(())
        for path in (self.path, self._aside):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        return total


def _flaw(entry: Entry, found: int) -> str:
    if entry.is_suspect:
        return "a server crashed when it was restored"
    if found < 0:
        return "it is missing"
    return "" if found == entry.size else f"expected {entry.size} bytes, found {found}"


def _text_of(path: Path) -> str:
    with os.fdopen(open_file(path, os.O_RDONLY), encoding="utf-8") as file:
        text = file.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST >> 20} MiB")
    return text


def model_of(path: Path) -> str | None:
    """Return the model whose manifest is at *path*; None if it is no manifest of this program."""
    try:
        name = json.loads(_text_of(path))["model"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return name if isinstance(name, str) and path.name == f"{prefix_of(name)}.json" else None


def _parse(value: Any, model: str) -> Manifest:
    if value["version"] != _VERSION:
        raise ValueError(f"expected version {_VERSION}, got {value['version']!r}")
    if value["model"] != model:
        raise ValueError(f"expected model {model!r}, got {value['model']!r}")
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
        if type(value[name]) not in types:
            raise TypeError(f"{name}: expected {types[0].__name__}, got {value[name]!r}")
        if isinstance(value[name], (int, float)) and not 0 <= value[name] <= _LARGEST:
            raise ValueError(f"{name}: expected a number from 0 to {_LARGEST:g}")
    if not is_name_of_ours(value["file"]):
        raise ValueError(f"file: expected a file name made by swapchart, got {value['file']!r}")
    return Entry(**{name: value[name] for name in _TYPES})
