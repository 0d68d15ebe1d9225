"""Attacks on processes of models: daemons, trees that renew themselves, strangers, odd probes."""

from __future__ import annotations

import os
import resource
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from tools.forking import RENEWED
from tools.net import wait_until
from tools.swapchart_process import error_of

from .entry import Attack
from .target import Target

_WAIT_S = 30.0
_BEATS = Path(gettempdir()) / f"swapchart-attack-{os.getpid()}"

#: Serves one 200 after the interim responses that its second argument names.
_SERVER = textwrap.dedent("""
    import socket, sys
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    interim = b"".join(b"HTTP/1.1 %s Wait\\r\\n\\r\\n" % n.encode() for n in sys.argv[2:])
    while True:
        peer, _ = server.accept()
        try:
            peer.recv(65536)
            peer.sendall(interim + b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
        except OSError:
            pass
        peer.close()
""")


def _python(script: str, *args: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", script, *args]


def _model(command: list[str]) -> dict[str, Any]:
    return {"cmd": command, "proxy": "http://127.0.0.1:${PORT}", "unloadTimeout": 1}


_DAEMON = 'env -i setsid "$@" </dev/null >/dev/null 2>&1 & exec sleep 1000'
_TREE = '"$0" -I -S -c "$1" "$2" & shift 2; shift; exec "$@"'
_MODELS = {
    "daemon": _model(["sh", "-c", _DAEMON, "sh", *_python(_SERVER, "${PORT}")]),
    "renewed": _model(
        [
            "sh",
            "-c",
            _TREE,
            sys.executable,
            RENEWED,
            str(_BEATS),
            "x",
            *_python(_SERVER, "${PORT}"),
        ]
    ),
    "interim": _model(_python(_SERVER, "${PORT}", "100", "102", "103", "199")),
    "named": _model(_python(_SERVER, "${PORT}")) | {"proxy": "http://localhost:${PORT}"},
    "taken": _model(["sh", "-c", ": ${PORT}; exec sleep 1000"]),
}


def _port(target: Target, model: str) -> int:
    """Return the port of *model*, which must be on its way or ready."""
    return int(str(target.proxy.running()[model]["proxy"]).rpartition(":")[2])


def daemon_without_environment(target: Target) -> None:
    """A daemon that left session and environment is gone when its unload is answered."""
    assert target.proxy.chat("daemon").status == 200
    port = _port(target, "daemon")
    assert target.proxy.unload("daemon").status == 200
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5.0):
        raise AssertionError("its port is still taken")


def _beats() -> int:
    return _BEATS.stat().st_size if _BEATS.exists() else 0


def tree_that_renews_itself(target: Target) -> None:
    """A tree that is another one every 2 ms does not outlive an unload that answers 200."""
    assert target.proxy.chat("renewed").status == 200
    wait_until(lambda: _beats() > 20, _WAIT_S, what="it renews itself")
    assert target.proxy.unload("renewed").status == 200
    size = _beats()
    time.sleep(0.1)
    assert _beats() == size
    _BEATS.unlink()


def interim_responses_to_a_probe(target: Target) -> None:
    """A health check that answers 1xx before its 200 has passed."""
    assert target.proxy.chat("interim").status == 200
    assert target.proxy.unload("interim").status == 200


@contextmanager
def _stranger(port: int) -> Iterator[list[bytes]]:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    with peer, suppress(OSError):
                        asked.append(peer.recv(65536))
                        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def stranger_on_the_port(target: Target) -> None:
    """A stranger that binds the port after the launch ends the start, and gets no prompt."""
    waiting = target.proxy.open_chat("taken")
    target.proxy.wait_state("taken", "health_checking")
    with _stranger(_port(target, "taken")) as asked:
        answer = waiting.read_answer()
    waiting.close()
    assert "`external: true`" in error_of(answer)["message"]
    assert not [request for request in asked if not request.startswith(b"GET ")]
    assert target.proxy.unload("taken").status == 200


def lookup_without_threads(target: Target) -> None:
    """Where no thread can be made, a model at `localhost` is started and served all the same."""
    pid = target.proxy.pid
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (6 << 20)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, before[1]))
    try:
        assert target.proxy.chat("named").status == 200
        assert target.proxy.unload("named").status == 200
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


ATTACKS: tuple[Attack, ...] = tuple(
    Attack(run, config={"models": _MODELS}, growth_mib=16)
    for run in (
        daemon_without_environment,
        tree_that_renews_itself,
        interim_responses_to_a_probe,
        stranger_on_the_port,
        lookup_without_threads,
    )
)
