"""Messages of a real proxy to systemd: ready, watchdog, stopping."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.net import LONG_S
from tools.notify_socket import Systemd
from tools.rows import row
from tools.swapchart_process import Journal, Serve, demo_model, shell

from swapchart.adapters.server.listen import BindError
from swapchart.adapters.server.systemd import Notifier, passed_socket

pytestmark = pytest.mark.slow


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    found = Systemd(tmp_path / "notify")
    yield found
    found.close()


@row("A37")
def test_systemd_is_notified_of_ready_watchdog_and_stopping(
    serve: Serve, journal: Journal, systemd: Systemd
) -> None:
    """READY=1 once we listen, WATCHDOG=1 again and again until the end; models never see it."""
    hook = shell('echo "saw $(env | grep -c "NOTIFY_SOCKET\\|WATCHDOG")" >> "$JOURNAL"')
    env = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "400000"}
    proxy = serve({"a": journal.model("a", beforeStart=hook)}, env=env)
    assert systemd.hear() == "READY=1"
    assert [systemd.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert proxy.chat("a").status == 200
    assert journal.words("saw") == ["saw 0"]
    assert b"swapchart_loop_blocked_total 0.0" in proxy.call("GET", "/metrics").body

    proxy.signal(signal.SIGTERM)
    assert {*systemd.hear_until("STOPPING=1")} <= {"WATCHDOG=1"}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_watchdog_of_another_process_is_ignored(
    variables: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit, with one that is none, or for another process there is none."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert Notifier().watchdog_s == seconds
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()


def test_notify_socket_can_be_abstract_or_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``@name`` is in Linux' abstract name space; a socket without a listener does no harm."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0swapchart-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@swapchart-test-{os.getpid()}")
        notifier = Notifier()
        notifier.tell("READY=1")
        assert sock.recv(64) == b"READY=1"
    notifier.tell("READY=1")


# ---- a socket that systemd passes
def test_passed_socket_is_listened_on_and_hidden_from_models(
    serve: Serve, server: str, journal: Journal
) -> None:
    """Connections that were made before the start wait and are served; models do not see it."""
    hook = shell('echo "saw $(env | grep -c LISTEN_) $(ls /proc/self/fd | wc -l)" >> "$JOURNAL"')
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        early = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for each in early:
            each.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        proxy = serve({"a": journal.model("a", beforeStart=hook)}, server=server, sock=sock)

        assert proxy.port == port
        for each in early:
            each.settimeout(LONG_S)
            assert each.recv(4096).startswith(b"HTTP/1.1 200")
            each.close()
        assert proxy.chat("a").status == 200
    assert journal.words("saw") == ["saw 0 4"]  # ls itself has one more


def test_passed_socket_outlives_the_proxy(serve: Serve, server: str) -> None:
    """A connection that is made between two proxies waits, and the second one serves it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        first = serve({"a": demo_model("a")}, server=server, sock=sock)
        assert first.stop() == 0
        with socket.create_connection(sock.getsockname()) as between:
            between.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            serve({"a": demo_model("a")}, server=server, sock=sock)
            between.settimeout(LONG_S)

            assert between.recv(4096).startswith(b"HTTP/1.1 200")


def test_passed_socket_on_all_interfaces_needs_keys(serve: Serve) -> None:
    """Its own address counts, not that of the option."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        proxy = serve({"a": demo_model("a")}, sock=sock, wait=False)

        assert proxy.wait(LONG_S) == 1
    assert "0.0.0.0:" in proxy.output()
    assert "apiKeys" in proxy.output()


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({}, ""),
        ({"LISTEN_FDS": "1"}, ""),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "1"}, ""),
        ({"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())}, ""),
        ({"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())}, ""),
        (
            {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "a:b"},
            "got 2 (a, b)",
        ),
    ],
)
def test_passed_socket_of_another_process_or_name_is_not_taken(
    variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variables, with those of another process, or without one that is ours."""
    for name in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if problem:
        with pytest.raises(BindError, match="FileDescriptorName=swapchart") as caught:
            passed_socket()
        assert problem in str(caught.value)
    else:
        assert passed_socket() is None
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_passed_socket_of_another_kind_is_refused(kind: socket.SocketKind, serve: Serve) -> None:
    """One that does not listen, and one that is not TCP: one line says what was expected."""
    with socket.socket(socket.AF_INET, kind) as sock:
        proxy = serve({"a": demo_model("a")}, sock=sock, wait=False)

        assert proxy.wait(LONG_S) == 1
    (line,) = proxy.output().splitlines()
    assert "expected one that listens on TCP" in line
