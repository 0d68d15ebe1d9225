"""Websockets through the proxy: llama-swap.md section 3.8, faults.md row C26."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tools import raw
from tools.net import wait_until
from tools.swapchart_process import Proxies, SwapchartProcess, demo_model
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

pytestmark = pytest.mark.slow

LONG_S = 20.0


@dataclass(slots=True)
class Place:
    """A running proxy, and by which server."""

    proxy: SwapchartProcess
    server: str

    def open(self, path: str, **options: Any) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.proxy.port}{path}"
        limits: Any = {"open_timeout": LONG_S, "close_timeout": LONG_S, "max_size": 1 << 25}
        opened: ClientConnection = connect(url, **limits, **options)
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
        "comfyui_auto": demo_model("comfyui_auto"),
    }
    try:
        proxy = proxies.serve(models, server=request.param)
        yield Place(proxy, request.param)
        proxies.end()
    finally:
        proxies.close()


@pytest.mark.parametrize("path", ["/upstream/org/a/ws", "/upstream/a/ws?x=%2F"])
def test_3_8_messages_go_both_ways(place: Place, path: str) -> None:
    """Text and bytes of any size come back as they were sent; the model is started for it."""
    with place.open(path) as socket:
        for message in ("h\u00e9llo", b"\x00\xff", "", b"", "x" * 70_000, b"y" * 1_000_000):
            socket.send(message)

            assert socket.recv(timeout=LONG_S) == message
        assert place.proxy.running()["org/a"]["in_flight"] == 1
        assert "b" not in place.proxy.running()
    place.proxy.wait_idle("org/a")


def test_3_8_many_at_once(place: Place) -> None:
    """Messages keep their order and do not mix, however many there are."""
    with place.open("/upstream/a/ws") as one, place.open("/upstream/a/ws") as two:
        for number in range(200):
            one.send(f"one {number}")
            two.send(f"two {number}")
        assert [one.recv(timeout=LONG_S) for _ in range(200)] == [f"one {n}" for n in range(200)]
        assert [two.recv(timeout=LONG_S) for _ in range(200)] == [f"two {n}" for n in range(200)]


def test_3_8_subprotocols(place: Place) -> None:
    """The server of the model chooses among those that the client offers."""
    offered = [Subprotocol("v2.chat"), Subprotocol("v1.chat")]
    with place.open("/upstream/a/ws", subprotocols=offered) as socket:
        assert socket.subprotocol == "v2.chat"


def test_C26_the_client_closes(place: Place) -> None:
    """A client that closes, or is gone, frees its model."""
    with place.open("/upstream/a/ws") as socket:
        socket.close(4321, "enough")
    place.proxy.wait_idle("org/a")
    socket = place.open("/upstream/a/ws")
    socket.socket.close()
    place.proxy.wait_idle("org/a")


def test_C26_a_client_that_does_not_wait_for_101_holds_no_model(place: Place) -> None:
    """Whatever the server makes of bytes behind the handshake: with the client its request goes."""
    for _ in range(3):
        with raw.Connection(place.proxy.port, timeout_s=LONG_S) as client:
            client.send(handshake("/upstream/a/ws") + bytes(10))
            client.read_head()
    place.proxy.wait_idle("org/a")


def test_C26_a_client_that_leaves_before_its_handshake_is_answered(place: Place) -> None:
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


def test_C26_the_model_goes(place: Place) -> None:
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
def test_C26_refusals_are_http(place: Place, path: str, status: int) -> None:
    """What cannot be opened is refused by an ordinary answer, before anything is accepted."""
    with pytest.raises(InvalidStatus) as caught:
        place.open(path)

    assert caught.value.response.status_code == status


def test_C31_pages_of_other_sites_open_nothing(place: Place) -> None:
    """A page of another site gets no websocket, and a page of this machine does."""
    with pytest.raises(InvalidStatus) as caught:
        place.open("/upstream/a/ws", origin="https://evil.example")
    assert caught.value.response.status_code == 403
    with place.open("/upstream/a/ws", origin="http://localhost:3000") as socket:
        socket.send("x")
        assert socket.recv(timeout=LONG_S) == "x"


def test_3_8_comfyui(place: Place) -> None:
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
