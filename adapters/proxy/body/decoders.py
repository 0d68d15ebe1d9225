"""TODO adapters/proxy/body/decoders.py."""

from __future__ import annotations

import msgspec


class Asking(msgspec.Struct):
    """A request: for which model, and whether as a stream."""

    model: str | None = None
    stream: msgspec.Raw = msgspec.Raw(b"")  # of any type, and not built: that may take memory


ASKING = msgspec.json.Decoder(Asking)


NAME = msgspec.json.Decoder(str)
