"""Captures: the last requests with their responses, in memory, for troubleshooting.

Memory is limited in bytes, and the oldest captures are dropped first. Credentials are removed at
once. Texts are not, so captures can be switched off and are never written to disk.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from ...http1.asgi_types import Headers
from ...http1.repeated_head import packed
from ..body.json_scan import Steps
from ..formatting import redacted_headers
from .request_record import RequestRecord
from .token_usage import decoded

Redacted: TypeAlias = Callable[[dict[str, str]], dict[str, str]]
_Part: TypeAlias = Literal["request", "response"]

#: Bodies that are not captured: audio and images, which would displace everything else.
_EXCLUDED: dict[str, frozenset[_Part]] = {
    "/v1/audio/speech": frozenset({"response"}),
    "/v1/images/generations": frozenset({"response"}),
    "/sdapi/v1/txt2img": frozenset({"response"}),
    "/v1/audio/voices": frozenset({"request"}),
    "/v1/audio/transcriptions": frozenset({"request"}),
    "/v1/images/edits": frozenset({"request", "response"}),
    "/sdapi/v1/img2img": frozenset({"request", "response"}),
}
_NONE_EXCLUDED: frozenset[_Part] = frozenset()
_STEP_BYTES = 3 << 18  # a multiple of three, so that encoded chunks can be joined
_MIN_HEADER_BYTES = 512  # counted for the headers and the path of a capture, at least
_OVERHEAD_BYTES = 512  # of the objects of one capture, approximately


class Capture:
    """One request with its response.

    Attributes:
        id: Id of its row in the activity.
        model: Name of the model in records and metrics.
        path: Path of the request.
        request_id: X-Request-ID of the request and its response.
        request_headers: Headers of the request, see `repeated_head.packed`.
        response_headers: Headers of the response, likewise.
        request: Body as it was forwarded.
        response: Body as it was received, maybe compressed.
        size: Memory that it takes, in bytes.
    """

    __slots__ = (
        "id", "model", "path", "request", "request_headers", "request_id", "response",
        "response_headers", "size",
    )  # fmt: skip

    def __init__(
        self, number: int, record: RequestRecord, headers: tuple[bytes, bytes], request: bytes,
        response: bytes, size: int,
    ) -> None:  # fmt: skip
        self.id, self.size = number, size
        self.model, self.path, self.request_id = (
            record.model, record.path, record.request.request_id,
        )  # fmt: skip
        self.request_headers, self.response_headers = headers
        self.request, self.response = request, response

    def steps(self, redacted: Redacted) -> Steps[list[bytes]]:
        """Return the body of ``/api/captures/{id}`` in chunks.

        Args:
            redacted: Removes keys from the headers of the request.
        """
        headers = _unpacked(self.response_headers)
        encoding = next((value for name, value in headers if name == b"content-encoding"), b"")
        response = decoded(self.response, encoding)
        visible = [item for item in headers if item[0] != b"content-encoding"]
        request = {
            "id": self.id,
            "request_id": self.request_id.decode(),
            "req_path": self.path,
            "req_headers": redacted(redacted_headers(_unpacked(self.request_headers))),
        }
        parts = [_json(request)[:-1], b',"req_body":"']
        parts += yield from _in_base64(self.request)
        parts += [
            b'",',
            _json({"resp_headers": redacted_headers(visible)})[1:-1],
            b',"resp_body":"',
        ]
        parts += yield from _in_base64(response or b"")
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
    """The last captures, within a limit of memory.

    Args:
        limit_bytes: Memory for all captures; 0 means that none are kept.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept: dict[int, Capture] = {}
        self._order: deque[int] = deque()
        self._size = 0

    @property
    def is_on(self) -> bool:
        """Return True if captures are kept."""
        return self._limit > 0

    @property
    def max_response_bytes(self) -> int:
        """Return the maximum size of a response that is captured, in bytes."""
        return self._limit // 4

    def __contains__(self, number: object) -> bool:
        """Return True if the capture with the id *number* is kept."""
        return number in self._kept

    def get(self, number: int) -> Capture | None:
        """Return the capture with the id *number*, or None."""
        return self._kept.get(number)

    def resize(self, limit_bytes: int) -> None:
        """Change the memory limit; drop the oldest captures beyond it."""
        self._limit = limit_bytes
        self._make_room()

    def add(self, number: int, record: RequestRecord) -> bool:
        """Capture *record*; return False if it cannot be captured."""
        if not self.is_on:
            return False
        excluded = _EXCLUDED.get(record.path, _NONE_EXCLUDED)
        has_begun = record.status == 200 or (record.headers_at > 0 and record.code != "")
        has_request = "request" not in excluded
        has_response = has_begun and "response" not in excluded and record.is_whole
        request = (record.body or b"") if has_request else b""
        response = b"".join(record.body_chunks) if has_response else b""
        headers = record.packed_headers
        if headers is None:
            headers = packed(record.request.headers), packed(record.response_headers)
        header_bytes = len(headers[0]) + len(headers[1]) + len(record.path)
        size = len(request) + len(response) + max(header_bytes, _MIN_HEADER_BYTES) + _OVERHEAD_BYTES
        if size > self._limit:
            return False
        self._kept[number] = Capture(number, record, headers, request, response, size)
        self._order.append(number)
        self._size += size
        self._make_room()
        return True

    def _make_room(self) -> None:
        while self._size > self._limit:
            self._size -= self._kept.pop(self._order.popleft()).size


def _unpacked(data: bytes) -> Headers:
    parts = data.split(b"\0")
    return list(zip(parts[::2], parts[1::2], strict=False))
