"""Values of plain YAML scalars, with the types of Go's YAML library instead of YAML 1.1's.

``no`` and ``12:30:45`` are texts, ``1e3`` is a number and ``0777`` is octal, so a configuration
written for llama-swap means the same here. Source: YAML 1.2 core schema (10.3), with yaml.v3's
documented exceptions (octal ``0777``, ``_`` in numbers).
"""

from __future__ import annotations

import math
import re
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None

_WORDS: dict[str, Value] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_START = frozenset("0123456789+-.~tTfFnN")
_INT = re.compile(r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[1-9][0-9_]*|0)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIMESTAMP = re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:(?:[Tt]|[ ]+)\d{1,2}:\d{2}:\d{2}.*)?")
_BOOLS = {
    **dict.fromkeys(("y", "yes", "on", "true"), True),
    **dict.fromkeys(("n", "no", "off", "false"), False),
}
#: Maximum length of a number; a longer one is a text.
_MAX_NUMBER = 300


def resolve(text: str) -> Value:
    """Return the value of the plain scalar *text*."""
    if text and text[0] not in _START:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_NUMBER:
        return text
    if _INT.fullmatch(text):
        return _integer(text)
    digits = text.replace("_", "")
    if _FLOAT.fullmatch(digits):
        return float(digits)
    return text


def is_timestamp(text: str) -> bool:
    """Return True if the plain scalar *text* is a timestamp in YAML; here it is a text."""
    return _TIMESTAMP.fullmatch(text) is not None


def as_bool(text: str) -> bool | None:
    """Return the value of a word that a *boolean* key accepts; None for other words."""
    return _BOOLS.get(text.lower())


def as_text(value: Value, text: str) -> str:
    """Return the text of a scalar where a text is expected.

    Integers are in decimal, booleans in lower case, and floats as their author wrote them (*text*):
    ``3.10`` must not become ``3.1``. A *text* from the environment (it holds tokens of ``source``)
    is not changed; it is filled in at the end.
    """
    if not text.isascii():
        return text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return text


def _integer(text: str) -> Value:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    for prefix, base in (("0x", 16), ("0b", 2), ("0o", 8)):
        if digits.startswith(prefix):
            return sign * int(digits[2:], base) if len(digits) > 2 else text
    if len(digits) > 1 and digits[0] == "0":
        return sign * int(digits, 8)
    return sign * int(digits)
