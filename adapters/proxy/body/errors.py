"""Errors of request bodies that are too large or invalid."""

from __future__ import annotations


class BadBodyError(Exception):
    """The body is invalid for the route; the message is for the client."""


class BodyTooLargeError(Exception):
    """The body exceeds the size limit.

    Attributes:
        limit_bytes: The limit in bytes.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request body is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class UnknownCodingError(Exception):
    """The body has a Content-Encoding that cannot be unpacked."""
