"""Reverse proxy that serves another server below a path of its own, as nginx does by location."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def serving_below(
    prefix: str, port: int, *, origin: str = "", keeps_prefix: bool = False
) -> Iterator[str]:
    """Serve the server at *port* below *prefix* while the block lasts; yields the address.

    Args:
        prefix: Such as ``/llm``; taken off the paths of requests unless *keeps_prefix* is set.
        port: Port of the server on 127.0.0.1.
        origin: Origin that all requests have, as if the page had been opened there, without TLS:
            browsers then leave out Sec-Fetch-Site. Empty leaves them as they are.
        keeps_prefix: Leave the paths of requests as they are.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    own = listener.getsockname()[1]

    def accept() -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_relay, args=(client,), daemon=True).start()

    def _relay(client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65536)
                if not data:
                    return
                head += data
            if not keeps_prefix:
                head = head.replace(b" " + prefix.encode(), b" ", 1)
            if b"\r\nupgrade:" not in head.lower():
                head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head, count=1)
                head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            if origin:
                head = re.sub(rb"(?i)\r\n(origin|sec-fetch-site):[^\r]*", b"", head)
                head = head.replace(b"\r\n", b"\r\nOrigin: %s\r\n" % origin.encode(), 1)
            server.sendall(head)
            threading.Thread(target=_copy, args=(client, server), daemon=True).start()
            _copy(server, client)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{own}{prefix}"
    finally:
        listener.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
