"""Our HTTP/1.1 server inside hypercorn: what is left to the stock class, and when."""

from __future__ import annotations

import logging
from typing import Any

import hypercorn.asyncio.run
import hypercorn.protocol.h11
import pytest
from tools.h1_server import serving
from tools.raw import Connection
from tools.rows import row

from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits, patched_hypercorn
from swapchart.adapters.http1.server.websocket import hypercorn_websockets

run: Any = hypercorn.asyncio.run
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def is_stock(client: Connection) -> bool:
    """Tell by its Server field who answers."""
    client.send(GET)
    return str(client.read_answer().header("server")).startswith("hypercorn")


@pytest.mark.parametrize(
    "config",
    [{"accesslog": logging.getLogger("access")}, {"server_names": ["x"]}, {"max_requests": 99}],
)
def test_hypercorn_features_of_its_own_are_left_to_it(config: dict[str, Any]) -> None:
    """A server that is configured for more than we do is served by the stock class."""
    with serving("asyncio", **config) as server, server.connect() as client:
        assert server.is_patched
        assert is_stock(client)
    with serving("asyncio") as server, server.connect() as client:
        assert not is_stock(client)


@row("C41")
def test_hypercorn_tls_connection_is_served_by_our_protocol() -> None:
    """Connections under TLS are served by our layer, and the application knows of it."""
    with serving("asyncio, tls") as server, server.connect() as client:
        assert not is_stock(client)
    assert server.calls[0].scope["scheme"] == "https"


def test_hypercorn_of_unknown_version_serves_unchanged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the hook, or with another one, nothing is replaced, and one line says so."""

    class Other:
        def __init__(self, app: object, loop: object) -> None:
            pass

    stock = run.TCPServer
    for value in (None, Other, lambda *args: args):
        caplog.clear()
        if value is None:
            monkeypatch.delattr(run, "TCPServer")
        else:
            monkeypatch.setattr(run, "TCPServer", value)
        with patched_hypercorn(H1Limits()) as is_patched:
            assert is_patched is False
            assert getattr(run, "TCPServer", None) is value
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        monkeypatch.undo()
    assert run.TCPServer is stock


def test_hypercorn_class_is_restored_after_serving() -> None:
    """When the context ends hypercorn is what it was."""
    stock = run.TCPServer
    with patched_hypercorn(H1Limits()) as is_patched:
        assert is_patched
        assert run.TCPServer is not stock
    assert run.TCPServer is stock


def test_hypercorn_websockets_of_an_unknown_hypercorn_stay_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the class, or with another one, nothing is replaced, and one line says so."""

    class Other:
        def __init__(self, app: object) -> None:
            pass

    h11: Any = hypercorn.protocol.h11
    stock = h11.WSStream
    for value in (None, Other, lambda *args: args):
        caplog.clear()
        if value is None:
            monkeypatch.delattr(h11, "WSStream")
        else:
            monkeypatch.setattr(h11, "WSStream", value)
        with hypercorn_websockets() as is_replaced:
            assert is_replaced is False
            assert getattr(h11, "WSStream", None) is value
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        monkeypatch.undo()
    with hypercorn_websockets() as is_replaced:
        assert is_replaced
        assert h11.WSStream is not stock
    assert h11.WSStream is stock
