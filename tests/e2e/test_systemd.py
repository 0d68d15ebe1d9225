"""Messages of a real proxy to systemd: ready, watchdog, stopping."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools.notify_socket import Systemd
from tools.rows import row
from tools.swapchart_process import Journal, Serve, shell

from swapchart.adapters.server.systemd import Notifier

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
