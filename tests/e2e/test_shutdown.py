"""How a proxy begins and ends: nothing starts before it can serve, and nothing outlives it."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
from tools import raw
from tools.net import LONG_S, free_port, wait_until
from tools.rows import row
from tools.swapchart_process import CHAT, Journal, Serve, chat_body, error_of, shell

pytestmark = pytest.mark.slow

APP = "swapchart.adapters.asgi:create_app"
FOREVER = "sleep 4322"


# ---- beginning
@row("C47")
def test_serve_on_a_taken_port_ends_before_the_first_start(serve: Serve, journal: Journal) -> None:
    """Exit code 1 and a clear line; no model, no hook and no other child was ever started."""
    models = {"a": journal.model("a", beforeStart=shell('echo hook >> "$JOURNAL"'))}
    hooks = {"on_startup": {"preload": ["a"]}}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ("--listen", address)
        proxy = serve(models, config={"hooks": hooks}, options=options, wait=False)

        assert proxy.wait(LONG_S) == 1
    lines = proxy.output().splitlines()
    assert lines == [
        f"swapchart: cannot listen on {address}: Address already in use; "
        "stop the program that listens there, or choose another address with --listen"
    ]
    assert journal.words() == []


@pytest.mark.parametrize(
    ("address", "code"),
    [("nonsense", 2), ("127.0.0.1:99999", 2), ("192.0.2.1:80", 1), ("127.0.0.1", 2)],
)
def test_serve_on_an_invalid_address_ends(
    serve: Serve, journal: Journal, address: str, code: int
) -> None:
    """One line names the address that cannot be used; 2 where it is none."""
    options = ("--listen", address, "--allow-unauthenticated")
    proxy = serve({"a": journal.model("a")}, options=options, wait=False)

    assert proxy.wait(LONG_S) == code
    (line,) = proxy.output().splitlines()
    assert address in line


@row("C50")
def test_serve_on_all_interfaces_without_keys_is_refused(serve: Serve, journal: Journal) -> None:
    """Other machines could reach it without a key."""
    options = ("--listen", "0.0.0.0:0")
    proxy = serve({"a": journal.model("a")}, options=options, wait=False)

    assert proxy.wait(LONG_S) == 1
    assert "apiKeys" in proxy.output()


def test_serve_with_a_wrong_configuration_reports_every_mistake(serve: Serve) -> None:
    """Every mistake at once, each with its line and path, and exit code 78."""
    text = (
        "startPort: none\n"
        "models:\n"
        "  a: {cmd: '${nowhere}/server'}\n"
        "  b: {cmd: server, ttl: soon, unloadTimeout: -4}\n"
        "  c: {proxy: 'http://127.0.0.1:1'}\n"
        '  d: {cmd: "server \'unended"}\n'
        "  e: {cmd: server, aliass: [x]}\n"
    )
    proxy = serve(config=text, wait=False)

    assert proxy.wait(LONG_S) == 78
    told = proxy.output()
    places = ["1: error: startPort", "3: error: models.a", "4: error: models.b.ttl",
              "4: error: models.b.unloadTimeout", "5: error: models.c", "6: error: models.d",
              "7: warning: models.e"]  # fmt: skip
    for place in places:
        line, _, rest = place.partition(": ")
        assert any(f"config.yaml:{line}:" in row and rest in row for row in told.splitlines()), told
    assert "did you mean" in told


def test_serve_with_a_missing_configuration_names_the_file(serve: Serve, tmp_path: Path) -> None:
    """The file that is not there is named."""
    argv = [sys.executable, "-m", "swapchart", "serve", "--config", str(tmp_path / "none.yaml")]
    proxy = serve(argv=argv, wait=False)

    assert proxy.wait(LONG_S) == 78
    assert "none.yaml" in proxy.output()


# ---- under a server of the user's own
@pytest.mark.parametrize("command", ["hypercorn", "uvicorn"])
def test_application_under_a_server_command_works(
    serve: Serve, journal: Journal, command: str
) -> None:
    """The configuration comes by SWAPCHART_CONFIG; SIGTERM runs beforeStop and stops models."""
    port = str(free_port())
    where = {
        "hypercorn": [f"{APP}()", "--bind", f"127.0.0.1:{port}"],
        "uvicorn": ["--factory", APP, "--port", port],
    }
    hook = shell('echo hook >> "$JOURNAL"')
    argv = [sys.executable, "-m", command, *where[command]]
    proxy = serve(
        {"a": journal.model("a", "--daemon", unloadTimeout=1, beforeStop=hook)}, argv=argv
    )
    assert proxy.chat("a").status == 200
    proxy.note_guard()
    proxy.signal(signal.SIGTERM)
    proxy.wait(LONG_S)

    proxy.assert_clean()
    assert journal.words("hook|SIGTERM") == ["hook", "a SIGTERM"]


# ---- ending
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@row("D09")
def test_sigterm_finishes_requests_in_flight(
    serve: Serve, layer: str, journal: Journal, number: signal.Signals
) -> None:
    """Streams finish, waiting requests are refused, the port is closed, hooks run, exit code 0."""
    hook = shell('echo hook >> "$JOURNAL"')
    models = {"a": journal.model("a", beforeStop=hook), "b": journal.model("b")}
    proxy = serve(models, server=layer)
    streams = [proxy.open_chat("a", events=20, every_s=0.05) for _ in range(5)]
    heads = [stream.read_head() for stream in streams]
    with proxy.open_chat("b") as waiting:
        proxy.wait_busy("a", in_flight=5)
        proxy.note_guard()
        proxy.signal(number)
        refused = waiting.read_answer()
    bodies = [s.read_body(head).body for s, head in zip(streams, heads, strict=True)]

    assert refused.status == 503
    assert error_of(refused)["code"] == "shutting_down"
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    assert proxy.wait(LONG_S) == 0
    assert journal.words("hook|SIGTERM|exit") == ["hook", "a SIGTERM", "a exit 0"]
    for stream in streams:
        stream.close()


@row("D09")
def test_shutdown_is_not_delayed_by_a_stalled_reader(
    serve: Serve, layer: str, journal: Journal
) -> None:
    """A client that takes no byte is cut when the time for the end is over; hooks have run."""
    hook = shell('echo hook >> "$JOURNAL"')
    models = {"a": journal.model("a", beforeStop=hook)}
    proxy = serve(models, server=layer, config={"shutdownTimeout": 2})
    if layer == "uvicorn --stock":
        proxy.may_log = "timeout graceful shutdown exceeded"
    stalled = raw.Connection(proxy.port, timeout_s=LONG_S)
    stalled.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.request("POST", CHAT, value=chat_body("a", events=10_000, size=20_000))
    stream = proxy.open_chat("a", events=10_000, every_s=0.05)
    stream.read_head()
    proxy.wait_busy("a", in_flight=2)
    began = time.monotonic()

    assert proxy.stop() == 0
    assert time.monotonic() - began < 15.0
    assert journal.words("hook") == ["hook"]
    assert b"[DONE]" not in stream.read_all()
    stalled.close()
    stream.close()


@row("B13")
def test_second_signal_kills_the_remaining_processes(
    serve: Serve, server: str, journal: Journal
) -> None:
    """Hooks that hang and models that ignore SIGTERM: within seconds all is over."""
    hang = shell(f'echo hook >> "$JOURNAL"; {FOREVER}')
    model = journal.model("a", "--ignore-term", "--daemon", beforeStop=hang)
    proxy = serve({"a": model}, server=server, config={"shutdownTimeout": 60})
    stream = proxy.open_chat("a", events=20, every_s=0.02)
    stream.read_body(stream.read_head())
    proxy.note_guard()
    proxy.signal(signal.SIGTERM)
    journal.wait("hook")
    began = time.monotonic()
    proxy.signal(signal.SIGTERM)
    proxy.wait(LONG_S)
    took = time.monotonic() - began

    assert took < 3.0 + _slack_s(), f"{took:.1f} s"
    proxy.assert_clean()
    stream.close()


def test_shutdown_is_not_delayed_by_a_hook(serve: Serve, journal: Journal) -> None:
    """``shutdownTimeout`` cuts a beforeStop that hangs; the model is ended all the same."""
    hang = shell(f'echo hook >> "$JOURNAL"; {FOREVER}')
    models = {"a": journal.model("a", beforeStop=hang)}
    proxy = serve(models, config={"shutdownTimeout": 1})
    assert proxy.chat("a").status == 200
    began = time.monotonic()

    assert proxy.stop() == 0
    assert time.monotonic() - began < 15.0
    assert journal.words("hook") == ["hook"]


def test_sigterm_while_a_model_loads_ends_it(serve: Serve, server: str, journal: Journal) -> None:
    """The shutdown does not wait for a load; the waiting request gets the reason."""
    proxy = serve({"a": journal.model("a", "--never-healthy")}, server=server)
    with proxy.open_chat("a") as connection:
        journal.wait("a started")
        assert proxy.stop() == 0
        answer = connection.read_answer()

    assert error_of(answer)["code"] == "shutting_down"
    assert journal.words("SIGTERM") == ["a SIGTERM"]


@pytest.mark.parametrize("state", ["ready", "loading", "hook"])
@row("A15")
def test_sigkill_of_the_proxy_leaves_no_process(serve: Serve, journal: Journal, state: str) -> None:
    """SIGKILL: models, daemons in sessions of their own and hooks are gone within two seconds."""
    options = ["--daemon", "--ignore-term"] + ["--never-healthy"] * (state == "loading")
    hook = shell(f"setsid {FOREVER} & {FOREVER}")
    keys = {"afterHealthy": hook} if state == "hook" else {}
    proxy = serve({"a": journal.model("a", *options, **keys)})
    connection = proxy.open_chat("a")
    if state == "ready":
        assert connection.read_answer().status == 200
    if state == "hook":
        wait_until(lambda: len(proxy.find(FOREVER)) >= 2, LONG_S, what="the hook's processes")
    journal.wait("a daemon")
    wait_until(lambda: proxy.find("time.sleep(1000)"), LONG_S, what="the daemon")
    proxy.note_guard()
    proxy.signal(signal.SIGKILL)
    began = time.monotonic()
    proxy.wait(LONG_S)
    wait_until(lambda: not proxy.leftovers(), LONG_S, what=lambda: f"none of {proxy.leftovers()}")
    took = time.monotonic() - began

    assert took < 2.0 + _slack_s(), f"{took:.1f} s"
    connection.close()


def _slack_s() -> float:
    """How much longer things may take because the machine does other work too; seconds."""
    return 2.0 * max(psutil.getloadavg()[0] / (psutil.cpu_count() or 1), 1.0)
