"""One line of the access log for each request."""

from __future__ import annotations

from ..request import Request
from .request_record import RequestRecord

_NO_LINES = {code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


def access_log_line(exchange: RequestRecord) -> str:
    """Return the line of the access log for *exchange*; what clients sent cannot break it."""
    request = exchange.request
    head = request.cached_headers
    # A query may hold secrets.
    asked = (request.method, request.path_bytes, request.scope.get("http_version", ""))
    told = None if head is None else head.log_prefix
    if told is None or told[0] != asked:
        told = (asked, *_ends_of_line(request, asked))
        if head is not None:
            head.log_prefix = told
    return (
        f"{told[1]}{exchange.status} {exchange.sent_bytes}{told[2]}"
        f"{exchange.ended - exchange.started:.3f}s"
    )


def _ends_of_line(request: Request, asked: tuple[str, bytes, str]) -> tuple[str, str]:
    """Return what stands before and behind the figures in a line of the access log."""
    method, path, version = asked
    agent = request.header(b"user-agent")
    before = f'Request {request.client} "{method} {path.decode("latin-1")} HTTP/{version}" '
    behind = f' "{"" if agent is None else agent.decode("latin-1")}" '
    return _on_one_line(before), _on_one_line(behind)


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else text.translate(_NO_LINES)
