r"""Command strings: comments, continued lines, and splitting into argv without a shell.

Source: POSIX.1-2017, Shell Command Language, 2.2 Quoting, as llama-swap applies it: no
expansion, no comment inside a line. ``shlex`` is not used, because it keeps the backslash in
``"\$"`` and cannot say where a quote was opened.
"""

from __future__ import annotations

import re

from ...machine.errors import SwapchartError

_SPACE = re.compile(r"[ \t\n]+")
_PLAIN = re.compile(r"[^ \t\n'\"\\]+")
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\([$`"\\])|\\\n')


class UnterminatedQuoteError(SwapchartError):
    """A quote is opened and never closed.

    Attributes:
        line: Line of the text in which it is opened, from 0.
        quote: ``'`` or ``"``.
    """

    def __init__(self, line: int, quote: str) -> None:
        super().__init__(f"the quote {quote} in line {line + 1} of the command is never closed")
        self.line, self.quote = line, quote


def strip_comments(text: str) -> str:
    """Return *text* without the lines that begin with ``#`` (after white space)."""
    if "#" not in text:
        return text
    return "\n".join(line for line in text.split("\n") if not line.strip().startswith("#"))


def split_command(text: str) -> tuple[str, ...]:
    """Split *text* into program and arguments as a POSIX shell would, without expansion.

    Lines that begin with ``#`` are dropped, and a backslash continues a line. A line break
    separates arguments. The result is empty if nothing is left.

    Raises:
        UnterminatedQuoteError: A quote is never closed.
    """
    return tuple(word for word, _ in _words(text))


def literal_words(text: str) -> frozenset[str]:
    """Return the words of *text* that are quoted as a whole, beginning with a single quote.

    A shell expands nothing in single quotes, and `shlex.quote` writes words so.

    Raises:
        UnterminatedQuoteError: A quote is never closed.
    """
    return frozenset(word for word, is_literal in _words(text) if is_literal)


def _words(text: str) -> list[tuple[str, bool]]:
    """Return the words of a command, each with True for `literal_words`."""
    kept: list[str] = []
    numbers: list[int] = []  # numbers of the remaining lines
    for number, line in enumerate(text.split("\n")):
        bare = line.strip()
        if not bare.startswith("#"):
            kept.append(f"{bare[:-1]} " if bare.endswith("\\") else line)
            numbers.append(number)
    try:
        return _tokens("\n".join(kept))
    except UnterminatedQuoteError as error:
        raise UnterminatedQuoteError(numbers[error.line], error.quote) from error


def _tokens(text: str) -> list[tuple[str, bool]]:
    tokens: list[tuple[str, bool]] = []
    quotes = ""  # first sign of each piece of the current token
    pieces: list[str] = []  # pieces of the current token; a quoted empty text is a piece too
    at = 0
    while at < len(text):
        if space := _SPACE.match(text, at):
            if pieces:
                tokens.append(("".join(pieces), _is_literal(quotes)))
                pieces, quotes = [], ""
            at = space.end()
        else:
            quotes += text[at]
            piece, at = _piece(text, at)
            pieces.append(piece)
    if pieces:
        tokens.append(("".join(pieces), _is_literal(quotes)))
    return tokens


def _is_literal(quotes: str) -> bool:
    return quotes.startswith("'") and not quotes.strip("'\"")


def _piece(text: str, at: int) -> tuple[str, int]:
    """Return the unquoted, quoted or escaped piece that begins at *at*, and its end."""
    first = text[at]
    if first == "\\":
        following = text[at + 1 : at + 2]
        return ("" if following == "\n" else following or "\\"), at + 2
    if first in "'\"":
        match = (_SINGLE if first == "'" else _DOUBLE).match(text, at)
        if match is None:
            raise UnterminatedQuoteError(text.count("\n", 0, at), first)
        inner = match[1]
        if first == '"' and "\\" in inner:
            inner = _ESCAPED.sub(lambda m: m[1] or "", inner)
        return inner, match.end()
    plain = _PLAIN.match(text, at)
    if plain is None:
        raise AssertionError(first)
    return plain[0], plain.end()
