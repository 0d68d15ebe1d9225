"""``in(state)`` in expressions, which is true while the state is active."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Collection

#: Tokens after which `in` compares; anywhere else, it begins a test of a state.
_VALUES = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
#: A text in quotes, which is left alone, or a name that may be the datum of a state.
_DATUM = re.compile(r"""'[^']*+'?|"[^"]*+"?|\bin_\w+""")
_NO_VALUES = frozenset({"and", "or", "not", "if", "else"})


def without_state_tests(text: str) -> tuple[str, tuple[str, ...]]:
    """Replace each ``in(state)`` of *text* by the name of the datum ``in_state``.

    Returns:
        The new text, which is *text* if it has none or is no expression, and the states.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text, ()
    states: list[str] = []
    pieces: list[tuple[int, int, str]] = []
    for index, token in enumerate(tokens[:-3]):
        if token.string != "in" or "\n" in text or _is_after_value(tokens, index):
            continue
        opening, name, closing = tokens[index + 1 : index + 4]
        if opening.string == "(" and name.type == tokenize.NAME and closing.string == ")":
            states.append(name.string)
            pieces.append((token.start[1], closing.end[1], f"in_{name.string}"))
    for start, end, new in reversed(pieces):
        text = text[:start] + new + text[end:]
    return text, tuple(dict.fromkeys(states))


def with_state_tests(text: str, states: Collection[str]) -> str:
    """Write the datum ``in_state`` of each of *states* in *text* as ``in(state)``, for readers."""

    def written(found: re.Match[str]) -> str:
        kind, _, state = found[0].partition("_")
        return f"in({state})" if kind == "in" and state in states else found[0]

    return _DATUM.sub(written, text)


def _is_after_value(tokens: list[tokenize.TokenInfo], index: int) -> bool:
    """Return True if the token before *index* ends a value; a `not` before `in` is looked past."""
    before = index - 1
    if before > 0 and tokens[before].string == "not":
        before -= 1
    if before < 0:
        return False
    token = tokens[before]
    return (token.type in _VALUES and token.string not in _NO_VALUES) or token.string == ")"
