"""GGUF files with any metadata and tensors, for searches; no engine loads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

_U32, _TEXT = 4, 8
_F32 = 0
_ALIGNMENT = 32


def write_gguf(
    path: Path, architecture: str = "llama", *, tensors: int = 1, elements: int = 8,
    **values: int | str,
) -> Path:  # fmt: skip
    """Write a file and return its path.

    Args:
        path: The file; its folder is made.
        architecture: Value of ``general.architecture``; empty for none.
        tensors: Number of tensors of 32-bit floats.
        elements: Elements of each.
        values: Further metadata; ``__`` in a name stands for a dot.
    """
    pairs: dict[str, int | str] = {"general.architecture": architecture} if architecture else {}
    pairs |= {name.replace("__", "."): value for name, value in values.items()}
    size = -(-elements * 4 // _ALIGNMENT) * _ALIGNMENT
    head = b"GGUF" + struct.pack("<IQQ", 3, tensors, len(pairs)) + _metadata(pairs)
    for number in range(tensors):
        head += _text(f"t{number}") + struct.pack("<IQIQ", 1, elements, _F32, number * size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + bytes(tensors * size))
    return path


def _metadata(pairs: Mapping[str, int | str]) -> bytes:
    return b"".join(
        _text(name)
        + (
            struct.pack("<I", _TEXT) + _text(value) if isinstance(value, str)
            else struct.pack("<II", _U32, value)
        )
        for name, value in pairs.items()
    )  # fmt: skip


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
