"""Paths that llama-swap does not have, on a real proxy with real servers behind it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from tools import raw
from tools.net import LONG_S
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def proxy(serve_module: Serve, request: pytest.FixtureRequest) -> SwapchartProcess:
    """A proxy with a model whose id has a slash and an alias, and another one."""
    models = {"org/a b": demo_model("a", aliases=["short"]), "b": demo_model("b")}
    return serve_module(models, server=request.param)


def test_other_path_of_llama_server_reaches_it_by_body_and_by_query(
    proxy: SwapchartProcess,
) -> None:
    """llama-server's own paths work at the top level; without a model they name the parameter."""
    assert proxy.unload().status == 200
    chat = proxy.call("POST", "/chat/completions", value={"model": "short", **CHAT})
    tokens = proxy.call("POST", "/tokenize", value={"model": "short", "content": "one two"})
    same = proxy.call("POST", f"/tokenize?model={quote('org/a b')}", value={"content": "one two"})
    slots = proxy.call("GET", "/slots?model=short")

    assert chat.status == tokens.status == same.status == slots.status == 200
    assert chat.json()["choices"]
    assert tokens.json() == same.json()
    assert len(slots.json()) >= 1
    assert list(proxy.running()) == ["org/a b"]
    for method, path in (("POST", "/tokenize"), ("GET", "/slots"), ("POST", "/slots/0")):
        missing = proxy.call(method, path, value={} if method == "POST" else None)
        assert missing.status == 400
        assert "?model=NAME" in missing.json()["error"]["message"]


def test_other_path_that_no_route_has_passes_bytes_unchanged(proxy: SwapchartProcess) -> None:
    """A POST to any path keeps its percent-encoding, query, headers and body on the wire."""
    body = b'{ "model":"short",  "text": "\\u00e4" }'
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        connection.send(
            b"POST /echo/a%2Fb/%20?x=%41&y HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Own: 1\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for piece in (body[:7], body[7:]):
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")
        answer = connection.read_answer()
        got = answer.json()
        connection.request("POST", "/v9/typo", value={"model": "nobody"})
        unknown = connection.read_answer()
        connection.request("POST", "/running", value={"model": "b"})
        other = connection.read_answer()

    assert answer.status == 200
    assert (got["method"], got["target"]) == ("POST", "/echo/a%2Fb/%20?x=%41&y")
    assert got["body"]["length"] == len(body)
    assert ["x-own", "1"] in [[name.lower(), value] for name, value in got["headers"]]
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert other.status == 405
    assert "b" not in proxy.running()


def test_other_path_with_a_form_reaches_the_model(proxy: SwapchartProcess) -> None:
    """A multipart form goes to the model that it names, on a path that only its server knows."""
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + bytes(100_000)
        + b'\r\n--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nshort\r\n--x--\r\n'
    )
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for path in ("/echo/v1/audio/translations", "/v1/audio/translations"):
        answer = proxy.call("POST", path, body=form, headers=kind)
        # the demo server has no translations: its own error, not one of the proxy
        assert answer.status == (200 if path.startswith("/echo") else 404), path
        assert json.loads(answer.body).get("src") is None
    assert list(proxy.running()) == ["org/a b"]


def test_model_endpoint_finds_ids_with_slashes_and_aliases(proxy: SwapchartProcess) -> None:
    """`GET /v1/models/{id}` needs no started model, and takes an id with or without escapes."""
    assert proxy.unload().status == 200
    for path, name in (("org/a%20b", "org/a b"), ("org%2Fa%20b", "org/a b"), ("short", "short")):
        record = proxy.get(f"/v1/models/{path}")
        assert (record["id"], record["object"]) == (name, "model")
    assert proxy.call("GET", "/v1/models/none").status == 404
    assert proxy.running() == {}
