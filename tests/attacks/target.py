"""Target: the proxy under attack, with the model ``demo`` and the model ``hostile``."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from tools import raw
from tools.net import port_block, wait_until
from tools.swapchart_process import SwapchartProcess, chat_body, demo_model

CHAT = "/v1/chat/completions"
_UPSTREAM = str(Path(__file__).with_name("upstream.py"))
_PORTS = 16
_ENDED = (EOFError, ConnectionError)

#: Plays the model ``hostile`` on one connection of the proxy; the connection is closed afterwards.
Play = Callable[[socket.socket], object]


class Target:
    """A running proxy; a context manager that ends it.

    Args:
        variant: One of ``entry.VARIANTS``.
        folder: An empty folder of its own.
        config: Further top-level keys of the configuration. The first of ``apiKeys`` is used by
            requests that name no fields of their own.
        options: Further options of ``serve``.
        env: Further variables.

    Attributes:
        proxy: The process, with ``call``, ``chat``, ``running`` and more.
        variant: What stands in front: attacks may expect other statuses of ``--stock``.
    """

    def __init__(
        self,
        variant: str,
        folder: Path,
        *,
        config: dict[str, Any],
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        self.variant = variant
        self._plays: Play = _hang_up
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "hostile"))
        self._listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()
        self._first_port = port_block(_PORTS)
        models = {"demo": demo_model("demo", "--slots", "64"), "hostile": self.hostile_model()}
        config = {**config, "startPort": self._first_port}
        config["models"] = models = {**models, **config.get("models", {})}
        if not config.keys() & {"groups", "matrix", "routing"}:  # all models may run together
            group = {"swap": False, "exclusive": False, "members": list(models)}
            config["groups"] = {"together": group}
        server = "hypercorn" if variant == "compiled" else variant
        self.proxy = SwapchartProcess(config, cwd=folder, server=server, options=options, env=env)
        if "apiKeys" in config:
            self.proxy.headers = {"x-api-key": config["apiKeys"][0]}
        self.proxy.wait_listening()

    def hostile_model(self, **keys: Any) -> dict[str, Any]:
        """Return a model whose connections are played by the test, for a configuration."""
        path = self._listener.getsockname()
        command = [sys.executable, "-I", "-S", _UPSTREAM, "${PORT}", path]
        return {"cmd": command, "proxy": "http://127.0.0.1:${PORT}", **keys}

    # ---- what an attack uses
    @property
    def port(self) -> int:
        """Port of the proxy."""
        return self.proxy.port

    @property
    def is_stock(self) -> bool:
        """True if the server's own HTTP layer reads the requests."""
        return "--stock" in self.variant

    def connect(self, timeout_s: float = 30.0) -> raw.Connection:
        """Open a raw connection to the proxy."""
        return raw.Connection(self.port, timeout_s=timeout_s)

    def call(self, method: str, target: str, **more: Any) -> raw.Answer:
        """Make one request on a connection of its own; see ``raw.call``."""
        return self.proxy.call(method, target, **more)

    def send(self, *pieces: bytes, timeout_s: float = 30.0) -> int:
        """Send *pieces* on one connection; returns the status, or 0 if it was closed without one.

        A proxy that responds and closes before it has read everything is fine.
        """
        with self.connect(timeout_s) as connection:
            with contextlib.suppress(*_ENDED):
                for piece in pieces:
                    connection.send(piece)
            with contextlib.suppress(*_ENDED):
                return connection.read_head().status
        return 0

    @contextlib.contextmanager
    def played(self, play: Play) -> Iterator[None]:
        """Let *play* be the model ``hostile`` within the block, on a thread per connection."""
        before, self._plays = self._plays, play
        try:
            yield
        finally:
            self._plays = before

    def ask_hostile(self, play: Play, *, stream: bool = False, timeout_s: float = 30.0) -> bytes:
        """Ask the model ``hostile``, played by *play*; returns all bytes of the response."""
        body = chat_body("hostile", stream=stream)
        with self.played(play), self.connect(timeout_s) as connection:
            headers = {**self.proxy.headers, "Connection": "close"}
            connection.request("POST", CHAT, value=body, headers=headers)
            return connection.read_all()

    def output_of_hostile(self, *pieces: bytes) -> None:
        """Write *pieces* to the standard output of the model ``hostile``, which must run."""
        pid = int(self.proxy.running()["hostile"]["pid"])
        with Path(f"/proc/{pid}/fd/1").open("wb", buffering=0) as stdout:
            for piece in pieces:
                stdout.write(piece)

    # ---- what is measured around an attack
    def warm_up(self) -> None:
        """Load both models and wait until nothing is in flight."""
        self.assert_serves()
        reply = self.ask_hostile(play_response(b"Content-Length: 2\r\n\r\nok"))
        assert reply.startswith(b"HTTP/1.1 200"), reply
        self.wait_quiet()

    def assert_serves(self) -> None:
        """Check that a normal request is answered."""
        assert self.proxy.chat("demo").status == 200

    def wait_quiet(self) -> None:
        """Wait until nothing is in flight and nothing waits."""
        wait_until(lambda: not self._busy(), 15.0, what=lambda: f"in flight: {self._busy()}")

    def _busy(self) -> dict[str, Any]:
        rows = self.proxy.running().items()
        busy = {name: row for name, row in rows if row["in_flight"] or row["waiting"]}
        queue = self.proxy.get("/api/queue")
        granted = [row for row in queue["models"] if row["granted"]]
        found = {"running": busy, "queue": queue["queue"], "granted": granted}
        return {key: value for key, value in found.items() if value}

    def descriptors(self) -> int:
        """Count the proxy's open descriptors, without idle connections to its models.

        Under ``--stock`` hypercorn notices the end of an idle client only when its own keep-alive
        time is over, so these are left out there.
        """
        process = psutil.Process(self.proxy.pid)
        ports = range(self._first_port, self._first_port + _PORTS)
        count = -1
        while count != process.num_fds():  # one that ends in between would be subtracted twice
            count, rows = process.num_fds(), process.net_connections("tcp")
        left_out = sum(1 for row in rows if row.raddr and row.raddr.port in ports)
        if self.is_stock:
            left_out += sum(1 for row in rows if row.status == psutil.CONN_CLOSE_WAIT)
        return count - left_out

    def reset_peak(self) -> int:
        """Reset the peak of the resident memory; returns the memory now, in bytes."""
        Path(f"/proc/{self.proxy.pid}/clear_refs").write_text("5")
        return self._status("VmRSS")

    def peak(self) -> int:
        """Return the peak of the resident memory since `reset_peak`, in bytes."""
        return self._status("VmHWM")

    def cpu_s(self) -> float:
        """Return the CPU time that the proxy has used, in seconds."""
        times = psutil.Process(self.proxy.pid).cpu_times()
        return float(times.user + times.system)

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self.proxy.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found, text
        return int(found[1]) << 10

    def is_alive(self) -> bool:
        """Return True if the proxy runs and answers."""
        return self.proxy.process.poll() is None and raw.status(self.port) == 200

    def close(self) -> None:
        """Kill what is left."""
        self._listener.close()
        self.proxy.close()

    # ---- the model
    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                sender, _ = self._listener.accept()
                with sender:
                    _, fds, _, _ = socket.recv_fds(sender, 1, 1)
                for fd in fds:
                    threading.Thread(target=self._play, args=(fd,), daemon=True).start()

    def _play(self, fd: int) -> None:
        with socket.socket(fileno=fd) as connection, contextlib.suppress(OSError, EOFError):
            connection.settimeout(30.0)
            self._plays(connection)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)


def read_request(connection: socket.socket) -> bytes:
    """Read one request with its body, as far as ``Content-Length`` says.

    Raises:
        EOFError: The proxy closed the connection.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head = data.partition(b"\r\n\r\n")[0]
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    size = len(head) + 4 + (int(found[1]) if found else 0)
    while len(data) < size:
        data += _receive(connection)
    return data


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError
    return data


def play_response(*pieces: bytes, status: bytes = b"200 OK") -> Play:
    """Return a model that reads one request and sends a status line and *pieces*."""

    def play(connection: socket.socket) -> None:
        read_request(connection)
        # The connection ends after it: without the word the proxy might send another request.
        connection.sendall(b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n")
        for piece in pieces:
            connection.sendall(piece)

    return play


def _hang_up(connection: socket.socket) -> None:
    """Close at once: no attack plays the model."""
