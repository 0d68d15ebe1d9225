"""Looks through a multipart form as it passes, and finds which model it is for. Pure.

Nothing is collected or rebuilt: the scanner is fed the body piece by piece and tells between which
bytes the value of ``model`` stands. Whoever feeds it may replace just these.

Source: RFC 7578 and RFC 2046 section 5.1. Lines end with CRLF, as both demand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .errors import BadBodyError
from .model_name import (
    NAME_BYTES,
    shown_name,
)

_PARTS_MAX = 100
_HEAD_BYTES = 8192  # of one part
_PADDING_BYTES = 256  # spaces after a boundary
_KIND = re.compile(r'[^;"]*+')
_PARAMETER = re.compile(r';\s*+([^=;\s"]++)\s*+=\s*+("(?:[^"\\]++|\\.)*+"|[^;\s"]*+)\s*+')
_ESCAPED = re.compile(r"\\(.)")
_END = re.compile(r";?+\s*+")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

_State: TypeAlias = Literal["data", "boundary", "head", "end"]


@dataclass(frozen=True, slots=True)
class FieldValue:
    """The value of ``model``.

    Attributes:
        value: Itself.
        start: Where it begins; offset from the start of the body, in bytes.
        end: Where it ends.
    """

    value: str
    start: int
    end: int


def boundary_of(content_type: bytes) -> bytes:
    """Return the boundary that a Content-Type of ``multipart/form-data`` names.

    Raises:
        BadBodyError: It names none that is valid.
    """
    kind, _, rest = content_type.decode("latin-1").partition(";")
    found = parameters(f"{kind};{rest}").get("boundary", "")
    if not _BOUNDARY.fullmatch(found):
        raise BadBodyError("expected a valid boundary in the Content-Type of a form")
    return found.encode("latin-1")


def parameters(value: str) -> dict[str, str]:
    """Return the parameters of a field such as Content-Disposition, names in lower case.

    Raises:
        BadBodyError: One of them is given twice, or the field is malformed.
    """
    found: dict[str, str] = {}
    kind = _KIND.match(value)
    at = 0 if kind is None else kind.end()
    while (parameter := _PARAMETER.match(value, at)) is not None:
        name, text = parameter[1].lower(), parameter[2]
        if name in found:
            raise BadBodyError(f"a form gives {shown_name(name)} twice in one field")
        is_quoted = text.startswith('"')
        found[name] = _ESCAPED.sub(r"\1", text[1:-1]) if is_quoted else text
        at = parameter.end()
    if not _END.fullmatch(value, at):
        raise BadBodyError("a form has a malformed field in its head")
    return found


class MultipartScanner:
    """Takes the body of a form in pieces of any size.

    Attributes:
        model: None until the part ``model`` has passed.
        is_complete: The last boundary has passed.
        parts: How many parts have begun.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # the first boundary needs no line before it
        self._offset = -2  # of the buffer in the body
        self._state: _State = "data"
        self._name: str | None = None  # of the part that passes; None: no field, or no part yet
        self._value = b""
        self._start = -1  # of the part's data
        self.model: FieldValue | None = None
        self.is_complete = False
        self.parts = 0

    def feed(self, data: bytes) -> None:
        """Look through the next piece of the body.

        Raises:
            BadBodyError: It is no form, too long in its parts' heads, or has two models.
        """
        if self._state == "end":
            return  # an epilogue, which nobody reads
        self._buffer += data
        while self._step():
            pass

    def finish(self) -> None:
        """Say that no more comes.

        Raises:
            BadBodyError: The last boundary is missing.
        """
        if not self.is_complete:
            raise BadBodyError("the form ends in the middle")

    def _step(self) -> bool:
        """Go on as far as one mark; tells whether there may be another in the buffer."""
        match self._state:
            case "data":
                return self._pass_data()
            case "boundary":
                return self._pass_boundary()
            case "head":
                return self._pass_head()
            case _:
                self._buffer = b""
                return False

    def _take(self, count: int) -> bytes:
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        self._offset += count
        return taken

    def _pass_data(self) -> bool:
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
        """Refuse a part that is all head: some readers see a boundary there, and some do not."""
        if self._offset == self._start and self._buffer.startswith(self._delimiter[2:]):
            raise BadBodyError("a part of the form has no empty line after its head")

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

    def _pass_boundary(self) -> bool:
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
        self._take(line)  # the line's end stays: it may be all of the part's head
        self.parts += 1
        if self.parts > _PARTS_MAX:
            raise BadBodyError(f"the form has more than {_PARTS_MAX} parts")
        self._state = "head"
        return True

    def _pass_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if self._buffer[2:4] == b"\r\n":
            end = 0
        if end > _HEAD_BYTES or (end < 0 and len(self._buffer) > _HEAD_BYTES):
            raise BadBodyError(f"the head of a form's part is longer than {_HEAD_BYTES} bytes")
        if end < 0:
            return False
        head = self._take(end)
        self._take(4)
        self._name, self._value, self._start = _name_of(head), b"", self._offset
        self._state = "data"
        return True


def _name_of(head: bytes) -> str | None:
    """Return the name of a part that is a plain field; None for files and unnamed parts."""
    found: str | None = None
    seen = False
    for line in head.decode("utf-8", "replace").split("\r\n"):
        field, _, value = line.partition(":")
        if field.strip().lower() == "content-disposition":
            if seen:
                raise BadBodyError("a form's part has two Content-Disposition fields")
            seen = True
            given = parameters(value)
            found = None if "filename" in given else given.get("name")
    return found


_FORM = b"multipart/form-data"


def is_form(kind: bytes | None) -> bool:
    """Tell whether a Content-Type is that of a form with parts."""
    return kind is not None and kind[: len(_FORM)].lower() == _FORM
