"""Files of the web UI, from one folder.

No file outside the folder is read, and the pages may load content from this proxy only.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from ...http1.asgi_types import Headers, Send
from ...system import threads
from ..context import ProxyContext
from ..request import Request
from ..responses import send_bytes, send_error, send_text

_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "style-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_SAFETY: Headers = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]
_COMPRESSED = frozenset({".css", ".html", ".js", ".svg", ".txt"})
_SMALL = 1000  # bytes: smaller files take one packet anyway


async def root(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Redirect a browser to the UI."""
    await send_text(send, "see the location\n", 302, [(b"location", request.root_path + b"/ui")])


async def folder(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Redirect a browser to the folder of the UI."""
    await send_text(send, "see the location\n", 301, [(b"location", request.root_path + b"/ui/")])


async def models_page(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Redirect a browser to the UI's list of models."""
    await send_text(
        send, "see the location\n", 302, [(b"location", request.root_path + b"/ui/models")]
    )


async def file(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send a file of the UI; a path without a dot is a page of the application, index.html.

    The page names its files relative to its own address, so an address below a page leads to it.
    """
    name = request.path_suffix
    page, slash, rest = name.partition("/")
    if slash and "." not in rest.rpartition("/")[2]:
        location = "../" * name.count("/") + quote(page, safe="")
        await send_text(send, "see the location\n", 302, [(b"location", location.encode())])
        return
    await _send_file(proxy, request, send, name or "index.html")


async def icon(proxy: ProxyContext, request: Request, send: Send) -> None:
    """Send the UI's icon."""
    await _send_file(proxy, request, send, "favicon.ico")


async def _send_file(proxy: ProxyContext, request: Request, send: Send, name: str) -> None:
    root_ = proxy.options.ui_root
    if root_ is None:
        await send_error(request, send, 404, "this installation has no web UI")
        return
    accepts_gzip = b"gzip" in (request.header(b"accept-encoding") or b"")
    found = await threads.run(_read, root_, name, accepts_gzip)
    if found is None and "." not in name and "/" not in name:
        found = await threads.run(_read, root_, "index.html", accepts_gzip)
    if found is None:
        await send_error(request, send, 404, f"no such file: {name}")
        return
    path, data, is_compressed, tag = found
    headers = [*_SAFETY, (b"etag", tag), (b"vary", b"accept-encoding")]
    if is_compressed:
        headers.append((b"content-encoding", b"gzip"))
    if request.header(b"if-none-match") == tag:
        await send({"type": "http.response.start", "status": 304, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    import mimetypes

    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if kind.startswith("text/") or kind == "application/javascript":
        kind += "; charset=utf-8"
    await send_bytes(send, 200, data, kind.encode(), headers)


def _read(root_: Path, name: str, accepts_gzip: bool) -> tuple[Path, bytes, bool, bytes] | None:
    """Return path, content, whether it is compressed, and ETag; None if there is no such file."""
    root_ = root_.resolve()
    try:
        path = (root_ / name.lstrip("/")).resolve()
        if not path.is_relative_to(root_) or not path.is_file():
            return None
        status = path.stat()
        tag = f"{status.st_mtime_ns:x}-{status.st_size:x}"
        is_compressed = accepts_gzip and path.suffix in _COMPRESSED and status.st_size > _SMALL
        if is_compressed:
            return path, _compressed(path, tag), True, f'"{tag}-gzip"'.encode()
        return path, path.read_bytes(), False, f'"{tag}"'.encode()
    except (OSError, ValueError):  # such as a name that is too long or has a NUL
        return None


@lru_cache(maxsize=128)
def _compressed(path: Path, tag: str) -> bytes:
    """Return the content of *path* compressed; *tag* changes with the file."""
    import gzip

    return gzip.compress(path.read_bytes(), mtime=0)
