"""Ids of requests, by which clients, logs and the servers of models name the same request.

A client may send one as ``X-Request-ID``. Otherwise, or if what it sends could break a log line or
is too long, the request gets an id that is unique among the runs of this program.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Sequence

REQUEST_ID = "swapchart.request_id"
"""ASGI extension: the id of the request as bytes; the server adds it to the response."""

FIELD = b"x-request-id"
"""Name of the header field, in lower case."""

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_RUN = secrets.token_hex(4).encode() + b"-"
_numbers = itertools.count(1)


def is_request_id(value: bytes) -> bool:
    """Return True if *value* is fit to be logged and passed on as a request id."""
    return _WELL_FORMED.fullmatch(value) is not None


def new_request_id() -> bytes:
    """Return an id that no other request has: of the run of the program, and a number."""
    return b"%b%x" % (_RUN, next(_numbers))


def request_id_of(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the id that a request brings, or a new one if it brings none that is well formed.

    Args:
        headers: Fields of the request; shape (n, 2), names in lower case. Of several ids none
            counts.
    """
    given = [value for name, value in headers if name == FIELD]
    if len(given) == 1 and is_request_id(given[0]):
        return given[0]
    return new_request_id()
