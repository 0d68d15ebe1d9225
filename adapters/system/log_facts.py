"""Log lines with facts: a sentence for people, and values that a program can search for."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping

#: Attributes of a record: facts by name, and its text without them.
FACTS, SENTENCE = "facts", "sentence"


def log_event(
    logger: logging.Logger, level: int, text: str, facts: Mapping[str, object],
    *, unshown: Collection[str] = (),
) -> None:  # fmt: skip
    """Log *text*, on one line, with *facts*.

    Args:
        logger: Writes the line.
        level: Of the line.
        text: May hold anything, also from clients.
        facts: Facts without a value (None, "") are left out.
        unshown: Names of facts for programs only.
    """
    if not logger.isEnabledFor(level):
        return
    shown = " ".join(
        f"{key}={_shown(value)}" for key, value in facts.items()
        if value is not None and value != "" and key not in unshown
    )  # fmt: skip
    sentence = _plain(text)
    line = f"{sentence} ({shown})" if shown else sentence
    logger.log(level, "%s", line, extra={FACTS: dict(facts), SENTENCE: sentence})


def request_fact(request_id: bytes) -> dict[str, object]:
    """Return the ``extra`` of a line about the request with that id."""
    return {FACTS: {"request": request_id.decode("ascii")}}


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}s"
    text = str(value)
    return text if text.isprintable() and not set(text) & set(' "=()') else json.dumps(text)


def _plain(text: str) -> str:
    """Return *text* on one line: the output of a hook ends with a line break, and may hold more."""
    return text if text.isprintable() else json.dumps(text.strip())[1:-1]
