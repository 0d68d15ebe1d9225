"""Tokens of a saved slot, read from its file, to tell conversations apart. Pure.

Source: llama.cpp, ``llama_state_seq_save_file``: magic ``ggsq``, version, count, that many 32-bit
words; then the state. Since multimodal prompts are saved (2026), the words are -1, 1, the number
of tokens, the tokens, and other data. Any other layout is rejected.
"""

from __future__ import annotations

import os
import struct
from array import array
from pathlib import Path

_MAGIC = 0x67677371
_HEAD = struct.Struct("<III")
_LONGEST = 1 << 24


def read_tokens(path: Path, expected: int) -> array[int] | None:
    """Return the tokens in the slot file at *path*; None if its layout is unknown.

    Args:
        path: File that the server wrote.
        expected: Number of tokens that the server reported.

    Raises:
        OSError: It cannot be read.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        magic, _, count = _HEAD.unpack(head)
        if magic != _MAGIC or count > _LONGEST:
            return None
        words = array("i", _whole(file.read(4 * count)))
    if len(words) == count and list(words[:3]) == [-1, 1, expected]:
        words = words[3 : 3 + expected]
    return words if len(words) == expected else None


def common_prefix(one: array[int], two: array[int]) -> int:
    """Return the length of the common prefix of *one* and *two*; tokens."""
    low, high = 0, min(len(one), len(two))
    while low < high:  # Python compares slices in C, which is faster than comparing items
        middle = (low + high + 1) // 2
        if one[low:middle] == two[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _whole(data: bytes) -> bytes:
    return data[: len(data) // 4 * 4]
