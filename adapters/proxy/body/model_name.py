"""Finds the model of a request in a body or a query, without decoding the rest.

A request that names two models is rejected: parsers differ in which of them they use, and a key for
one model must not reach another one that way.

Functions whose name ends in ``steps`` work in bounded steps, for bodies of any size; see
``json_scan``.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote_plus, unquote_plus

import msgspec

from .decoders import REQUEST_FIELDS, RequestFields
from .errors import BadBodyError
from .json_scan import STEP_BYTES, JsonError, Steps, finished, pieces, walk

#: Maximum length of a model's name in a request, in bytes.
NAME_BYTES = 1024
_AT_ONCE_BYTES = 1 << 22  # takes msgspec up to 6 ms (measured: 0.7 GB/s)
_TWICE = "`model` is given twice"
_TOO_LONG = f"`model` is longer than {NAME_BYTES} bytes"
_MAX_FIELDS = 100  # with the name `model` and the same value, in a query or a form
_MAX_CHARS = 128
_IS_STREAM = msgspec.Raw(b"true")
# Every encoding of "model" after a &.
_FIELD = re.compile(rb"&(?:m|%6[dD])(?:o|%6[fF])(?:d|%64)(?:e|%65)(?:l|%6[cC])")
_FIELD_BYTES = 16


def quoted_name(name: str) -> str:
    """Return *name* for a message, in quotes and truncated if it is long."""
    if len(name) <= _MAX_CHARS:
        return repr(name)
    return f"{name[:_MAX_CHARS]!r}... ({len(name)} characters)"


def model_of(body: bytes) -> tuple[str, bool]:
    """Return the ``model`` of a JSON *body*, or "", and True if it asks for a stream.

    The whole body is validated as JSON.

    Raises:
        BadBodyError: The body is no JSON object, or ``model`` is not a single string.
    """
    fields = _decoded(body)
    if _is_unclear(body) and finished(_count_steps(body)) > 1:
        raise BadBodyError(_TWICE)
    return fields.model or "", fields.stream == _IS_STREAM


def model_steps(body: bytes) -> Steps[tuple[str, bool]]:
    """Do the same as `model_of` in bounded steps.

    Raises:
        BadBodyError: See `model_of`.
    """
    if len(body) <= _AT_ONCE_BYTES:
        fields = _decoded(body)
        if _is_unclear(body):
            yield
            if (yield from _count_steps(body)) > 1:
                raise BadBodyError(_TWICE)
        return fields.model or "", fields.stream == _IS_STREAM
    model, count, stream = "", 0, msgspec.Raw(b"")
    try:
        for piece in pieces(body):
            yield
            if piece is None:
                continue
            fields = _decoded(piece)
            model, stream = fields.model or model, fields.stream or stream
            if piece.find(b'"model"') >= 0 or piece.find(b"\\u006") >= 0:
                count += yield from _count_steps(piece)
                if count > 1:
                    raise BadBodyError(_TWICE)
    except JsonError as error:
        raise BadBodyError(f"the body is not valid JSON: {error}") from error
    return model, stream == _IS_STREAM


def _decoded(body: bytes) -> RequestFields:
    try:
        return REQUEST_FIELDS.decode(body)
    except msgspec.ValidationError as error:
        is_object = body[:STEP_BYTES].lstrip()[:1] == b"{"
        message = "`model` must be a text" if is_object else "expected a JSON object"
        raise BadBodyError(message) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadBodyError(f"the body is not valid JSON: {error}") from error


def _is_unclear(body: bytes) -> bool:
    # Cheap for nearly all: a second one would have to be spelled out, or with an escape.
    return body.count(b'"model"') != 1 or body.find(b"\\u006") >= 0


def _count_steps(body: bytes) -> Steps[int]:
    """Count the members called ``model``, up to two."""
    count = 0
    try:
        for child in walk(body.strip(b" \t\r\n")):
            if child is None:
                yield
            elif child.key == "model":
                count += 1
                if count > 1:
                    break
    except JsonError as error:
        raise BadBodyError(f"the body is not valid JSON: {error}") from error
    return count


# ---- queries and urlencoded forms
def model_of_query(query: bytes) -> str:
    """Return the ``model`` of a query or an urlencoded form, or "".

    Raises:
        BadBodyError: The query names several models.
    """
    return finished(query_steps(query))


def query_steps(query: bytes) -> Steps[str]:
    """Do the same as `model_of_query` in bounded steps.

    Raises:
        BadBodyError: See `model_of_query`.
    """
    places = yield from _place_steps(query)
    values = {query[start:end] for start, end in places}
    if any(len(value) > 3 * NAME_BYTES for value in values):
        raise BadBodyError(_TOO_LONG)
    found = {unquote_plus(value[1:].decode("latin-1")) for value in values}
    if len(found) > 1:
        raise BadBodyError(_TWICE)
    return found.pop() if found else ""


def asks_for_stream(query: bytes) -> bool:
    """Return True if a query asks for a stream."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return ("stream", "true") in pairs


def renamed_query(query: bytes, model: str) -> bytes:
    """Return *query* with *model* as its ``model``, otherwise unchanged."""
    return finished(rename_steps(query, model))


def rename_steps(query: bytes, model: str) -> Steps[bytes]:
    """Do the same as `renamed_query` in bounded steps."""
    value = b"=" + quote_plus(model).encode()
    parts: list[bytes | memoryview] = []
    at = 0
    for start, end in (yield from _place_steps(query)):
        parts += (memoryview(query)[at:start], value)
        at = end
    return b"".join((*parts, memoryview(query)[at:]))


def _place_steps(query: bytes) -> Steps[list[tuple[int, int]]]:
    """Return start and end of each value of ``model``, a "=" before it included."""
    names = [match.end() for match in [_FIELD.match(b"&" + query[:_FIELD_BYTES])] if match]
    names = [end - 1 for end in names]
    places: list[tuple[int, int]] = []
    for at in range(0, len(query), STEP_BYTES):
        for match in _FIELD.finditer(query, at, at + STEP_BYTES + _FIELD_BYTES):
            if match.start() < at + STEP_BYTES:
                names.append(match.end())
        for start in names:
            if query[start : start + 1] in (b"", b"=", b"&"):
                end = query.find(b"&", start)
                places.append((start, len(query) if end < 0 else end))
        names.clear()
        if len(places) > _MAX_FIELDS:
            raise BadBodyError(f"`model` is given more than {_MAX_FIELDS} times")
        yield
    return places
