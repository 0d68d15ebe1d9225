"""Hostile model: answers health checks, and hands every other connection to the test.

Run as ``python -I -S upstream.py PORT SOCKET``. The test listens on the Unix socket and gets the
accepted connection itself, with nothing of it read, so an attack plays the model with a plain
function, byte by byte.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

_HEALTH = b"GET /health"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def _serve(connection: socket.socket, path: str) -> None:
    with connection, contextlib.suppress(OSError):
        while len(begin := connection.recv(len(_HEALTH), socket.MSG_PEEK)) < len(_HEALTH):
            if not begin:
                return
            time.sleep(0.001)  # a part of the request line, which can only grow
        if begin == _HEALTH:
            connection.recv(4096)
            connection.sendall(_OK)
            return
        with socket.socket(socket.AF_UNIX) as test:
            test.connect(path)
            socket.send_fds(test, [b"x"], [connection.fileno()])


def main(port: int, path: str) -> None:
    """Serve until a signal ends it."""
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, path), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
