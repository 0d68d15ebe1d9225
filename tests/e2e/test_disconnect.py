"""A client that leaves frees everything it held, wherever its request was.

It leaves in good order (FIN) or not (RST); the upstream and the model must not care.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest
from tools import raw
from tools.net import LONG_S
from tools.rows import row
from tools.swapchart_process import Journal, Serve, shell

pytestmark = pytest.mark.slow

WAYS = ("close", "reset")


def leave(connection: raw.Connection, way: str) -> None:
    connection.reset() if way == "reset" else connection.close()


@row("C15")
def test_client_that_leaves_the_queue_starts_nothing(
    serve: Serve, layer: str, journal: Journal
) -> None:
    """A request that waits for a swap and loses its client is forgotten: no swap."""
    proxy = serve({name: journal.model(name) for name in "ab"}, server=layer)
    with proxy.open_chat("a", events=60, every_s=0.03) as stream:
        head = stream.read_head()
        for way in WAYS:
            leave(proxy.open_chat("b"), way)
        assert stream.read_body(head).body.endswith(b"data: [DONE]\n\n")
    assert proxy.chat("a").status == 200

    assert [*proxy.running()] == ["a"]
    assert proxy.running()["a"]["incarnation"] == 1
    assert journal.words("b started") == []


@pytest.mark.parametrize("way", WAYS)
@row("C15")
def test_client_that_leaves_a_loading_model_is_removed(
    serve: Serve, server: str, way: str, journal: Journal
) -> None:
    """No request waits any more, the load goes on, and the model is ready for the next request."""
    proxy = serve({"a": journal.model("a", "--load-s", "1.5")}, server=server)
    connection = proxy.open_chat("a")
    proxy.wait_busy("a", waiting=1)
    leave(connection, way)
    proxy.wait_busy("a", waiting=0)

    assert proxy.state("a") in ("launching", "health_checking")
    proxy.wait_state("a", "ready")
    assert proxy.running()["a"]["in_flight"] == 0
    assert journal.words("request") == []


def test_abandoned_start_is_aborted_if_configured(serve: Serve, journal: Journal) -> None:
    """With ``abandon: abort`` the last client that leaves a loading model ends the load."""
    proxy = serve({"a": journal.model("a", "--never-healthy", abandon="abort")})
    connections = [proxy.open_chat("a") for _ in range(2)]
    journal.wait("^a started")
    proxy.wait_busy("a", waiting=2)
    connections[0].close()
    proxy.wait_busy("a", waiting=1)
    assert proxy.state("a") == "health_checking"
    connections[1].close()

    proxy.wait_state("a", "stopped")
    assert journal.words("SIGTERM") == ["a SIGTERM"]


@row("C14")
def test_client_that_leaves_frees_the_upstream(serve: Serve, layer: str, journal: Journal) -> None:
    """In a stream, and before its answer began: the upstream sees the connection close."""
    proxy = serve({"a": journal.model("a")}, server=layer)
    for count, way in enumerate(WAYS):
        stream = proxy.open_chat("a", events=10_000, every_s=0.05)
        stream.read_head()
        stream.read_chunk()
        proxy.wait_busy("a", in_flight=1)
        leave(stream, way)
        journal.wait("^a gone", count=2 * count + 1)
        proxy.wait_idle("a")

        silent = proxy.open_chat("a", hang=True)
        journal.wait("^a request", count=2 * count + 2)
        leave(silent, way)
        journal.wait("^a gone", count=2 * count + 2)
        proxy.wait_idle("a")

    assert proxy.chat("a").status == 200


@row("C15")
def test_client_that_leaves_with_half_its_body_sent_frees_the_model(
    serve: Serve, server: str, journal: Journal
) -> None:
    """An upload that breaks off is neither answered nor left hanging."""
    proxy = serve({"a": journal.model("a")}, server=server)
    size = {"Content-Length": "1000000", "Content-Type": "application/octet-stream"}
    for way in WAYS:
        connection = raw.Connection(proxy.port, timeout_s=LONG_S)
        connection.request("POST", "/upstream/a/upload", headers=size)
        connection.send(b"x" * 70_000)
        proxy.wait_busy("a", in_flight=1)
        leave(connection, way)
        proxy.wait_idle("a")

    assert proxy.chat("a").status == 200


@pytest.mark.parametrize("size", [200_000, 20_000_000], ids=["sent", "not taken"])
@row("C15")
def test_client_that_leaves_an_unread_upload_frees_the_model(
    serve: Serve, server: str, journal: Journal, size: int
) -> None:
    """Its body, or what we have of it, is stuck before a server that hangs: it is let go."""
    proxy = serve({"a": journal.model("a")}, server=server)
    assert proxy.chat("a").status == 200
    pid = proxy.running()["a"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        for way in WAYS:
            connection = raw.Connection(proxy.port, timeout_s=LONG_S)
            fields = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            connection.request("POST", "/upstream/a/upload", headers=fields)
            connection.socket.setblocking(False)
            with suppress(BlockingIOError):
                connection.socket.sendall(b"x" * size)
            proxy.wait_busy("a", in_flight=1)
            leave(connection, way)
            proxy.wait_idle("a")
    finally:
        os.kill(pid, signal.SIGCONT)

    assert proxy.chat("a").status == 200


@row("C16")
def test_storm_of_disconnects_leaves_no_request_in_flight(
    serve: Serve, server: str, journal: Journal
) -> None:
    """Two hundred streams, each left at another moment, and every counter is back to 0."""
    proxy = serve({"a": journal.model("a", concurrencyLimit=300)}, server=server)
    for batch in range(10):
        connections = [proxy.open_chat("a", events=1000, every_s=0.02) for _ in range(20)]
        for number, connection in enumerate(connections):
            if number > 2 * batch:
                connection.read_head()
            leave(connection, WAYS[number % 2])

    proxy.wait_idle("a")
    assert proxy.chat("a").status == 200


@pytest.mark.parametrize("target", ["/logs/stream/a", "/logs/stream", "/api/events"])
def test_client_that_leaves_an_endless_response_is_no_error(
    serve: Serve, server: str, journal: Journal, target: str
) -> None:
    """The end of a client of a log or event stream is not logged as an error."""
    chatter = shell("while sleep 0.002; do echo chatter; done")
    proxy = serve({"a": journal.model("a", afterReady=chatter)}, server=server)
    assert proxy.chat("a").status == 200
    for number in range(12):
        connection = raw.Connection(proxy.port, timeout_s=LONG_S)
        connection.request("GET", target)
        connection.read_head()
        while b"chatter" not in connection.read_chunk():
            pass
        leave(connection, WAYS[number % 2])

    assert proxy.chat("a").status == 200
    assert len(proxy.output().splitlines()) < 20, proxy.output()
