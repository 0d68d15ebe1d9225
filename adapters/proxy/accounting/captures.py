"""Whole requests and answers, the last ones, in memory: for people who look into what went on.

Room is counted in bytes and the oldest go first. Credentials are left out at once; texts are not,
which is why captures can be switched off and are never written to disk.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, TypeAlias

from ...http1.asgi_types import Headers
from ..body.json_scan import Steps
from ..formatting import redacted_headers
from .request_record import RequestRecord
from .token_usage import decoded

Redacted: TypeAlias = Callable[[dict[str, str]], dict[str, str]]
_Part: TypeAlias = Literal["request", "answer"]

#: Bodies that are not kept: sound and pictures, which would drive out everything else.
_LEFT_OUT: dict[str, frozenset[_Part]] = {
    "/v1/audio/speech": frozenset({"answer"}),
    "/v1/images/generations": frozenset({"answer"}),
    "/sdapi/v1/txt2img": frozenset({"answer"}),
    "/v1/audio/voices": frozenset({"request"}),
    "/v1/audio/transcriptions": frozenset({"request"}),
    "/v1/images/edits": frozenset({"request", "answer"}),
    "/sdapi/v1/img2img": frozenset({"request", "answer"}),
}
_NONE_LEFT_OUT: frozenset[_Part] = frozenset()
_STEP_BYTES = 3 << 18  # a multiple of three: base64 of pieces is that of the whole
_FIELD_BYTES = 512  # at least so much is counted for the fields of a capture and its path
_OVERHEAD_BYTES = 512  # of one capture besides, more or less


@dataclass(slots=True)
class Capture:
    """One request and its answer.

    Attributes:
        id: Number of its row among activities.
        model: Name under which the request is counted.
        path: What was asked for.
        request_headers: Fields of the request; see `_packed`.
        answer_headers: Fields of the answer; likewise.
        request: Body as it was sent on.
        answer: Body as it came, maybe compressed.
        size: The room it takes; bytes.
    """

    id: int
    model: str
    path: str
    request_headers: bytes
    answer_headers: bytes
    request: bytes = field(repr=False)
    answer: bytes = field(repr=False)
    size: int

    def steps(self, redacted: Redacted) -> Steps[list[bytes]]:
        """Return it as the API shows it: JSON, in pieces.

        Args:
            redacted: Hides what must not be shown in the fields of the request.
        """
        headers = _unpacked(self.answer_headers)
        encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
        answer = decoded(self.answer, encoding)
        shown = [item for item in headers if item[0] != b"content-encoding"]
        request = {
            "id": self.id,
            "req_path": self.path,
            "req_headers": redacted(redacted_headers(_unpacked(self.request_headers))),
        }
        parts = [_json(request)[:-1], b',"req_body":"']
        parts += yield from _in_base64(self.request)
        parts += [b'",', _json({"resp_headers": redacted_headers(shown)})[1:-1], b',"resp_body":"']
        parts += yield from _in_base64(answer or b"")
        parts.append(b'"}')
        return parts


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _in_base64(data: bytes) -> Steps[list[bytes]]:
    parts = []
    for at in range(0, len(data), _STEP_BYTES):
        parts.append(base64.b64encode(data[at : at + _STEP_BYTES]))
        yield
    return parts


class Captures:
    """The last captures, as many as there is room for.

    Args:
        room_bytes: 0: none are kept.
    """

    def __init__(self, room_bytes: int) -> None:
        self._room = room_bytes
        self._kept: dict[int, Capture] = {}
        self._order: deque[int] = deque()
        self._size = 0

    @property
    def is_on(self) -> bool:
        """Tell whether any are kept."""
        return self._room > 0

    @property
    def longest(self) -> int:
        """Return how much of an answer is worth keeping; bytes."""
        return self._room // 4

    def __contains__(self, number: object) -> bool:
        """Tell whether the capture of that number is still there."""
        return number in self._kept

    def get(self, number: int) -> Capture | None:
        """Return the capture of that number, or None when it is gone."""
        return self._kept.get(number)

    def resize(self, room_bytes: int) -> None:
        """Take more room, or less."""
        self._room = room_bytes
        self._make_room()

    def take(self, number: int, exchange: RequestRecord) -> bool:
        """Keep what is worth keeping of *exchange*; tells whether anything is."""
        if not self.is_on or not exchange.answer_headers:
            return False
        left_out = _LEFT_OUT.get(exchange.path, _NONE_LEFT_OUT)
        has_failed = exchange.status != 200
        has_request = not has_failed and "request" not in left_out
        has_answer = not has_failed and "answer" not in left_out and exchange.is_whole
        request = (exchange.body or b"") if has_request else b""
        answer = b"".join(exchange.body_chunks) if has_answer else b""
        asked, answered = _packed(exchange.request.headers), _packed(exchange.answer_headers)
        fields = len(asked) + len(answered) + len(exchange.path)
        size = len(request) + len(answer) + max(fields, _FIELD_BYTES) + _OVERHEAD_BYTES
        if size > self._room:
            return False
        self._kept[number] = Capture(
            number, exchange.model, exchange.path, asked, answered, request, answer, size
        )
        self._order.append(number)
        self._size += size
        self._make_room()
        return True

    def _make_room(self) -> None:
        while self._size > self._room:
            self._size -= self._kept.pop(self._order.popleft()).size


def _packed(headers: Headers) -> bytes:
    """Return *headers* as one object: thousands are kept, and each object costs time to free."""
    return b"\0".join(chain.from_iterable(headers))  # no field holds a NUL


def _unpacked(data: bytes) -> Headers:
    parts = data.split(b"\0")
    return list(zip(parts[::2], parts[1::2], strict=False))
