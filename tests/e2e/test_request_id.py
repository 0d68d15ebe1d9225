"""Ids of requests with real servers: one in each response, in the log, and at the model."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tools import raw
from tools.net import LONG_S, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body, demo_model

pytestmark = pytest.mark.slow

OURS = re.compile(r"[0-9a-f]{8}-[0-9a-f]+")
ECHO = str(Path(__file__).parents[1] / "tools" / "websocket_model.py")
#: A model that responds with the request's headers, and has an id of its own.
MIRROR = """
import http.server, json, sys
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()
    def do_GET(self):
        body = json.dumps(list(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("X-Request-Id", "theirs")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Mirror).serve_forever()
"""
KEY = {"Authorization": "Bearer sk-all"}
WEBSOCKET = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request, and the status of its response."""

    status: int
    method: str
    target: str
    value: object = None
    headers: tuple[tuple[str, str], ...] = (*KEY.items(),)


REQUESTS = [
    Asked(200, "GET", "/health", headers=()),
    Asked(200, "HEAD", "/health", headers=()),
    Asked(200, "GET", "/ui/"),
    Asked(200, "GET", "/api/queue"),
    Asked(200, "GET", "/v1/models"),
    Asked(200, "POST", CHAT, chat_body("demo")),
    Asked(200, "POST", CHAT, chat_body("demo", stream=True)),
    Asked(200, "POST", CHAT, chat_body("mirror")),
    Asked(204, "OPTIONS", CHAT, headers=(("Origin", "http://localhost"),)),
    Asked(302, "GET", "/"),
    Asked(400, "POST", CHAT, {}),
    Asked(401, "POST", CHAT, chat_body("demo"), headers=()),
    Asked(401, "GET", "/api/queue", headers=(("Authorization", "Bearer wrong"),)),
    Asked(403, "POST", "/api/models/unload", headers=(("Authorization", "Bearer sk-demo"),)),
    Asked(403, "POST", CHAT, chat_body("demo"), headers=(("Origin", "https://evil.example"),)),
    Asked(404, "POST", CHAT, chat_body("unknown")),
    Asked(404, "GET", "/nowhere"),
    Asked(405, "DELETE", "/v1/models"),
    Asked(421, "GET", "/health/readiness", headers=(("Host", "evil.example"), *KEY.items())),
    Asked(502, "POST", CHAT, chat_body("broken")),
    Asked(101, "GET", "/upstream/echo/", headers=(*WEBSOCKET.items(), *KEY.items())),
    Asked(401, "GET", "/upstream/echo/", headers=(*WEBSOCKET.items(),)),
    Asked(404, "GET", "/upstream/none/", headers=(*WEBSOCKET.items(), *KEY.items())),
]  # fmt: skip


@pytest.fixture(
    scope="module", params=["hypercorn", "uvicorn", "hypercorn --stock", "uvicorn --stock"]
)
def proxy(request: pytest.FixtureRequest, serve_module: Serve) -> SwapchartProcess:
    at_port = {"proxy": "http://127.0.0.1:${PORT}"}
    found = serve_module(
        {
            "demo": demo_model("demo"),
            "mirror": {"cmd": [sys.executable, "-c", MIRROR, "${PORT}"], **at_port},
            "echo": {"cmd": [sys.executable, ECHO, "${PORT}"], **at_port},
            "broken": {"cmd": ["false", "${PORT}"], **at_port},
        },
        config={
            "apiKeys": [
                {"key": "sk-all"},
                {"key": "sk-demo", "scopes": ["infer"], "models": ["demo"]},
            ],
            "captureBuffer": 1,
            "groups": {"all": {"swap": False, "members": ["demo", "mirror", "echo", "broken"]}},
        },
        server=request.param,
    )
    found.may_log = "event=tripped"
    found.headers = KEY
    return found


def ids_of(head: raw.Head) -> list[str]:
    return [value for name, value in head.headers if name.lower() == "x-request-id"]


def exchange(proxy: SwapchartProcess, asked: Asked, *more: tuple[str, str]) -> raw.Head:
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        connection.request(
            asked.method, asked.target, value=asked.value, headers=(*asked.headers, *more)
        )
        return connection.read_head()


@pytest.mark.parametrize("asked", REQUESTS, ids=lambda one: f"{one.status} {one.target}")
def test_every_response_has_the_id_of_its_request(proxy: SwapchartProcess, asked: Asked) -> None:
    """The client's if it is well formed, else one of ours; exactly one."""
    named = exchange(proxy, asked, ("X-Request-ID", "mine.1"))
    odd = exchange(proxy, asked, ("X-Request-ID", "two words"))
    unnamed = exchange(proxy, asked)

    assert {named.status, odd.status, unnamed.status} == {asked.status}
    assert ids_of(named) == ["mine.1"]
    for head in (odd, unnamed):
        (found,) = ids_of(head)
        assert OURS.fullmatch(found)
    assert ids_of(odd) != ids_of(unnamed)


MALFORMED = [
    b"GET / HTTP/1.1\r\nBad Name: 1\r\n\r\n",
    b"what\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("sent", MALFORMED, ids=lambda data: repr(data[:24]))
def test_response_to_malformed_input_has_an_id(proxy: SwapchartProcess, sent: bytes) -> None:
    """Whichever layer responds."""
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        connection.send(sent)
        head = connection.read_head()
    (found,) = ids_of(head)

    assert 400 <= head.status < 600
    assert OURS.fullmatch(found)


def test_id_is_the_same_at_the_model_and_in_the_records(proxy: SwapchartProcess) -> None:
    """The model gets it; access log, activity and capture have it."""
    chat = chat_body("mirror")
    answer = proxy.call("POST", CHAT, value=chat, headers={**KEY, "X-Request-ID": "mine.2"})
    other = proxy.call("POST", CHAT, value=chat, headers={**KEY, "X-Request-ID": "not;mine"})
    names = ["mine.2", *ids_of(other)]
    rows = rows_of(proxy, names)
    captured = [proxy.get(f"/api/captures/{row['id']}") for row in rows]
    lines = proxy.call("GET", "/logs").body.decode().splitlines()

    assert [upstream_ids(found.json()) for found in (answer, other)] == [[name] for name in names]
    assert [row["request_id"] for row in rows] == names
    assert [found["request_id"] for found in captured] == names
    for name in names:
        (line,) = [line for line in lines if line.endswith(f"request={name}")]
        assert CHAT in line


def rows_of(proxy: SwapchartProcess, names: list[str]) -> list[dict[str, Any]]:
    """Return the activity rows of the requests *names*, in that order."""

    def look() -> list[dict[str, Any]]:
        rows = proxy.get("/api/metrics/activity?limit=200")["data"]
        found = {row.get("request_id"): row for row in rows}
        return [found[name] for name in names if name in found]

    wait_until(lambda: len(look()) == len(names), LONG_S, what=f"rows of {names}")
    return look()


def upstream_ids(headers: list[list[str]]) -> list[str]:
    return [value for name, value in headers if name.lower() == "x-request-id"]
