"""msgspec decoders of the request fields that routing needs.

A module of their own, since a compiled module cannot hold classes that msgspec makes.
"""

from __future__ import annotations

import msgspec


class RequestFields(msgspec.Struct):
    """The fields of an inference request that the proxy reads."""

    model: str | None = None
    stream: msgspec.Raw = msgspec.Raw(b"")  # of any type; not decoded, which could take memory


REQUEST_FIELDS = msgspec.json.Decoder(RequestFields)


NAME = msgspec.json.Decoder(str)
