"""Failures reach the client in OpenAI's format, and the next request works."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tools import raw
from tools.children import Child, demo_argv, demo_server
from tools.net import LATE_S, free_port
from tools.rows import row
from tools.swapchart_process import (
    CHAT,
    Journal,
    Serve,
    SwapchartProcess,
    demo_model,
    error_of,
    shell,
)

pytestmark = pytest.mark.slow


# ---- a model that cannot be had
@pytest.fixture
def not_a_program(tmp_path: Path) -> dict[str, str]:
    """Commands that cannot be executed, by what is wrong with them."""
    text, data = tmp_path / "readme", tmp_path / "data"
    text.write_text("not a program\n")
    data.write_bytes(b"\x00\x01\x02\x03")
    data.chmod(0o755)
    return {
        "missing": "/does/not/exist --port ${PORT}",
        "not executable": f"{text} --port ${{PORT}}",
        "not a program": f"{data} --port ${{PORT}}",
        "a folder": f"{tmp_path} --port ${{PORT}}",
        "too long": f"/bin/true ${{PORT}} {'x' * 200_000}",
    }


@row("A01")
def test_command_that_cannot_run_fails_at_once(
    serve: Serve, journal: Journal, not_a_program: dict[str, str], tmp_path: Path
) -> None:
    """All waiters get the same 502, and soon; it names the program, and another model works."""
    go = tmp_path / "go"
    gather = shell(f"while [ ! -e {go} ]; do sleep 0.02; done")
    models: dict[str, Any] = {name: {"cmd": cmd} for name, cmd in not_a_program.items()}
    models["waited for"] = {"cmd": "/does/not/exist ${PORT}", "beforeStart": gather}
    proxy = serve({**models, "fine": journal.model("fine")})
    for name, command in not_a_program.items():
        began = time.monotonic()
        answer = proxy.chat(name)
        took = time.monotonic() - began

        assert answer.status == 502
        assert error_of(answer)["code"] == "spawn_failed"
        assert command.split()[0] in error_of(answer)["message"]
        assert took < 2 * LATE_S, f"{name}: {took:.1f} s"
    waiters = [proxy.open_chat("waited for") for _ in range(20)]
    proxy.wait_busy("waited for", waiting=20)
    go.touch()
    answers = [waiter.read_answer() for waiter in waiters]

    assert {answer.status for answer in answers} == {502}
    assert len({error_of(answer)["message"] for answer in answers}) == 1
    assert proxy.chat("fine").status == 200
    for waiter in waiters:
        waiter.close()


@row("A01")
def test_command_that_cannot_run_is_refused_until_the_cooldown_ends(
    serve: Serve, tmp_path: Path
) -> None:
    """Another request gets 503 and the reason without a new try; an unload allows one."""
    command = tmp_path / "server"
    model = demo_model("late")
    late = {**model, "cmd": [str(command), *model["cmd"][1:]]}
    proxy = serve({"late": late})
    assert error_of(proxy.chat("late"))["code"] == "spawn_failed"
    again = proxy.chat("late", limit=3)

    assert again.status == 503
    assert again.header("retry-after") is None
    assert error_of(again)["retry_after_s"] > 0
    assert str(command) in error_of(again)["message"]
    command.write_text(f'#!/bin/sh\nexec "{model["cmd"][0]}" "$@"\n')
    command.chmod(0o755)
    assert proxy.unload("late").status == 200
    assert proxy.chat("late").status == 200


@row("A02")
def test_model_that_exits_reports_code_and_last_output(serve: Serve) -> None:
    """The exit code and the last lines of its log come with the error; another model works."""
    models = {"a": demo_model("a", "--fail-load"), "b": demo_model("b")}
    proxy = serve(models)
    answer = proxy.chat("a")
    error = error_of(answer)

    assert answer.status == 502
    assert error["code"] == "exited"
    assert "exit code 1" in error["message"]
    assert "failed to load model, 'a'" in "\n".join(error["log"])
    assert proxy.chat("b").status == 200


def test_model_that_exits_is_started_again(serve: Serve, journal: Journal) -> None:
    """Each request tries once; after a backoff that grows with failures in a row."""
    quick = {"backoff": 0.05, "intensity": 3, "cooldown": 60}
    model = journal.model("a", "--exit-after-s", "0", "--load-s", "60", restart=quick)
    proxy = serve({"a": model})
    codes: list[str] = []
    while not codes or codes[-1] == "exited":
        codes.append(error_of(proxy.chat("a", limit=2 + len(codes)))["code"])
        assert len(codes) < 10

    assert codes == ["exited", "exited", "exited", "failed"]
    assert len(journal.words("started")) == 3


@row("A26")
def test_model_that_never_gets_healthy_is_given_up(serve: Serve, journal: Journal) -> None:
    """The error names the limit and the result of the last probe; the process is ended."""
    models = {"a": journal.model("a", "--never-healthy", startTimeout=1), "b": journal.model("b")}
    proxy = serve(models)
    answer = proxy.chat("a")
    error = error_of(answer)

    assert answer.status == 502
    assert error["code"] == "start_timeout"
    assert "status 503" in error["message"]
    assert proxy.chat("b").status == 200
    assert journal.words("a SIGTERM") == ["a SIGTERM"]


SLOW_CHECK = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.3)
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_model_with_a_slow_health_check_is_served(serve: Serve) -> None:
    """A check that takes six times `probeTimeout` passes once its timeouts have doubled it."""
    cmd = [sys.executable, "-c", SLOW_CHECK, "${PORT}"]
    proxy = serve({"a": {"cmd": cmd, "probeTimeout": 0.05, "startTimeout": LATE_S}})

    assert proxy.chat("a").status == 200


@row("A36")
def test_start_outlasts_a_proxy_that_was_stopped(serve: Serve) -> None:
    """SIGSTOP for longer than the start may take, while the model becomes healthy: it is ready."""
    proxy = serve({"a": demo_model("a", "--load-seconds", "4", startTimeout=3)})
    with proxy.open_chat("a") as connection:
        proxy.wait_state("a", "health_checking")
        proxy.signal(signal.SIGSTOP)
        try:
            time.sleep(6.0)
        finally:
            proxy.signal(signal.SIGCONT)
        assert connection.read_answer().status == 200


@row("A18")
def test_health_response_of_a_foreign_process_does_not_count(
    serve: Serve, journal: Journal, tmp_path: Path
) -> None:
    """A foreign server takes the port of a model that starts: the start fails with the reason."""
    port, go = free_port(), tmp_path / "go"
    silent = ["sh", "-c", f"sleep 1000 & wait # {port}"]
    model = {"cmd": silent, "proxy": f"http://127.0.0.1:{port}", "startTimeout": 3}
    late = ["sh", "-c", f'while [ ! -e {go} ]; do sleep 0.02; done; exec "$@"', "sh"]
    with Child([*late, *demo_argv(port=port)], cwd=tmp_path, port=port) as foreign:
        proxy = serve({"a": model})
        with proxy.open_chat("a") as connection:
            proxy.wait_state("a", "health_checking")
            go.touch()
            error = error_of(connection.read_answer())
        assert error["code"] == "start_timeout"
        assert f"is served by pid {foreign.pid} " in error["message"]
        assert foreign.process.poll() is None


@row("A11")
def test_port_holder_is_reported_at_once(serve: Serve, journal: Journal, tmp_path: Path) -> None:
    """The client gets port, pid and program, no process is started, and later it works."""
    port = free_port()
    model = {**journal.model("a", "--port", str(port)), "proxy": f"http://127.0.0.1:{port}"}
    folder = tmp_path / "foreign"
    folder.mkdir()
    with demo_server(cwd=folder, port=port) as foreign:
        foreign.wait_healthy()
        proxy = serve({"a": model})
        error = error_of(proxy.chat("a"))
        assert error["code"] == "spawn_failed"
        assert f"port {port} is taken: pid {foreign.pid} (python" in error["message"]
        assert foreign.process.poll() is None
        assert journal.words("started") == []
    proxy.unload()
    assert proxy.chat("a").status == 200


# ---- a model that fails in the middle
@pytest.mark.parametrize("way", ["close", "reset", "crash"])
@row("A04")
def test_aborted_response_aborts_the_client(
    serve: Serve, layer: str, way: str, journal: Journal
) -> None:
    """The client sees a truncated answer, never a clean end; nothing stays in flight."""
    models = {
        "a": journal.model("a"),
        "crash": demo_model("crash", "--crash-after-tokens", "5", "--exit-code", "-9"),
    }
    proxy = serve(models, server=layer)
    name = "crash" if way == "crash" else "a"
    more = {"cut_after": 5, "reset": way == "reset"}
    with proxy.open_chat(name, 20, stream=True, events=20, ignore_eos=True, **more) as connection:
        head = connection.read_head()
        assert head.status == 200
        with pytest.raises((EOFError, ConnectionResetError)):
            connection.read_body(head)

    proxy.wait_idle(name)
    if way != "crash":
        assert proxy.chat(name).status == 200
    proxy.wait_said("aborted after")


@row("A04")
def test_crash_before_the_response_is_a_502(serve: Serve, server: str, journal: Journal) -> None:
    """No head came: the client gets JSON; the next request starts the model again."""
    proxy = serve({"a": journal.model("a")}, server=server)
    with proxy.open_chat("a", hang=True) as connection:
        journal.wait("a request")
        proxy.find("witness.py")[0].kill()
        answer = connection.read_answer()

    assert answer.status == 502
    assert error_of(answer)["code"].startswith("upstream_")
    proxy.wait_state("a", "stopped", "backoff")
    assert proxy.chat("a").status == 200


# ---- a request that asks for nothing
@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    models = {
        "llama-3": demo_model("llama-3", aliases=["gpt-4o"]),
        "qwen/coder": demo_model("qwen/coder", unlisted=True),
    }
    return serve_module(models)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "model"),
        (b"{", 400, "JSON"),
        (b'{"model": "llama-3", "messages": [}', 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[1, 2]", 400, "object"),
        (b"null", 400, "object"),
        (b"[" * 100_000, 400, ""),
        (b"{}", 400, "model"),
        (b'{"model": null}', 400, "model"),
        (b'{"model": ""}', 400, "model"),
        (b'{"model": 3}', 400, "model"),
        (b'{"model": ["llama-3"]}', 400, "model"),
        (b'{"model": "nobody"}', 404, "nobody"),
        (b'{"model": "lama-3"}', 404, "did you mean 'llama-3'"),
        (b'{"model": "gpt-4"}', 404, "did you mean 'gpt-4o'"),
    ],
)
def test_request_without_a_model_is_an_error(
    proxy: SwapchartProcess, body: bytes, status: int, words: str
) -> None:
    """Never an empty body, never a 500, and the connection goes on to work."""
    headers = {"Content-Type": "application/json"}
    with raw.Connection(proxy.port) as connection:
        connection.request("POST", CHAT, body=body, headers=headers)
        answer = connection.read_answer()
        assert answer.status == status, answer
        assert words in error_of(answer)["message"]

        connection.request("GET", "/health")
        assert connection.read_answer().body == b"OK"


def test_body_beyond_the_limit_is_refused_before_it_arrives(proxy: SwapchartProcess) -> None:
    """413 on the declared length, without waiting for the body."""
    with raw.Connection(proxy.port) as connection:
        size = {"Content-Length": str(10 << 30), "Content-Type": "application/json"}
        connection.request("POST", CHAT, headers=size)
        answer = connection.read_answer()

    assert answer.status == 413
    assert error_of(answer)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nowhere", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405), ("GET", "/upstream/nobody/", 404),
        ("POST", "/api/models/unload/nobody", 404), ("GET", "/logs/stream/nobody", 400),
    ],
)  # fmt: skip
def test_unknown_route_is_an_error(
    proxy: SwapchartProcess, method: str, target: str, status: int
) -> None:
    """JSON, with the methods that are allowed where it is only the method."""
    answer = proxy.call(method, target)

    assert answer.status == status
    assert error_of(answer)
    assert (status == 405) == (answer.header("allow") is not None)
