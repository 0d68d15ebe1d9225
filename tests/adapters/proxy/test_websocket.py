"""Websockets through the proxy."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tools import raw
from tools.net import LONG_S, free_port, wait_until
from tools.rows import row
from tools.swapchart_process import Proxies, Serve, SwapchartProcess, demo_model
from tools.tls import PEM
from tools.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    accept_websocket,
    frame,
    send_until_stuck,
)
from tools.websocket_frames import handshake as handshake_with
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

pytestmark = pytest.mark.slow

_MODEL = str(Path(__file__).parents[2] / "tools" / "websocket_model.py")


@dataclass(slots=True)
class Place:
    """A running proxy, and by which server."""

    proxy: SwapchartProcess
    server: str

    def open(self, path: str, **options: Any) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.proxy.port}{path}"
        limits = {"open_timeout": LONG_S, "close_timeout": LONG_S, "max_size": 1 << 25}
        opened: ClientConnection = connect(url, **{**limits, **options})
        return opened


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn", "uvicorn --stock"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    proxies = Proxies(tmp_path_factory.mktemp("websockets"))
    models = {
        "org/a": demo_model("a", aliases=["a"]),
        "b": demo_model("b"),
        "quiet": demo_model("quiet", compat={"ignoreWebsockets": True}),
        # Like llama-server it does not end while a client is connected, and is killed then.
        "comfyui_auto": demo_model("comfyui_auto", unloadTimeout=1),
        "library": {"cmd": [sys.executable, _MODEL, "${PORT}"]},
    }
    try:
        proxy = proxies.serve(models, server=request.param)
        yield Place(proxy, request.param)
        proxies.end()
    finally:
        proxies.close()


@pytest.mark.parametrize("path", ["/upstream/org/a/ws", "/upstream/a/ws?x=%2F"])
def test_websocket_messages_pass_in_both_directions(place: Place, path: str) -> None:
    """Text and bytes of any size come back as they were sent; the model is started for it."""
    with place.open(path) as socket:
        for message in ("h\u00e9llo", b"\x00\xff", "", b"", "x" * 70_000, b"y" * 1_000_000):
            socket.send(message)

            assert socket.recv(timeout=LONG_S) == message
        assert place.proxy.running()["org/a"]["in_flight"] == 1
        assert "b" not in place.proxy.running()
    place.proxy.wait_idle("org/a")


def test_websocket_many_connections_work_at_once(place: Place) -> None:
    """Messages keep their order and do not mix, however many there are."""
    with place.open("/upstream/a/ws") as one, place.open("/upstream/a/ws") as two:
        for number in range(200):
            one.send(f"one {number}")
            two.send(f"two {number}")
        assert [one.recv(timeout=LONG_S) for _ in range(200)] == [f"one {n}" for n in range(200)]
        assert [two.recv(timeout=LONG_S) for _ in range(200)] == [f"two {n}" for n in range(200)]


def test_websocket_subprotocol_of_the_model_is_accepted(place: Place) -> None:
    """The server of the model chooses among those that the client offers."""
    offered = [Subprotocol("v2.chat"), Subprotocol("v1.chat")]
    with place.open("/upstream/a/ws", subprotocols=offered) as socket:
        assert socket.subprotocol == "v2.chat"


def test_websocket_keep_alive_header_says_how_long_the_model_stays(place: Place) -> None:
    """As in a request: 0 unloads the model after the websocket, and a bad value is refused."""
    with place.open("/upstream/b/ws", additional_headers={"X-Keep-Alive": "0s"}) as socket:
        socket.send("x")
        assert socket.recv(timeout=LONG_S) == "x"
        assert place.proxy.running()["b"]["in_flight"] == 1
    wait_until(lambda: "b" not in place.proxy.running(), what="b is unloaded")
    with (
        pytest.raises(InvalidStatus) as refused,
        place.open("/upstream/b/ws", additional_headers={"X-Keep-Alive": "soon"}),
    ):
        pass
    assert refused.value.response.status_code == 400
    assert b"X-Keep-Alive is 'soon'" in (refused.value.response.body or b"")
    assert "b" not in place.proxy.running()


@row("C26")
def test_websocket_client_that_closes_frees_the_model(place: Place) -> None:
    """A client that closes, or is gone, frees its model."""
    with place.open("/upstream/a/ws") as socket:
        socket.close(4321, "enough")
    place.proxy.wait_idle("org/a")
    socket = place.open("/upstream/a/ws", ping_interval=None)  # its thread would outlive it
    socket.socket.close()
    place.proxy.wait_idle("org/a")


def test_websocket_close_code_of_the_client_reaches_the_model(place: Place) -> None:
    """The demo server closes with the code it was closed with: it has come to it, and back."""
    with place.open("/upstream/a/ws") as socket:
        socket.close(4321, "enough")

        assert (socket.close_code, socket.close_reason) == (4321, "enough")


def test_websocket_compression_is_agreed_on_with_the_model(place: Place) -> None:
    """What both can do they do, and messages far beyond 16 MiB pass, compressed and not."""
    path, options = "/upstream/library/ws", {"max_size": 1 << 27}
    with place.open(path, **options) as websocket:
        assert [one.name for one in websocket.protocol.extensions] == ["permessage-deflate"]
        for message in ("h\u00e9llo" * 10_000, bytes(40 << 20), ""):
            websocket.send(message)
            assert websocket.recv(timeout=LONG_S) == message
    with place.open(path, compression=None, **options) as websocket:
        assert websocket.protocol.extensions == []
        websocket.send(bytes(40 << 20))
        assert websocket.recv(timeout=LONG_S) == bytes(40 << 20)


def test_websocket_cancelled_by_an_operator_is_closed_with_1001(place: Place) -> None:
    """Cancelling the request ends the tunnel on both sides, and frees the model."""
    with place.open("/upstream/a/ws") as websocket:
        cancels = [f"/api/inflight/{number}/cancel" for number in range(1, 100)]
        assert 200 in [place.proxy.call("POST", path).status for path in cancels]
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(timeout=LONG_S)

        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
    place.proxy.wait_idle("org/a")


def test_websocket_connection_is_asked_for_by_the_kernel(place: Place) -> None:
    """A client whose host is gone is noticed: the proxy's end has a keep-alive timer."""
    with place.open("/upstream/a/ws") as websocket:
        port = websocket.socket.getsockname()[1]
        ends = f" 0100007F:{place.proxy.port:04X} 0100007F:{port:04X} 01 "
        (row,) = [line for line in Path("/proc/net/tcp").read_text().splitlines() if ends in line]

        timer, _, left = row.split()[5].partition(":")
        assert timer == "02"
        assert 0 < int(left, 16) <= 60 * os.sysconf("SC_CLK_TCK")


@row("C26")
def test_websocket_client_that_does_not_wait_for_101_holds_no_model(place: Place) -> None:
    """Whatever the server makes of bytes behind the handshake: with the client its request goes."""
    for _ in range(3):
        with raw.Connection(place.proxy.port, timeout_s=LONG_S) as client:
            client.send(handshake("/upstream/a/ws") + bytes(10))
            client.read_head()
    place.proxy.wait_idle("org/a")


@row("C26")
def test_websocket_client_that_leaves_before_its_handshake_is_finished(place: Place) -> None:
    """The model's server hangs: with the client its request goes, and nothing is held for it."""
    with place.open("/upstream/b/ws"):
        pid = place.proxy.running()["b"]["pid"]
    place.proxy.wait_idle("b")
    os.kill(pid, signal.SIGSTOP)
    try:
        with raw.Connection(place.proxy.port, timeout_s=LONG_S) as client:
            client.send(handshake("/upstream/b/ws"))
            place.proxy.wait_busy("b", in_flight=1)
        place.proxy.wait_idle("b")
    finally:
        os.kill(pid, signal.SIGCONT)


def handshake(path: str) -> bytes:
    fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
              "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}  # fmt: skip
    return raw.encode_request("GET", path, headers=fields)


@row("C26")
def test_websocket_model_that_stops_closes_the_client(place: Place) -> None:
    """When the model is stopped, the client is told that its server goes away."""
    with place.open("/upstream/b/ws") as socket:
        socket.send("x")
        assert socket.recv(timeout=LONG_S) == "x"
        pid = place.proxy.running()["b"]["pid"]
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(timeout=LONG_S)

        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
    wait_until(lambda: place.proxy.state("b") in ("stopped", "backoff"), LONG_S)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/upstream/nobody/ws", 404),
        ("/upstream/a/no/socket/here", 404),
        ("/v1/chat/completions", 404),
        ("/upstream/a/%zz", 400),
        ("/upstream/quiet/ws", 409),
    ],
)
@row("C26")
def test_websocket_refusals_are_http_responses(place: Place, path: str, status: int) -> None:
    """What cannot be opened is refused by an ordinary answer, before anything is accepted."""
    with pytest.raises(InvalidStatus) as caught:
        place.open(path)

    assert caught.value.response.status_code == status


@row("C31")
def test_websocket_of_a_foreign_page_is_refused(place: Place) -> None:
    """A page of another site gets no websocket, and a page of this machine does."""
    with pytest.raises(InvalidStatus) as caught:
        place.open("/upstream/a/ws", origin="https://evil.example")
    assert caught.value.response.status_code == 403
    with place.open("/upstream/a/ws", origin="http://localhost:3000") as socket:
        socket.send("x")
        assert socket.recv(timeout=LONG_S) == "x"


def test_websocket_of_comfyui_reaches_its_model(place: Place) -> None:
    """ComfyUI ignores websockets: they do not start it, and do not keep it up."""
    with pytest.raises(InvalidStatus) as caught:
        place.open("/comfyui/ws")
    assert caught.value.response.status_code == 409
    assert place.proxy.call("GET", "/comfyui/").status == 200
    with place.open("/comfyui/ws") as socket:
        socket.send("x")
        assert socket.recv(timeout=LONG_S) == "x"
        assert place.proxy.running()["comfyui_auto"]["in_flight"] == 0
        assert place.proxy.unload("comfyui_auto").status == 200
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=LONG_S)


@row("C34")
def test_websocket_key_reaches_only_a_model_that_asks_for_it(serve: Serve) -> None:
    """``passKeys`` holds for headers, query and subprotocols of a handshake too."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(LONG_S)
    server = {
        "external": True, "proxy": f"http://127.0.0.1:{listener.getsockname()[1]}",
        "checkEndpoint": "none",
    }  # fmt: skip
    models = {"a": server, "keyed": {**server, "passKeys": True}}
    proxy = serve(models, config={"apiKeys": ["sk-ours"]}, wait=False)
    proxy.headers = {"Authorization": "Bearer sk-ours"}
    proxy.wait_listening()
    for model in ("a", "keyed"):
        with raw.Connection(proxy.port, timeout_s=LONG_S) as client:
            client.send(
                handshake_with(
                    f"/upstream/{model}/ws?key=sk-ours&x=1",
                    authorization="Bearer sk-ours",
                    api_key="sk-ours",
                    sec_websocket_protocol="chat, insecure-api-key.sk-ours",
                )
            )
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(LONG_S)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(1 << 16)
        assert b"/ws?" in head
        assert b"x=1" in head
        assert head.count(b"sk-ours") == (4 if model == "keyed" else 0)
    listener.close()


# ---- other servers, and TLS
@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_websocket_under_tls_passes(serve: Serve, tmp_path: Path, server: str) -> None:
    """Under TLS it is the same: any message, any code, and the client's end frees the model."""
    pem = tmp_path / "both.pem"
    pem.write_text(PEM)
    options = ("--tls-cert-file", str(pem), "--tls-key-file", str(pem))
    proxy = serve({"a": demo_model("a")}, wait=False, server=server, options=options)
    wait_until(lambda: "listens on https://127.0.0.1:" in proxy.output(), LONG_S)
    found = re.search(r"https://127\.0\.0\.1:(\d+)", proxy.output())
    assert found
    context = ssl.create_default_context(cadata=PEM.partition("-----BEGIN PRIV")[0])
    limits: Any = {"open_timeout": LONG_S, "close_timeout": LONG_S, "max_size": 1 << 25}
    url = f"wss://localhost:{found[1]}/upstream/a/ws"
    with connect(url, ssl=context, **limits) as websocket:
        for message in ("h\u00e9llo", b"x" * 3_000_000):
            websocket.send(message)
            assert websocket.recv(timeout=LONG_S) == message
        websocket.close(4321)

        assert websocket.close_code == 4321


class Foreign:
    """A proxy under a server of the user's own, and the model ``hostile`` that the test plays."""

    def __init__(self, serve: Serve, command: str, folder: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "hostile"))
        self._listener.listen()
        self._listener.settimeout(LONG_S)
        app, port = "swapchart.adapters.asgi:create_app", str(free_port())
        where = {
            "hypercorn": [f"{app}()", "--bind", f"127.0.0.1:{port}"],
            "uvicorn": ["--factory", app, "--port", port, "--ws", "wsproto"],
        }
        upstream = Path(__file__).parents[2] / "attacks" / "upstream.py"
        path = self._listener.getsockname()
        hostile = {"cmd": [sys.executable, "-I", "-S", str(upstream), "${PORT}", path]}
        models = {"a": demo_model("a"), "hostile": hostile}
        argv = [sys.executable, "-m", command, *where[command]]
        self.proxy = serve(models, argv=argv)

    def open(self, model: str) -> ClientConnection:
        limits: Any = {"open_timeout": LONG_S, "close_timeout": LONG_S, "max_size": 1 << 25}
        url = f"ws://127.0.0.1:{self.proxy.port}/upstream/{model}/ws"
        opened: ClientConnection = connect(url, **limits)
        return opened

    def open_hostile(self) -> tuple[raw.Connection, socket.socket]:
        """Open a websocket to ``hostile``; returns both ends."""
        client = raw.Connection(self.proxy.port, timeout_s=LONG_S)
        client.send(handshake("/upstream/hostile/ws"))
        sender, _ = self._listener.accept()
        with sender:
            _, (fd,), _, _ = socket.recv_fds(sender, 1, 1)
        model = socket.socket(fileno=fd)
        model.settimeout(LONG_S)
        accept_websocket(model)
        assert client.read_head().status == 101
        return client, model

    def close(self) -> None:
        self._listener.close()
        self.proxy.note_guard()
        self.proxy.signal()
        self.proxy.wait(LONG_S)


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def foreign(
    request: pytest.FixtureRequest, serve_module: Serve, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    found = Foreign(serve_module, request.param, tmp_path_factory.mktemp("foreign"))
    yield found
    found.close()


def test_websocket_under_another_server_passes_messages(foreign: Foreign) -> None:
    """Messages and close codes pass both ways, and the client's end frees the model."""
    with foreign.open("a") as websocket:
        for message in ("h\u00e9llo", "", b"", b"x" * 3_000_000):
            websocket.send(message)
            assert websocket.recv(timeout=LONG_S) == message
        for number in range(200):
            websocket.send(f"{number}")
        assert [websocket.recv(timeout=LONG_S) for _ in range(200)] == list(map(str, range(200)))
        websocket.close(4321)
    foreign.proxy.wait_idle("a")


def test_websocket_under_another_server_ends_if_the_model_does_not_read(
    foreign: Foreign,
) -> None:
    """A client that leaves while its model reads nothing frees it."""
    client, model = foreign.open_hostile()
    with client, model:
        message = frame(BINARY, bytes(1000), is_masked=True)
        send_until_stuck(client.socket, message * 1000, limit=6_000_000)
        client.close()
        foreign.proxy.wait_idle("hostile")


def test_websocket_under_another_server_of_a_long_message_is_closed(foreign: Foreign) -> None:
    """A model's message beyond 16 MiB, in a frame or in fragments, is too big."""
    mebibyte = bytes(1 << 20)
    for data, piece in (
        (frame(BINARY, size=1 << 40), mebibyte),
        (frame(BINARY, is_last=False), frame(0, mebibyte, is_last=False)),
    ):
        client, model = foreign.open_hostile()
        with client, model:
            model.sendall(data)
            send_until_stuck(model, piece, limit=64 << 20)
            assert client.read_exactly(4) == frame(CLOSE, (1009).to_bytes(2, "big"))
    foreign.proxy.wait_idle("hostile")


def test_websocket_under_another_server_of_tiny_fragments_delays_no_other(
    foreign: Foreign,
) -> None:
    """100,000 empty fragments and pings of a model pass without holding other clients up."""
    client, model = foreign.open_hostile()
    with client, model:
        tiny = frame(0, is_last=False) + frame(PING)
        model.sendall(frame(TEXT, is_last=False) + tiny * 50_000)
        worst_s = 0.0
        for _ in range(20):
            begin = time.monotonic()
            assert foreign.proxy.call("GET", "/health").status == 200
            worst_s = max(worst_s, time.monotonic() - begin)
        model.sendall(frame(0, b"end"))
        assert client.read_exactly(5) == frame(TEXT, b"end")
    print(f"/health took {worst_s * 1000:.0f} ms at most")
    assert worst_s < 0.5
