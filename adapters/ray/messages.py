"""Messages between the proxy and its sidecar: JSON objects, one a line.

A request has a number ``n`` and the name of a method (``do``); its response has the same number and
``result``, or ``error`` (a kind) and ``text``. Events have no number: ``engine``, ``node``,
``process`` and ``busy``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]


def encode(message: Mapping[str, Any]) -> bytes:
    """Return *message* as one line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineBuffer:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that *data* completes; lines that are no message are skipped."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join([*self._parts, lines[0]])
            self._parts.clear()
        self._parts.append(rest)
        found = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                found.append(message)
        return found
