"""Finds which model a request is for, in a body or a query, without decoding the rest.

A model that is named twice is refused: readers differ in which they take, and a key that is good
for one model must not reach another that way.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, quote_plus, unquote_plus

import msgspec

from .json_edit import EditError, children
from .shapes import ASKING


class BadBodyError(Exception):
    """The body is not what the route needs; the text is for the client."""


_TWICE = "`model` is given twice"


def model_of(body: bytes) -> tuple[str, bool]:
    """Return the ``model`` of a JSON *body*, or "", and whether it asks for a stream.

    The whole body is validated as JSON on the way.

    Raises:
        BadBodyError: It is not a JSON object, or ``model`` is not one text.
    """
    try:
        head = ASKING.decode(body)
    except msgspec.ValidationError as error:
        raise BadBodyError("expected a JSON object") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBodyError(f"the body is not valid JSON: {error}") from error
    # Cheap for nearly all: a second one would have to be spelled out, or with an escape.
    if (body.count(b'"model"') != 1 or body.find(b"\\u006") >= 0) and _count(body) > 1:
        raise BadBodyError(_TWICE)
    if head.model is None:
        return "", head.stream is True
    if not isinstance(head.model, str):
        raise BadBodyError(f"`model` must be a text, got {type(head.model).__name__}")
    return head.model, head.stream is True


def _count(body: bytes) -> int:
    try:
        return sum(child.key == "model" for child in children(body))
    except EditError as error:
        raise BadBodyError(str(error)) from error


def model_of_query(query: bytes) -> str:
    """Return the ``model`` of a query or an urlencoded form, or "".

    Raises:
        BadBodyError: There are several.
    """
    found = {value for name, value in _pairs(query) if name == "model"}
    if len(found) > 1:
        raise BadBodyError(_TWICE)
    return found.pop() if found else ""


def asks_for_stream(query: bytes) -> bool:
    """Tell whether a query asks for a stream."""
    return ("stream", "true") in _pairs(query)


def renamed_query(query: bytes, model: str) -> bytes:
    """Return *query* with *model* as its ``model``, and all else as it was."""
    parts = query.split(b"&")
    for place, part in enumerate(parts):
        name, _, _ = part.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == "model":
            parts[place] = name + b"=" + quote_plus(model).encode()
    return b"&".join(parts)


def _pairs(query: bytes) -> list[tuple[str, str]]:
    return parse_qsl(query.decode("latin-1"), keep_blank_values=True)
