"""Daemons that left everything behind end with their model; strangers get no prompt."""

from __future__ import annotations

import os
import shlex
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import psutil
import pytest
from tools.net import LONG_S, port_block, wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model, error_of

from swapchart.adapters.process import procfs
from swapchart.adapters.process.port import listeners as proclisten

pytestmark = pytest.mark.slow


def daemon_model(label: str) -> dict[str, Any]:
    """A model whose server forked twice, leads a session, and has no environment."""
    model = demo_model(label)
    server = shlex.join(model["cmd"])
    script = f"(env -i setsid sh -c {shlex.quote(f'{server} & wait')} </dev/null >/dev/null 2>&1 &)"
    return model | {"cmd": ["sh", "-c", f"{script}; exec sleep 1000"]}


def listeners(port: int) -> list[procfs.Proc]:
    inodes = proclisten.listening_inodes(ip_address("127.0.0.1"), port)
    return procfs.find_holders(inodes) if inodes else []


def launched(proxy: SwapchartProcess) -> int:
    """Return how many trees the journal of *proxy* knows of."""
    (path,) = (proxy.folder / "state").rglob("journal.db")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM launched").fetchone()[0])


@pytest.fixture
def loaded(serve: Serve) -> Iterator[tuple[SwapchartProcess, procfs.Proc, int]]:
    """A proxy with a loaded model, the daemon that serves it, and its port."""
    port = port_block()
    proxy = serve(config={"startPort": port, "models": {"a": daemon_model("a")}})
    assert proxy.chat("a").status == 200
    (daemon,) = listeners(port)
    assert procfs.variable(daemon.pid, "SWAPCHART_RUN") is None
    yield proxy, daemon, port
    if procfs.is_same(daemon):
        os.kill(daemon.pid, signal.SIGKILL)


def test_unload_daemon_without_environment_is_gone_with_the_response(
    loaded: tuple[SwapchartProcess, procfs.Proc, int],
) -> None:
    """The answer 200 means that memory and port are free; the next start works."""
    proxy, daemon, port = loaded
    assert proxy.unload("a").status == 200

    assert not procfs.is_same(daemon)
    assert not listeners(port)
    assert proxy.chat("a").status == 200


def test_exit_daemon_without_environment_is_gone(
    loaded: tuple[SwapchartProcess, procfs.Proc, int],
) -> None:
    """The end of the proxy ends it, too."""
    proxy, daemon, _ = loaded
    assert proxy.stop() == 0

    assert not procfs.is_same(daemon)


def test_sigkill_daemon_without_environment_is_ended_by_the_guard(
    loaded: tuple[SwapchartProcess, procfs.Proc, int],
) -> None:
    """When the proxy is killed, the guard finds it by its tag."""
    proxy, daemon, _ = loaded
    proxy.note_guard()
    proxy.signal(signal.SIGKILL)
    proxy.wait()

    wait_until(lambda: not procfs.is_same(daemon), LONG_S, what="the daemon ended")


def test_restart_daemon_without_environment_is_ended_by_the_next_start(
    loaded: tuple[SwapchartProcess, procfs.Proc, int],
) -> None:
    """When proxy and guard were killed, the next proxy finds it by its tag."""
    proxy, daemon, _ = loaded
    wait_until(lambda: launched(proxy), LONG_S, what="the journal knows of the model")
    (guard,) = (
        child
        for child in psutil.Process(proxy.pid).children()
        if "guard_process.py" in str(child.cmdline())
    )
    guard.suspend()
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    guard.kill()
    lived = procfs.is_same(daemon)
    again = SwapchartProcess((proxy.folder / "config.yaml").read_text(), cwd=proxy.folder)
    again.wait_listening()
    ended = not procfs.is_same(daemon)
    again.stop()
    said = again.output()
    again.close()

    assert lived
    assert ended, said


@contextmanager
def answering(port: int) -> Iterator[list[str]]:
    """Answer 200 to everything on *port* from this process; yields what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.requestline)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_start_foreign_listener_of_the_same_user_is_refused_and_gets_no_prompt(
    serve: Serve,
) -> None:
    """One that binds the port after the launch ends the start; the error names it and the key."""
    port = port_block()
    model = {"cmd": ["sh", "-c", ": ${PORT}; exec sleep 1000"], "proxy": "http://127.0.0.1:${PORT}"}
    proxy = serve(config={"startPort": port, "models": {"a": model}})
    waiting = proxy.open_chat("a")
    proxy.wait_state("a", "health_checking")
    with answering(port) as asked:
        began = time.monotonic()
        answer = waiting.read_answer()
        took = time.monotonic() - began
    waiting.close()
    message = error_of(answer)["message"]

    assert answer.status == 502
    assert f"port {port} is served by pid {os.getpid()} ({procfs.program(os.getpid())})" in message
    assert "`external: true`" in message
    assert {line.split()[0] for line in asked} == {"GET"}
    assert took < 15.0
