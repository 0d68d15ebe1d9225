"""An upstream that keeps a journal: requests, clients that left, signals, in the order they came.

Run as ``python witness.py --port N --journal FILE [--name NAME]``. A journal line is
``SECONDS NAME WORDS...`` on the clock that every process of the machine shares, so hooks that write
to the same file (``echo ... >> $JOURNAL``) stand in their place among them.

A POST's JSON body says what becomes of it: ``events`` (how many), ``every_s``, ``size`` (bytes of
padding for each), ``cut_after`` (close in the middle after so many), ``reset`` (close with RST),
``hang`` (never answer). Threads and the standard library only: it starts in 50 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Witness:
    """One run of the upstream."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._sent = b""
        self._healthy_at = time.monotonic() + options.load_s

    def note(self, *words: object) -> None:
        """Append one line to the journal."""
        write_line(self._options.journal, self._options.name, *words)

    def run(self) -> int:
        """Serve until a signal ends it."""
        options = self._options
        signal.signal(signal.SIGTERM, self._on_term)
        self.note("started", os.getpid())
        print(f"{options.name} says: started", flush=True)
        if options.daemon:
            argv = [sys.executable, "-c", "import time; time.sleep(1000)"]
            child = subprocess.Popen(argv, start_new_session=True)
            self.note("daemon", child.pid)
        if options.exit_after_s is not None:
            threading.Timer(options.exit_after_s, self._exit, (options.exit_code,)).start()
        listener = socket.create_server(("127.0.0.1", options.port), backlog=1024)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _on_term(self, number: int, frame: object) -> None:
        self.note("SIGTERM")
        if not self._options.ignore_term:
            self._exit(0)

    def _exit(self, code: int) -> None:
        self.note("exit", code)
        print(f"{self._options.name} says: last words", flush=True)
        os._exit(code)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            try:
                while line := reader.readline():
                    method, target, _ = line.decode().split(" ", 2)
                    length = 0
                    while (field := reader.readline()) not in (b"\r\n", b""):
                        name, _, value = field.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    body = reader.read(length)
                    if not self._answer(connection, method, target, body):
                        return
            except OSError:
                self.note("lost")

    def _answer(self, connection: socket.socket, method: str, target: str, body: bytes) -> bool:
        if target == "/health":
            is_up = time.monotonic() >= self._healthy_at and not self._options.never_healthy
            status = "200 OK" if is_up else "503 Loading"
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok".encode())
            return True
        order: dict[str, Any] = json.loads(body) if body else {}
        self.note("request", method, target, order.get("model", ""))
        if order.get("hang"):
            self._wait_gone(connection)
            return False
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        return self._stream(connection, order)

    def _stream(self, connection: socket.socket, order: dict[str, Any]) -> bool:
        done = threading.Event()
        threading.Thread(target=self._watch, args=(connection, done), daemon=True).start()
        padding = "x" * order.get("size", 0)
        for number in range(order.get("events", 1)):
            if number == order.get("cut_after"):
                done.set()
                is_reset = order.get("reset")
                if is_reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                # The one that watches must let go of the socket, or closing it would not close it.
                connection.shutdown(socket.SHUT_RD if is_reset else socket.SHUT_RDWR)
                return False
            event = {"number": number, "at": time.monotonic(), "padding": padding}
            self._chunk(connection, f"data: {json.dumps(event)}\n\n".encode())
            time.sleep(order.get("every_s", 0.0))
        done.set()
        self._chunk(connection, b"data: [DONE]\n\n")
        self.note("answered")  # before its end: what that leads to must stand behind it
        connection.sendall(b"0\r\n\r\n")
        if self._options.copy is not None:
            written = self._options.copy.with_suffix(".part")
            written.write_bytes(self._sent)
            written.replace(self._options.copy)  # a reader never sees the half of it
        return True

    def _chunk(self, connection: socket.socket, data: bytes) -> None:
        if self._options.copy is not None:
            self._sent += data
        connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))

    def _watch(self, connection: socket.socket, done: threading.Event) -> None:
        """Note when the other end closes too early, without taking a byte from it."""
        data = b""
        with contextlib.suppress(OSError):
            data = connection.recv(1, socket.MSG_PEEK)
        if not data and not done.is_set():
            self.note("gone")

    def _wait_gone(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)
        self.note("gone")


def write_line(journal: Path, *words: object) -> None:
    """Append one line, whole."""
    line = " ".join(str(word) for word in (f"{time.monotonic():.6f}", *words))
    fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--port", type=int, required=True)
    add("--journal", type=Path, required=True)
    add("--name", default="witness")
    add("--load-s", type=float, default=0.0)
    add("--never-healthy", action="store_true")
    add("--ignore-term", action="store_true")
    add("--daemon", action="store_true", help="leave a child in a session of its own")
    add("--exit-after-s", type=float)
    add("--exit-code", type=int, default=3)
    add("--copy", type=Path, help="write the last answer's body there")
    return Witness(parser.parse_args(argv)).run()


if __name__ == "__main__":
    sys.exit(main())
