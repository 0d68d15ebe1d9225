"""Probe: polls ``/health`` of a proxy from a process of its own until its input ends.

Run as ``python -I -S probe.py PORT``. It prints ``ready`` after the first response, then one line
of JSON: ``polls``, ``worst_s`` (the longest time from a request to its response, refused and broken
connections included) and ``own_s`` (the latest wakeup of the probe itself, which tells how busy
the machine was). A process of its own, since the attacker holds the interpreter of the test.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

_PAUSE_S = 0.005
_LIMIT_S = 60.0
_REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class _Poller:
    """One connection that is opened again when the proxy has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def poll(self) -> float:
        """Return how long one response took, in seconds."""
        began = time.monotonic()
        while time.monotonic() - began < _LIMIT_S:
            try:
                if self._socket is None:
                    address = ("127.0.0.1", self._port)
                    self._socket = socket.create_connection(address, timeout=_LIMIT_S)
                self._socket.sendall(_REQUEST)
                if self._read_response(self._socket):
                    break
            except OSError:
                time.sleep(_PAUSE_S)
            if self._socket is not None:
                self._socket.close()
            self._socket = None
        return time.monotonic() - began

    @staticmethod
    def _read_response(connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(4096)
            if not piece:
                return False
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
        lengths = [int(value) for name, _, value in lines if name == b"content-length"]
        if not lengths:  # chunked
            while not body.endswith(b"0\r\n\r\n"):
                body += connection.recv(4096)
            return True
        while len(body) < lengths[0]:
            body += connection.recv(4096)
        return True


def main(port: int) -> None:
    """Poll until the input ends."""
    poller = _Poller(port)
    poller.poll()
    print("ready", flush=True)
    polls, worst_s, own_s = 0, 0.0, 0.0
    is_over = False
    while not is_over:
        worst_s = max(worst_s, poller.poll())
        polls += 1
        began = time.monotonic()
        is_over = bool(select.select([sys.stdin], [], [], _PAUSE_S)[0])
        own_s = max(own_s, time.monotonic() - began - _PAUSE_S)
    worst_s = max(worst_s, poller.poll())  # what the attack left in the event loop
    print(json.dumps({"polls": polls, "worst_s": worst_s, "own_s": own_s}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
