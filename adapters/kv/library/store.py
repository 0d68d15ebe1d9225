"""Files of a library: each conversation is a slot file and a description, a JSON file beside it.

A conversation exists once its description does, which is written last and replaced by rename. Slot
files without a description are what a killed process has left, and are removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ...system.private_files import open_file
from ..files import KvStoreError, SlotFiles, prefix_of
from .conversation import Conversation, NewerVersionError

log = logging.getLogger(__name__)

_LONGEST = 1 << 20  # of a description; a conversation of a million tokens needs 256 KiB
_SUFFIX = ".json"


def library_prefix(model: str) -> str:
    """Return the prefix of the names of *model*'s files; earlier versions leave them alone."""
    return f"{prefix_of(model)}.c"


class ConversationStore:
    """Store of the conversations of one model; its methods block on the disk only.

    Args:
        model: Id of the model.
        folder: Folder in which the server saves, under its name on this host; locked by us.
        disk: Folder of copies and descriptions; None means *folder*.

    Attributes:
        files: Files of the saved slots.
    """

    def __init__(self, model: str, folder: Path, disk: Path | None = None) -> None:
        self._model, self._prefix = model, library_prefix(model)
        self._disk = disk or folder
        self.files = SlotFiles(folder, self._prefix, disk, evicts=True)

    def read(self) -> list[Conversation]:
        """Return all conversations without changing anything.

        Raises:
            KvStoreError: The folder cannot be read, or a newer program wrote a description.
        """
        return [one for _, one in self._read() if one is not None]

    def open(self) -> list[Conversation]:
        """Return all conversations; remove invalid descriptions, and files without a valid one.

        Raises:
            KvStoreError: As `read`; then nothing was removed.
        """
        found = self._read()
        valid = {one.file: one for _, one in found if one is not None}
        for path, one in found:
            if one is None:
                log.warning("%s is invalid: its conversation is removed", path)
                path.unlink(missing_ok=True)
        missing = self.files.sweep([*valid, *(name + _SUFFIX for name in valid)])
        for name in missing & valid.keys():
            del valid[name]
            self._unlink(name)
        if missing & valid.keys():
            log.warning("%s: %d conversations are missing", self._model, len(missing))
        return list(valid.values())

    def _read(self) -> list[tuple[Path, Conversation | None]]:
        try:
            paths = sorted(self._disk.glob(f"{self._prefix}-*{_SUFFIX}"))
        except OSError as error:
            raise KvStoreError(f"{self._disk} cannot be read: {error.strerror}") from error
        return [(path, self._parsed(path)) for path in paths]

    def _parsed(self, path: Path) -> Conversation | None:
        try:
            with os.fdopen(open_file(path, os.O_RDONLY), encoding="utf-8") as file:
                text = file.read(_LONGEST + 1)
            found = Conversation.parse(text)
        except NewerVersionError as error:
            raise KvStoreError(
                f"{path} has {error}: it was written by a newer program, and is left unchanged"
            ) from error
        except (OSError, ValueError) as error:
            log.debug("%s: %s", path, error)
            return None
        is_ours = found.model == self._model and path.name == found.file + _SUFFIX
        return found if is_ours else None

    def write(self, one: Conversation, *, is_durable: bool) -> None:
        """Write the description of *one*: to a temporary file, fsync if *is_durable*, then rename.

        Raises:
            KvStoreError: The disk is full or read-only; an earlier description is unchanged.
        """
        path = self._disk / (one.file + _SUFFIX)
        temporary = path.with_suffix(".part")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(one.text())
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise KvStoreError(f"{path} cannot be written: {error.strerror}") from error

    def remove(self, files: Iterable[str]) -> None:
        """Remove the conversations in *files*; failures are logged."""
        for name in files:
            self._unlink(name)  # first, so that no description lacks its file
            self.files.remove(name)

    def _unlink(self, name: str) -> None:
        try:
            (self._disk / (name + _SUFFIX)).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", name + _SUFFIX, error.strerror)

    def verify(self, one: Conversation) -> str:
        """Return what is wrong with *one*, including its checksum; reads the whole file."""
        try:
            size, digest = self.files.kept(one.file)
        except OSError as error:
            return error.strerror or str(error)
        if size != one.size:
            return f"expected {one.size} bytes, found {size}"
        return "" if digest == one.sha256 else "its checksum is wrong"

    def purge(self) -> int:
        """Remove all conversations; return their size in bytes."""
        total = 0
        for path in self._disk.glob(f"{self._prefix}-*{_SUFFIX}"):
            one = self._parsed_or_none(path)
            total += 0 if one is None else one.size
            path.unlink(missing_ok=True)
        self.files.sweep(())
        return total

    def _parsed_or_none(self, path: Path) -> Conversation | None:
        try:
            return self._parsed(path)
        except KvStoreError:
            return None
