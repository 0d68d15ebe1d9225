"""The whole proxy below a path of a reverse proxy that takes the prefix off, or leaves it on."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest
from tools import raw
from tools.clients import openai_client
from tools.prefix_relay import serving_below
from tools.swapchart_process import Serve, SwapchartProcess, chat_body, demo_model
from websockets.sync.client import connect

pytestmark = pytest.mark.slow

ECHO = str(Path(__file__).parents[1] / "tools" / "websocket_model.py")
MODELS = {
    "a": demo_model("a"),
    "echo": {"cmd": [sys.executable, ECHO, "${PORT}"], "proxy": "http://127.0.0.1:${PORT}"},
}
ROOT = "/llm"
REDIRECTS = {
    "/": "/llm/ui",
    "/ui": "/llm/ui/",
    "/upstream": "/llm/ui/models",
    "/upstream/a?x=%2F": "/llm/upstream/a/?x=%2F",
    "//v1/models": "/llm/v1/models",
}


def check_all(port: int, prefix: str) -> None:
    """Check routes, redirects, page, document, streams and websockets below *prefix* at *port*."""
    for target, location in REDIRECTS.items():
        answer = raw.call(port, "GET", prefix + target)
        assert answer.header("location") == location, (target, answer)
    browser = raw.call(port, "GET", f"{prefix}/logs", headers={"accept": "text/html"})
    assert browser.header("location") == "/llm/ui/"
    page = raw.call(port, "GET", f"{prefix}/ui/").body.decode()
    for name in re.findall(r'(?:src|href)="([^"#]+\.(?:js|css|svg))"', page):
        assert raw.call(port, "GET", f"{prefix}/ui/{name}").status == 200
    document = raw.call(port, "GET", f"{prefix}/openapi.json").json()
    assert document["servers"] == [{"url": ROOT}]
    assert raw.call(port, "GET", f"{prefix}/nothing").status == 404
    chat = f"{prefix}/v1/chat/completions"
    for _ in range(2):  # the second one by the fast path
        assert raw.call(port, "POST", chat, value=chat_body("a")).status == 200
    for target, method, value in (
        (chat, "POST", chat_body("a", 100_000, stream=True, ignore_eos=True)),
        (f"{prefix}/api/events", "GET", None),
        (f"{prefix}/logs/stream/a", "GET", None),
    ):
        with raw.Connection(port) as connection:
            connection.request(method, target, value=value)
            assert connection.read_head().status == 200
            assert connection.read_chunk()
    with connect(f"ws://127.0.0.1:{port}{prefix}/upstream/echo/x", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


def test_proxy_below_a_root_path_works_with_and_without_the_prefix(
    layer: str, serve: Serve
) -> None:
    """Behind a reverse proxy of either kind, and at the proxy's own address with either path."""
    proxy = serve(MODELS, server=layer, options=["--root-path", f"{ROOT}/"])
    for keeps_prefix in (False, True):
        with serving_below(ROOT, proxy.port, keeps_prefix=keeps_prefix) as address:
            check_all(int(re.findall(r":(\d+)", address)[0]), ROOT)
        check_all(proxy.port, ROOT if keeps_prefix else "")
    assert raw.call(proxy.port, "GET", ROOT).header("location") == "/llm/ui"
    paths = {row["req_path"] for row in proxy.get("/api/metrics/activity")["data"]}
    assert "/v1/chat/completions" in paths
    assert not any(path.startswith(ROOT) for path in paths)


def test_proxy_below_a_root_path_uses_the_fast_path(serve: Serve) -> None:
    """OpenAI's client below the prefix gets the same responses as without it."""
    proxy = serve(MODELS, options=["--root-path", ROOT])
    with openai_client(proxy.port, "none") as client:
        texts = set()
        for prefix in ("", ROOT):
            client.base_url = f"http://127.0.0.1:{proxy.port}{prefix}/v1/"
            for _ in range(3):
                answer = client.chat.completions.create(**chat_body("a", 3))  # type: ignore[call-overload]
                texts.add(answer.choices[0].message.content)
    assert len(texts) == 1


@pytest.mark.parametrize("server", ["hypercorn", "uvicorn"])
def test_proxy_under_a_server_with_a_root_path_works(server: str, serve: Serve) -> None:
    """`create_app` below the root path that the server's own command gets."""
    command = {
        "hypercorn": ["hypercorn", "--bind", "127.0.0.1:0", "--root-path", ROOT],
        "uvicorn": ["uvicorn", "--port", "0", "--root-path", ROOT, "--factory"],
    }[server]
    app = "swapchart.adapters.asgi:create_app" + ("()" if server == "hypercorn" else "")
    proxy: SwapchartProcess = serve(MODELS, argv=[sys.executable, "-m", *command, app])
    with serving_below(ROOT, proxy.port) as address:
        check_all(int(re.findall(r":(\d+)", address)[0]), ROOT)
    assert proxy.stop() == {"hypercorn": 0, "uvicorn": -signal.SIGTERM}[server]


def test_root_path_that_is_a_route_is_refused(serve: Serve) -> None:
    """`serve` ends with code 2 before anything starts, and says why."""
    proxy = serve(MODELS, wait=False, options=["--root-path", "/v1"])

    assert proxy.wait() == 2
    assert "--root-path: " in proxy.output()
