"""A stored conversation as a value, and its JSON. Pure."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ....dataclass import dataclass

VERSION = 1
_LARGEST = 1e15
_WORST_MISSES = 2
_MOST_OPENINGS = 8


class DescriptionError(ValueError):
    """A description is invalid."""


class NewerVersionError(DescriptionError):
    """The file was written by a newer version of this program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation in a file.

    Attributes:
        file: File name within the folder.
        model: Id of the model.
        fingerprint: Key of the fingerprint under which it was saved.
        hashes: Chain of its last prompt; see `Chain`.
        tokens: Number of tokens in the file, > 0.
        size: Size of the file; bytes.
        sha256: Checksum of the file; hexadecimal.
        saved_at: Wall clock; seconds since 1970.
        used_at: Last use, by a request; wall clock, seconds since 1970.
        save_ms: Duration of the save.
        restore_ms: Duration of its last restore; None before the first.
        restores: Number of restores.
        saved_ms: Prefill time that its restores have saved, less their own time.
        misses: Number of restores in a row that were of no use.
        is_suspect: A restore of it began and did not end; it may have crashed the server.
        words: Beginning of the first text of its user.
        openings: Hashes of what its prompt begins with; see `openings_of`.
    """

    file: str
    model: str
    fingerprint: str
    hashes: Sequence[int]
    tokens: int
    size: int
    sha256: str
    saved_at: float
    used_at: float
    save_ms: float = 0.0
    restore_ms: float | None = None
    restores: int = 0
    saved_ms: float = 0.0
    misses: int = 0
    is_suspect: bool = False
    words: str = ""
    openings: Sequence[int] = (0,)

    @property
    def is_useless(self) -> bool:
        """True if its last restores were of no use."""
        return self.misses >= _WORST_MISSES

    def restored(self, cached: int, wanted: int, saved_ms: float, now: float) -> Conversation:
        """Return it after a restore, of whose *wanted* tokens a response has reused *cached*."""
        return replace(
            self, restores=self.restores + 1, used_at=now, saved_ms=self.saved_ms + saved_ms,
            misses=0 if 2 * cached >= wanted else self.misses + 1,
        )  # fmt: skip

    def text(self) -> str:
        """Return it as JSON."""
        value = {name: getattr(self, name) for name in _TYPES}
        data = array("Q", self.hashes).tobytes().hex()
        more = {"hashes": data, "openings": list(self.openings)}
        return json.dumps({"version": VERSION, **value, **more})

    @staticmethod
    def parse(text: str) -> Conversation:
        """Return the conversation that *text* describes.

        Raises:
            NewerVersionError: A newer program wrote it.
            DescriptionError: It is invalid.
        """
        try:
            value = json.loads(text)
            is_number = type(value["version"]) is int
            if is_number and value["version"] > VERSION:
                raise NewerVersionError(f"version {value['version']}, expected {VERSION}")
            if not is_number or value["version"] != VERSION:
                raise ValueError(f"expected version {VERSION}, got {value['version']!r}")
            return _conversation(value)
        except NewerVersionError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DescriptionError(f"{type(error).__name__}: {error}") from error


_TYPES: Mapping[str, tuple[type, ...]] = {
    "file": (str,), "model": (str,), "fingerprint": (str,), "tokens": (int,), "size": (int,),
    "sha256": (str,), "saved_at": (int, float), "used_at": (int, float),
    "save_ms": (int, float), "restore_ms": (int, float, type(None)), "restores": (int,),
    "saved_ms": (int, float), "misses": (int,), "is_suspect": (bool,), "words": (str,),
}  # fmt: skip


def _conversation(value: dict[str, Any]) -> Conversation:
    for name, types in _TYPES.items():
        if type(value[name]) not in types:
            raise TypeError(f"{name}: expected {types[0].__name__}, got {value[name]!r:.40}")
        if isinstance(value[name], (int, float)) and not abs(value[name]) <= _LARGEST:
            raise ValueError(f"{name}: expected a number up to {_LARGEST:g}")
    hashes = array("Q")
    hashes.frombytes(bytes.fromhex(value["hashes"]))
    openings = tuple(value.get("openings", (0,)))
    if not all(type(one) is int and 0 <= one < 1 << 64 for one in openings[:_MOST_OPENINGS]):
        raise ValueError(f"openings: expected numbers, got {openings!r:.40}")
    values = {name: value[name] for name in _TYPES}
    return Conversation(hashes=hashes, openings=openings[:_MOST_OPENINGS], **values)
