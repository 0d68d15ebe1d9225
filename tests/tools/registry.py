"""An image registry on loopback that serves one image, from what `podman push dir:` writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def registry(folder: Path) -> Iterator[int]:
    """Serve the image in *folder* under every name, without TLS; yield the port."""
    manifest = (folder / "manifest.json").read_bytes()
    kind = json.loads(manifest)["mediaType"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            blob = folder / name.removeprefix("sha256:")
            if "/manifests/" in self.path:
                self._send(manifest, kind)
            elif self.path == "/v2/":
                self._send(b"{}", "application/json")
            elif "/blobs/" in self.path and blob.is_file():
                self._send(blob.read_bytes(), "application/octet-stream")
            else:
                self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _send(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
