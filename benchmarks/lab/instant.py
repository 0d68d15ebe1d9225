"""A server that starts as fast as Python does, and notes when what happened; standard library only.

    python -I -S instant.py --port N --notes FILE [--ready-after-s S] [--late] [--tell]
        [--model FILE]

GET is answered with 503 before it is ready and 200 after, as llama-server's /health is; with
``--late`` it does not listen before it is ready, with ``--tell`` it prints a line when it is. With
``--model`` it first reads a file from its beginning to its end, as a server reads its weights.
POST gets a short JSON answer. Lines of the notes: ``begun``, ``ready``, ``request`` (the first
POST) and the time, in nanoseconds on the monotonic clock.
"""

import argparse
import os
import select
import socket
import time

_ANSWER = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"yes"}}]}'


def _http(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


class _Server:
    def __init__(self, port: int, notes: str, ready_after_s: float, late: bool,
                 tell: bool) -> None:  # fmt: skip
        self._notes = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.note("begun")
        self._ready_at = time.monotonic() + ready_after_s
        self._is_ready = self._was_asked = False
        self._shall_tell = tell
        if late:
            time.sleep(ready_after_s)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(128)
        self._connections: dict[int, tuple[socket.socket, bytes]] = {}

    def note(self, what: str) -> None:
        os.write(self._notes, f"{what} {time.monotonic_ns()}\n".encode())

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            wait_ms = None
            if not self._is_ready:
                left_s = self._ready_at - time.monotonic()
                if left_s <= 0:
                    self._is_ready = True
                    self.note("ready")
                    if self._shall_tell:
                        os.write(2, b"listening\n")
                else:
                    wait_ms = max(left_s * 1000, 1)
            for number, _ in poll.poll(wait_ms):
                if number == self._listener.fileno():
                    connection, _ = self._listener.accept()
                    self._connections[connection.fileno()] = (connection, b"")
                    poll.register(connection, select.POLLIN)
                elif not self._take(number):
                    poll.unregister(number)
                    self._connections.pop(number)[0].close()

    def _take(self, number: int) -> bool:
        connection, data = self._connections[number]
        try:
            piece = connection.recv(65536)
        except OSError:
            return False
        if not piece:
            return False
        data += piece
        head, mark, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            ),
            0,
        )
        if not mark or len(body) < length:
            self._connections[number] = (connection, data)
            return True
        self._connections[number] = (connection, b"")
        if data.startswith(b"POST") and not self._was_asked:
            self._was_asked = True
            self.note("request")
        status = b"200 OK" if self._is_ready else b"503 Service Unavailable"
        connection.sendall(_http(status, _ANSWER))
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--notes", required=True)
    parser.add_argument("--ready-after-s", type=float, default=0.0)
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--tell", action="store_true")
    parser.add_argument("--model")
    options = parser.parse_args()
    if options.model:
        with open(options.model, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib takes 10 ms
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass
    _Server(options.port, options.notes, options.ready_after_s, options.late, options.tell).run()


if __name__ == "__main__":
    main()
