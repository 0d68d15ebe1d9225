"""``in(state)`` in expressions, which is true while the state is active."""

from __future__ import annotations

import io
import tokenize

#: Tokens after which `in` compares; anywhere else, it begins a test of a state.
_VALUES = (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
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


def _is_after_value(tokens: list[tokenize.TokenInfo], index: int) -> bool:
    """Return True if the token before *index* ends a value; a `not` before `in` is looked past."""
    before = index - 1
    if before > 0 and tokens[before].string == "not":
        before -= 1
    if before < 0:
        return False
    token = tokens[before]
    return (token.type in _VALUES and token.string not in _NO_VALUES) or token.string == ")"
