"""One line of the access log for each request."""

from __future__ import annotations

from ..request import Request
from .request_record import RequestRecord

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


def access_log_line(record: RequestRecord) -> bytes:
    """Return the line of the access log for *record*, with its end; text of clients is escaped."""
    request = record.request
    headers = request.cached_headers
    # A query may hold secrets.
    request_line = (request.method, request.path_bytes, request.scope.get("http_version", ""))
    cached = None if headers is None else headers.log_prefix
    if cached is None or cached[0] != request_line:
        cached = (request_line, *_prefix_and_suffix(request, request_line))
        if headers is not None:
            headers.log_prefix = cached
    return b"%b%d %d%b%.3fs request=%b\n" % (
        cached[1], record.status, record.sent_bytes, cached[2], record.ended - record.started,
        request.request_id,
    )  # fmt: skip


def _prefix_and_suffix(
    request: Request, request_line: tuple[str, bytes, str]
) -> tuple[bytes, bytes]:
    """Return the parts of a line of the access log before and after the numbers."""
    method, path, version = request_line
    agent = request.header(b"user-agent")
    prefix = f'Request {request.client} "{method} {path.decode("latin-1")} HTTP/{version}" '
    suffix = f' "{"" if agent is None else agent.decode("latin-1")}" '
    return _escaped(prefix), _escaped(suffix)


def _escaped(text: str) -> bytes:
    safe = text if text.isprintable() else text.translate(_ESCAPES)
    return safe.encode("utf-8", "replace")
