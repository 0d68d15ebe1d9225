"""Decoder of the request fields that routing needs, made by msgspec.

In a module of its own: msgspec makes these classes, and a compiled module makes its own.
"""

from __future__ import annotations

import msgspec


class Asking(msgspec.Struct):
    """A request: for which model, and whether as a stream."""

    model: str | None = None
    stream: msgspec.Raw = msgspec.Raw(b"")  # of any type, and not built: that may take memory


ASKING = msgspec.json.Decoder(Asking)


NAME = msgspec.json.Decoder(str)
