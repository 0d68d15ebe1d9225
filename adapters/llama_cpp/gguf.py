"""GGUF reader: metadata and identity of a model file, without loading it.

Source: ggml/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

Value: TypeAlias = int | float | bool | str

_MAGIC = b"GGUF"
_LONGEST_HEAD = 256 << 20  # a vocabulary of a million long tokens is far smaller
_MOST_PAIRS = 4096
_MOST_STRINGS = 4 << 20  # in all arrays; a vocabulary and its merges have some 500,000
_MOST_ITEMS = 1024  # of an array that is kept: one number a layer; vocabularies are longer
_LONGEST_KEPT = 4096  # bytes of a key or text; longer ones, such as chat templates, are skipped
_BLOCK = 1 << 18
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
#: Type of a tensor -> elements and bytes of a block.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
_ALIGNMENT = 32  # unless the metadata say another one
_MOST_DIMENSIONS = 8
_MOST_TENSORS = 1 << 17  # of one file; the largest models have some 2,000
_SAMPLES, _SAMPLE_BYTES = 256, 16 << 10
_WHOLE_BYTES = 2 * _SAMPLES * _SAMPLE_BYTES  # smaller files are read whole: sampling saves nothing


class GgufError(ValueError):
    """The file is not a readable GGUF file; the text says where reading failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gguf:
    """Metadata of one model file.

    Attributes:
        architecture: Such as ``llama``; empty if the file has none.
        values: Key -> value; arrays and long texts are left out.
        arrays: Key -> numbers of an array of at most 1024, such as one for each layer.
        tensors: Number of tensors; 0 for a file with a vocabulary alone.
    """

    architecture: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)
    arrays: Mapping[str, tuple[int | float | bool, ...]] = field(default_factory=dict)
    tensors: int = 0

    @property
    def sliding_window(self) -> int:
        """Tokens that a layer with a sliding window sees; 0 without such layers."""
        return self.number("attention.sliding_window")

    def number(self, key: str) -> int:
        """Return the number *key* of this architecture; 0 if there is none."""
        found = self.values.get(f"{self.architecture}.{key}", 0)
        is_number = isinstance(found, (int, float)) and math.isfinite(found)
        return int(found) if is_number else 0

    def array(self, key: str) -> tuple[int | float | bool, ...]:
        """Return the array *key* of this architecture; empty if there is none."""
        return self.arrays.get(f"{self.architecture}.{key}", ())


def read_gguf(path: Path) -> Gguf:
    """Read the metadata of *path*.

    Raises:
        GgufError: It is not a GGUF file, or its version is unknown.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return _read_metadata(_Reader(file, path))


def read_complete_gguf(path: Path) -> Gguf:
    """Read the metadata of *path*, and compare the size of the file with what its tensors need.

    A download that was interrupted has all metadata and too few tensors. Tensors of a type that is
    not known here count as empty.

    Raises:
        GgufError: It is not a GGUF file, its version is unknown, or it ends early.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        reader = _Reader(file, path)
        head = _read_metadata(reader)
        if head.tensors > _MOST_TENSORS:
            raise GgufError(f"{path}: expected at most {_MOST_TENSORS} tensors, got {head.tensors}")
        end = max((reader.tensor_end() for _ in range(head.tensors)), default=0)
        alignment = head.values.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0:
            raise GgufError(f"{path}: expected an alignment above 0, got {alignment}")
        needed = -(-file.tell() // alignment) * alignment + end
        size = os.fstat(file.fileno()).st_size
        if end and size < needed:
            raise GgufError(f"{path}: ends early, after {size} of {needed} bytes")
    return head


def _read_metadata(reader: _Reader) -> Gguf:
    reader.magic()
    tensors = reader.number("<Q")
    values: dict[str, Value] = {}
    arrays: dict[str, tuple[int | float | bool, ...]] = {}
    pairs = reader.number("<Q")
    if pairs > _MOST_PAIRS:
        raise GgufError(f"{reader.path}: expected at most {_MOST_PAIRS} values, got {pairs}")
    for _ in range(pairs):
        key = reader.text()
        value = reader.value(reader.number("<I"))
        if key is None or value is None:
            continue
        if isinstance(value, tuple):
            arrays[key] = value
        else:
            values[key] = value
    architecture = values.get("general.architecture", "")
    return Gguf(architecture=str(architecture), values=values, arrays=arrays, tensors=tensors)


class _Reader:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self.path = file, path
        self._limit = min(os.fstat(file.fileno()).st_size, _LONGEST_HEAD)
        self._at = file.tell()
        self._strings = 0

    def magic(self) -> None:
        """Read the magic number and the version."""
        found = self._file.read(len(_MAGIC))
        if found != _MAGIC:
            what = repr(found) if found else "an empty file"
            raise GgufError(f"{self.path}: expected the magic GGUF, found {what}")
        self._at = 4
        version = self.number("<I")
        if version not in (2, 3):
            raise GgufError(f"{self.path}: expected version 2 or 3, got {version}")

    def tensor_end(self) -> int:
        """Read the description of a tensor; return where it ends behind the start of all data."""
        self.text()
        dimensions = self.number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise GgufError(
                f"{self.path}: expected at most {_MOST_DIMENSIONS} dimensions, got {dimensions}"
            )
        elements = math.prod(self.number("<Q") for _ in range(dimensions))
        per_block, size = _BLOCKS.get(self.number("<I"), (1, 0))
        return self.number("<Q") + -(-elements // per_block) * size

    def take(self, size: int) -> bytes:
        self._advance(size)
        data = self._file.read(size)
        if len(data) != size:
            raise self._cut()
        return data

    def skip(self, size: int) -> None:
        self._advance(size)
        self._file.seek(size, os.SEEK_CUR)

    def _advance(self, size: int) -> None:
        if self._at + size > self._limit:
            raise self._cut()
        self._at += size

    def _cut(self) -> GgufError:
        return GgufError(f"{self.path}: ends within its metadata")

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> str | None:
        """Read a text; None if it is longer than `_LONGEST_KEPT`."""
        size = self.number("<Q")
        if size > _LONGEST_KEPT:
            self.skip(size)
            return None
        return self.take(size).decode("utf-8", "replace")

    def value(self, kind: int) -> Value | tuple[int | float | bool, ...] | None:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        form = _SCALARS.get(kind)
        if form is None:
            raise GgufError(f"{self.path}: unknown type of value {kind}")
        found: Value = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return found

    def _array(self) -> tuple[int | float | bool, ...] | None:
        """Read an array of numbers; None if it is longer than `_MOST_ITEMS`, or of texts."""
        kind, count = self.number("<I"), self.number("<Q")
        if kind in _SCALARS:
            form = _SCALARS[kind]
            size = struct.calcsize(form) * count
            if count <= _MOST_ITEMS:
                return struct.unpack(f"<{count}{form[1:]}", self.take(size))
            self.skip(size)
            return None
        if kind != _STRING:  # allowed, but no known writer nests arrays
            raise GgufError(f"{self.path}: unexpected type of items {kind}")
        self._strings += count
        if self._strings > _MOST_STRINGS:
            raise GgufError(f"{self.path}: expected at most {_MOST_STRINGS} texts in arrays")
        self._skip_strings(count)
        return None

    def _skip_strings(self, count: int) -> None:
        """Skip *count* texts in blocks; two reads for each take seven times as long."""
        size_of = struct.Struct("<Q").unpack_from
        while count:
            block = self._file.read(min(_BLOCK, self._limit - self._at))
            at = 0
            while count and at + 8 <= len(block):
                at += 8 + size_of(block, at)[0]
                count -= 1
            if at == 0:
                raise self._cut()
            self._advance(at)
            self._file.seek(self._at)


def file_identity(path: Path) -> str:
    """Return an identifier of the file at *path*: size, modification time, and samples.

    256 pieces of 16 KiB, evenly spread, are hashed (a file below 8 MiB completely), which takes
    milliseconds whatever the size. A fine-tune of the same shape differs in most pieces; one that
    differs in none would also need the same modification time, to the nanosecond.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        size = about.st_size
        if size <= _WHOLE_BYTES:
            digest.update(file.read())
        else:
            for number in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return f"{size}-{about.st_mtime_ns}-{digest.hexdigest()[:32]}"


def shards(path: Path) -> list[Path]:
    """Return all files of a model split as ``name-00001-of-00003.gguf``; otherwise *path*."""
    stem, mark, count = path.stem.rpartition("-of-")
    head, dash, number = stem.rpartition("-")
    if not (mark and dash and len(number) == len(count) == 5 and (number + count).isdecimal()):
        return [path]
    total = int(count)
    return [path.with_name(f"{head}-{i:05}-of-{count}{path.suffix}") for i in range(1, total + 1)]
