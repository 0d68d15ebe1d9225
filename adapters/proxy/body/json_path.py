r"""Paths into JSON values, in the syntax of sjson, which llama-swap uses.

``a.b`` is member b of member a. A number is an index into a list; ``-1`` or nothing is the index
after its end. A backslash takes the next character as it is, and ``:7`` is the member "7".

A path with an unescaped ``#``, ``*``, ``?``, ``@`` or ``|`` adds nothing, it leads to what exists:
``#`` stands for all items of a list, and in a name ``*`` for any characters, ``?`` for one. Other
than in sjson, such a path can be removed, ``#`` may occur twice, and there are no queries
(``#(role=="user")``), modifiers and pipes.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import NamedTuple

from ....dataclass import dataclass

_DIGITS = re.compile(r"[0-9]*")
_SPECIAL = frozenset("#*?@|")


class Segment(NamedTuple):
    """One segment of a path.

    Attributes:
        name: Name of a member, or digits of an index.
        is_key: It is a name even if it is a number.
        pattern: Regular expression that the name of a member must match; empty means it is *name*.
    """

    name: str
    is_key: bool = False
    pattern: str = ""

    @property
    def is_index(self) -> bool:
        """Return True if the segment makes a list where there is nothing; also for ``-1``."""
        return not self.is_key and (self.name == "-1" or bool(_DIGITS.fullmatch(self.name)))

    @property
    def is_end(self) -> bool:
        """Return True if the segment is the index after the end of a list."""
        return not self.is_key and self.name in ("", "-1")

    @property
    def is_each(self) -> bool:
        """Return True if the segment stands for all items of a list."""
        return self.name == "#" and not self.is_key

    def fits(self, name: str) -> bool:
        """Return True if a member called *name* is meant."""
        return bool(re.match(self.pattern, name)) if self.pattern else name == self.name


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A path, parsed.

    Attributes:
        segments: Shape (n,), n >= 1.
        replaces_only: Nothing is added where the path leads to nothing.
    """

    segments: tuple[Segment, ...]
    replaces_only: bool = False

    def __str__(self) -> str:
        return ".".join(segment.name for segment in self.segments)


def parse_path(text: str) -> JsonPath:
    """Return the path that *text* is."""
    parts = _split(text)
    is_special = any(char in _SPECIAL for part in parts for char in part)
    return JsonPath(tuple(_segment(part, is_special) for part in parts), is_special)


def _segment(chars: list[str], is_special: bool) -> Segment:
    """Return the segment of *chars*; a colon is no prefix in a path that *is_special*."""
    is_key = chars[:1] == [":"] and not is_special
    if is_key:
        chars = chars[1:]
    name = "".join(char[-1] for char in chars)
    if "*" in chars or "?" in chars:
        return Segment(name, pattern=translate("".join(map(_glob, chars))))
    return Segment(name, is_key or chars == ["\\#"])


def _split(text: str) -> list[list[str]]:
    """Split at dots; an escaped character stays with its backslash."""
    parts: list[list[str]] = [[]]
    chars = iter(text)
    for char in chars:
        if char == ".":
            parts.append([])
        elif char == "\\":
            escaped = next(chars, "")
            if escaped:
                parts[-1].append("\\" + escaped)
        else:
            parts[-1].append(char)
    return parts


def _glob(char: str) -> str:
    """Return *char* in the syntax of fnmatch, in which brackets are special too."""
    if char in ("*", "?"):
        return char
    return f"[{char[-1]}]" if char[-1] in "*?[" else char[-1]
