"""Log lines as JSON objects, for programs that collect logs.

Each object has ``time``, ``level``, ``logger`` and ``message``. Facts that a line is about follow
as members of their own, such as ``model``, ``request`` (its id) and ``swap``: the lines of one
swap, of the models that are evicted and of the one that starts, have the same number.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any

from ..system.log_facts import FACTS, SENTENCE

_OWN = ("time", "level", "logger", "message")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; facts without a value are left out."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        sentence = getattr(record, SENTENCE, None)
        found: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage() if sentence is None else sentence,
        }
        facts = getattr(record, FACTS, None) or {}
        found |= {
            key: round(value, 3) if isinstance(value, float) else value  # seconds, to milliseconds
            for key, value in facts.items()
            if value is not None and value != "" and key not in _OWN
        }  # fmt: skip
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, ensure_ascii=False, default=str)
