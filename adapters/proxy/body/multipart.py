"""Scanner of multipart forms: finds the model in a form that passes through. Pure.

The scanner gets the body in chunks and returns the range of bytes that holds the value of
``model``, so that the caller can replace just these. Nothing else is buffered or rewritten.

Source: RFC 7578 and RFC 2046 section 5.1. Lines end with CRLF, as both demand.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from ....dataclass import dataclass
from .errors import BadBodyError
from .model_name import (
    NAME_BYTES,
    quoted_name,
)

_PARTS_MAX = 100
_HEADER_BYTES = 8192  # of one part
_PADDING_BYTES = 256  # spaces after a boundary
_KIND = re.compile(r'[^;"]*+')
_PARAMETER = re.compile(r';\s*+([^=;\s"]++)\s*+=\s*+("[^"\\]*+(?:\\.[^"\\]*+)*"|[^;\s"]*+)\s*+')
_ESCAPED = re.compile(r"\\(.)")
_END = re.compile(r";?+\s*+")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

_State: TypeAlias = Literal["data", "boundary", "headers", "end"]


@dataclass(frozen=True, slots=True)
class FieldValue:
    """The value of the field ``model``.

    Attributes:
        value: The value.
        start: Offset of its first byte in the body.
        end: Offset after its last byte.
    """

    value: str
    start: int
    end: int


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary that a Content-Type of ``multipart/form-data`` names.

    Raises:
        BadBodyError: There is no valid boundary.
    """
    kind, _, rest = content_type.decode("latin-1").partition(";")
    found = parameters(f"{kind};{rest}").get("boundary", "")
    if not _BOUNDARY.fullmatch(found):
        raise BadBodyError("expected a valid boundary in the Content-Type of a form")
    return found.encode("latin-1")


def parameters(value: str) -> dict[str, str]:
    """Return the parameters of a header such as Content-Disposition, names in lower case.

    Raises:
        BadBodyError: A parameter is given twice, or the header is malformed.
    """
    found: dict[str, str] = {}
    kind = _KIND.match(value)
    at = 0 if kind is None else kind.end()
    while (parameter := _PARAMETER.match(value, at)) is not None:
        name, text = parameter[1].lower(), parameter[2]
        if name in found:
            raise BadBodyError(f"a form gives {quoted_name(name)} twice in one header")
        is_quoted = text.startswith('"')
        found[name] = _ESCAPED.sub(r"\1", text[1:-1]) if is_quoted else text
        at = parameter.end()
    if not _END.fullmatch(value, at):
        raise BadBodyError("a part of the form has a malformed header")
    return found


class MultipartScanner:
    """Scans the body of a form in chunks of any size.

    Attributes:
        model: The field ``model``; None until its part is complete.
        is_complete: The last boundary was found.
        parts: Number of parts that have begun.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # the first boundary has no line before it
        self._offset = -2  # of the buffer in the body
        self._state: _State = "data"
        self._name: str | None = None  # of the current part; None without one, or for a file
        self._value = b""
        self._start = -1  # of the part's data
        self.model: FieldValue | None = None
        self.is_complete = False
        self.parts = 0

    def feed(self, data: bytes) -> None:
        """Scan the next chunk of the body.

        Raises:
            BadBodyError: The body is no valid form, has too many or too long headers, or has two
                models.
        """
        if self._state == "end":
            return  # the epilogue, which is ignored
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            BadBodyError: The last boundary is missing.
        """
        if not self.is_complete:
            raise BadBodyError("the form ends in the middle")

    def _step(self) -> bool:
        """Scan up to the next delimiter; return True if the buffer may hold another."""
        match self._state:
            case "data":
                return self._scan_data()
            case "boundary":
                return self._scan_boundary()
            case "headers":
                return self._scan_headers()
            case _:
                self._buffer = b""
                return False

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self._offset += count
        return taken

    def _scan_data(self) -> bool:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            keep = len(self._delimiter) - 1
            if len(self._buffer) > keep:
                self._check_start()
                self._note(self._take(len(self._buffer) - keep))
            return False
        self._check_start()
        self._note(self._take(at))
        if self._name == "model":
            self._found(self._offset)
        self._name = None
        self._take(len(self._delimiter))
        self._state = "boundary"
        return True

    def _check_start(self) -> None:
        """Reject a part without a body: parsers differ in whether a boundary follows it."""
        if self._offset == self._start and self._buffer.startswith(self._delimiter[2:]):
            raise BadBodyError("a part of the form has no empty line after its headers")

    def _note(self, data: bytes) -> None:
        if self._name == "model":
            self._value += data
            if len(self._value) > NAME_BYTES:
                raise BadBodyError(f"`model` is longer than {NAME_BYTES} bytes")

    def _found(self, end: int) -> None:
        if self.model is not None:
            raise BadBodyError("`model` is given twice")
        try:
            value = self._value.decode()
        except UnicodeDecodeError as error:
            raise BadBodyError("`model` is not UTF-8") from error
        self.model = FieldValue(value, self._start, end)

    def _scan_boundary(self) -> bool:
        if self._buffer.startswith(b"--"):
            self._state, self.is_complete = "end", True
            return True
        line = self._buffer.find(b"\r\n")
        if line < 0:
            if len(self._buffer) > _PADDING_BYTES:
                raise BadBodyError("expected the end of a line after a boundary of the form")
            return False
        if self._buffer[:line].strip(b" \t"):
            raise BadBodyError("the form has text after a boundary")
        self._take(line)  # the end of the line stays: the part may have no headers
        self.parts += 1
        if self.parts > _PARTS_MAX:
            raise BadBodyError(f"the form has more than {_PARTS_MAX} parts")
        self._state = "headers"
        return True

    def _scan_headers(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if self._buffer[2:4] == b"\r\n":
            end = 0
        if end > _HEADER_BYTES or (end < 0 and len(self._buffer) > _HEADER_BYTES):
            raise BadBodyError(
                f"the headers of a part of the form are longer than {_HEADER_BYTES} bytes"
            )
        if end < 0:
            return False
        headers = self._take(end)
        self._take(4)
        self._name, self._value, self._start = _name_of(headers), b"", self._offset
        self._state = "data"
        return True


def _name_of(headers: bytes) -> str | None:
    """Return the name of a part that is a field; None for files and unnamed parts."""
    found: str | None = None
    seen = False
    for line in headers.decode("utf-8", "replace").split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            if seen:
                raise BadBodyError("a part of the form has two Content-Disposition headers")
            seen = True
            given = parameters(value)
            found = None if "filename" in given else given.get("name")
    return found


_FORM = b"multipart/form-data"


def is_form(kind: bytes | None) -> bool:
    """Return True for the Content-Type of a multipart form."""
    return kind is not None and kind[: len(_FORM)].lower() == _FORM
