"""Sizes of memory with a unit, such as ``12GiB``: in the configuration and on the command line."""

from __future__ import annotations

import re

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[kKMGT]i?B|%)")
_LONGEST_SIZE = 32
_UNITS = {
    "B": 1,
    **{f"{letter}iB": 1 << shift for letter, shift in zip("KMGT", (10, 20, 30, 40), strict=True)},
    **{f"{letter}B": 10**power for letter, power in zip("kMGT", (3, 6, 9, 12), strict=True)},
    "KB": 1000,
}


def amount_of(text: str) -> tuple[float, str] | None:
    """Return the number of bytes and ``B``, or that of percent and ``%``; None if *text* has none.

    ``0`` needs no unit.
    """
    if text == "0":
        return 0, "B"
    match = SIZE.fullmatch(text) if len(text) <= _LONGEST_SIZE else None
    if match is None:
        return None
    if match[2] == "%":
        return float(match[1]), "%"
    return int(float(match[1]) * _UNITS[match[2].replace("kiB", "KiB")]), "B"


def bytes_of(text: str) -> int | None:
    """Return the bytes that *text* says, such as ``4GiB``; None if it is no size, or a share."""
    found = amount_of(text)
    return None if found is None or found[1] == "%" else int(found[0])
