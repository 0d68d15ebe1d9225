r"""Configuration files as text: bounded, UTF-8, with ``${env.X}`` and ``$${`` masked.

Before parsing, a reference to a variable is not replaced by its value but by a *token* of the same
length, made of private-use characters. So positions stay right, a value can never change the
structure of the document or be expanded again, and a problem or an export can show the reference
instead of a secret value. `EnvironmentValues` turns tokens into values at the very end.

Deviation from llama-swap, which pastes the value into the text (with ``\`` and ``"`` escaped) and
scans the result again: here a value is taken literally.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

from ....machine.errors import SwapchartError

#: Maximum size of a file; bytes.
MAX_FILE_BYTES = 4 << 20

_KINDS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
_OPEN, _CLOSE, _DOLLAR = "\uf8f0", "\uf8f1", "\uf8f2"
_REFERENCE = re.compile(r"(?<!\$)\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_ANY_REFERENCE = re.compile(r"\$\{[a-zA-Z0-9_.-]+\}")
_TOKEN = re.compile(f"{_OPEN}{{6}}([A-Za-z_][A-Za-z0-9_]*){_CLOSE}")
_HIDDEN = re.compile(f"{_TOKEN.pattern}|{_DOLLAR}")
_RESERVED = re.compile(f"[{_OPEN}{_CLOSE}{_DOLLAR}]")


class Source:
    """Text of one file, as it is parsed and as its author wrote it.

    Attributes:
        name: File name as it was given; shown in problems.
        text: Document with tokens in place of variables.
        raw: Document as it was read.
    """

    def __init__(self, name: str, raw: str) -> None:
        self.name, self.raw = name, raw
        self.text = _REFERENCE.sub(lambda m: _OPEN * 6 + m[1] + _CLOSE, raw)
        self._places: dict[str, list[tuple[int, int]]] | None = None

    def find(self, reference: str, line: int, end_line: int) -> tuple[int, int] | None:
        """Return line and column (from 1) of ``${reference}`` between two lines, both included."""
        if self._places is None:  # one pass finds all; one search per reference is quadratic
            self._places = {}
            for number, text in enumerate(self.raw.split("\n"), 1):
                if "${" in text:
                    for found in _ANY_REFERENCE.finditer(text):
                        places = self._places.setdefault(found[0], [])
                        places.append((number, found.start() + 1))
        places = self._places.get(reference, [])
        index = bisect_left(places, (line, 0))
        return places[index] if index < len(places) and places[index][0] <= end_line else None


class UnreadableError(SwapchartError):
    """A file is not a readable text; the message says why."""


def read_source(path: Path) -> Source:
    """Read the file at *path*.

    Raises:
        UnreadableError: It is absent, no plain file, too big, or not UTF-8.
    """
    try:
        data = _plain_bytes(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UnreadableError(f"cannot be read: {reason}") from error
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableError(f"expected at most {MAX_FILE_BYTES >> 20} MiB, found more")
    try:
        raw = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"expected UTF-8, found byte {error.start} that is not") from error
    if found := _RESERVED.search(raw):
        line = raw.count("\n", 0, found.start()) + 1
        raise UnreadableError(f"line {line} holds U+{ord(found[0]):04X}, which is kept for our use")
    return Source(str(path), raw.replace("\r\n", "\n"))


def _plain_bytes(path: Path) -> bytes:
    # A named pipe would block the reader, and is empty when it is read again.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        kind = stat.S_IFMT(os.fstat(fd).st_mode)
        if kind != stat.S_IFREG:
            what = _KINDS.get(kind, "something else")
            raise UnreadableError(f"cannot be read: expected a plain file, found {what}")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)


def hide_escapes(text: str) -> str:
    """Replace each ``$${``, the escape of a literal ``${``, by characters that no macro matches."""
    return text.replace("$${", _DOLLAR) if "$${" in text else text


def shown(text: str) -> str:
    """Return *text* as its author wrote it, without values of the environment."""
    if text.isascii():
        return text
    return _HIDDEN.sub(lambda m: f"${{env.{m[1]}}}" if m[1] else "$${", text)


def variables(text: str) -> list[str]:
    """Return the names of the variables that *text* refers to."""
    return _TOKEN.findall(text)


class EnvironmentValues:
    """Variables for ``${env.X}``.

    Args:
        variables: Name -> value.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def __contains__(self, name: object) -> bool:
        """Return True if there is a variable *name*."""
        return name in self._variables

    def fill(self, text: str) -> str:
        """Return the final *text*: tokens become values and ``$${`` becomes ``${``.

        The reference to an unusable variable stays in the text; `problems` reports it.
        """
        if text.isascii():  # fast path: tokens are not ASCII
            return text
        return _HIDDEN.sub(self._value, text)

    def problems(self, text: str) -> list[tuple[str, str]]:
        """Return (reference, problem) for each unusable variable of *text*."""
        if _OPEN not in text:
            return []
        found = []
        for name in dict.fromkeys(_TOKEN.findall(text)):
            value = self._variables.get(name)
            if value is None:
                found.append((f"${{env.{name}}}", f"environment variable '{name}' is not set"))
            elif re.search(r"[\n\r\0]", value):
                why = "contains a line break or a NUL character"
                found.append((f"${{env.{name}}}", f"environment variable '{name}' {why}"))
        return found

    def _value(self, match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        return self._variables.get(name, f"${{env.{name}}}")
