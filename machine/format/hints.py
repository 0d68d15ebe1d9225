"""Suggestions for misspelled names and keys of a chart document."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 64  # characters of a name that is looked up
_SIMILARITY = 0.72


def meant(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the most similar known name, or an empty text."""
    if len(name) > _LONGEST:
        return ""
    import difflib  # slow to import, and needed for problems only

    by_word = {word.lower().replace("-", "_"): word for word in known}
    close = difflib.get_close_matches(
        name.lower().replace("-", "_"), by_word, n=1, cutoff=_SIMILARITY
    )
    return f"; did you mean {by_word[close[0]]!r}?" if close else ""


def choices(known: Iterable[str], most: int = 12) -> str:
    """Return *known* as a list in words, shortened if it is long."""
    names = sorted(known)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
