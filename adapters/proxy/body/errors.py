"""Errors of request bodies: too large, or not what they claim to be."""

from __future__ import annotations


class BadBodyError(Exception):
    """The body is not what the route needs; the text is for the client."""


class BodyTooLargeError(Exception):
    """The body is larger than allowed.

    Attributes:
        limit_bytes: What is allowed.
    """

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the request body is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes
