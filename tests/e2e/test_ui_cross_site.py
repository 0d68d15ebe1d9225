"""Pages of other sites in a real Chromium that has a password of Basic for the proxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from tools.browser import chromium_path
from tools.net import LONG_S, free_port
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

GOOD, EVIL = "good.example", "evil.example"
KEY = "sk-admin"


class _Pages(BaseHTTPRequestHandler):
    """An empty page for whatever is asked for."""

    def do_GET(self) -> None:
        page = b"<!doctype html><title>elsewhere</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """Pages of every other site; returns their port."""
    server = ThreadingHTTPServer(("127.0.0.1", free_port()), _Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for which both names of other sites are here."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    names = ",".join(f"MAP {name} 127.0.0.1" for name in (GOOD, EVIL))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", f"--host-resolver-rules={names}"]
        )
        yield browser
        browser.close()


@pytest.fixture
def proxy(serve: Serve, site: int) -> SwapchartProcess:
    keys = {"apiKeys": [KEY], "allowedOrigins": [f"http://{GOOD}:{site}"]}
    proxy = serve({"a": demo_model("a")}, config=keys)
    proxy.may_log = "request refused"
    return proxy


class Wire:
    """Passes connections on to the proxy, and keeps what the browser sent."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent: list[bytearray] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *given: object) -> None:
        thread = threading.Thread(target=work, args=given)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
                kept = bytearray()
                self.sent.append(kept)
                self._sockets += [client, server]
                self._start(self._pass, client, server, kept)
                self._start(self._pass, server, client, None)

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket, kept: bytearray | None) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if kept is not None:
                    kept += data
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def requests(self, start: bytes) -> list[bytes]:
        """Return the heads that begin with *start*."""
        whole = b"".join(self.sent)
        return [start + part.partition(b"\r\n\r\n")[0] for part in whole.split(start)[1:]]

    def close(self) -> None:
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LONG_S)
        for end in self._sockets:
            end.close()


@pytest.fixture
def wire(proxy: SwapchartProcess) -> Iterator[Wire]:
    wire = Wire(proxy.port)
    yield wire
    wire.close()


@pytest.fixture
def page(browser: Browser, wire: Wire) -> Iterator[Page]:
    """A page of a browser that has stored the key."""
    context = browser.new_context(http_credentials={"username": "me", "password": KEY})
    context.set_default_timeout(LONG_S * 1000)
    page = context.new_page()
    opened = page.goto(f"http://127.0.0.1:{wire.port}/ui/")
    assert opened is not None
    assert opened.status == 200
    yield page
    context.close()


def is_loaded(proxy: SwapchartProcess) -> bool:
    answer = proxy.call("GET", "/running", headers={"x-api-key": KEY})
    return bool(answer.json()["running"])


def submit(page: Page, target: str, kind: str) -> int:
    """Submit a form of the page to *target*; returns the status."""
    with page.expect_navigation() as found:
        page.evaluate(
            """([target, kind]) => {
              const form = document.createElement("form");
              Object.assign(form, {method: "post", action: target, enctype: kind});
              const field = document.createElement("input");
              Object.assign(field, {name: "model", value: "a"});
              form.append(field);
              document.body.append(form);
              form.submit();
            }""",
            [target, kind],
        )
    assert found.value is not None
    return found.value.status


FORMS = ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data")


def test_form_of_another_site_with_stored_basic_is_refused(
    page: Page, proxy: SwapchartProcess, wire: Wire, site: int
) -> None:
    """A form of a foreign page gets 403, though the browser adds the password by itself."""
    url = f"http://127.0.0.1:{wire.port}"
    page.goto(f"http://{GOOD}:{site}/")
    assert submit(page, f"{url}/api/models/unload", FORMS[0]) == 200  # the password goes along
    for kind in FORMS:
        for target in ("/api/models/unload", "/v1/completions", "/upstream/a/v1/completions"):
            page.goto(f"http://{EVIL}:{site}/")
            assert submit(page, url + target, kind) == 403, (kind, target)
    repeated = [head for head in wire.requests(b"POST ") if b"\nAuthorization: Basic " in head]
    origins = [f"Origin: http://{name}:".encode() for name in (GOOD, EVIL)]
    assert [sum(origin in head for head in repeated) for origin in origins] == [1, len(FORMS)]
    assert not is_loaded(proxy)
    for path in ("/upstream/a/", "/unload"):  # an image says GET and adds the password, too
        page.goto(f"http://{EVIL}:{site}/")
        page.evaluate(
            """target => new Promise((done) => {
              const image = new Image();
              image.onload = image.onerror = done;
              image.src = target;
            })""",
            url + path,
        )
    assert not is_loaded(proxy)


def test_click_on_another_site_only_opens_pages(
    page: Page, proxy: SwapchartProcess, wire: Wire, site: int
) -> None:
    """A link of a foreign page leads to the UI and to a model's page, and unloads nothing."""
    url = f"http://127.0.0.1:{wire.port}"
    for target, status in (("/ui/", 200), ("/upstream/a/", 200), ("/unload", 403)):
        page.goto(f"http://{EVIL}:{site}/")
        page.evaluate(
            """target => {
              const link = document.createElement("a");
              Object.assign(link, {href: target, textContent: "there"});
              document.body.append(link);
            }""",
            url + target,
        )
        with page.expect_navigation() as found:
            page.get_by_role("link", name="there").click()
        assert found.value is not None
        assert found.value.status == status, target
    assert is_loaded(proxy)


def test_script_of_another_site_needs_a_key_of_its_own(
    page: Page, proxy: SwapchartProcess, wire: Wire, site: int
) -> None:
    """A script of a foreign page is let in by the key that it adds, and by nothing else."""
    ask = """async ([target, headers, credentials]) => {
      try {
        const answer = await fetch(target, {method: "POST", headers, credentials, body: "{}"});
        return [answer.status, (await answer.json()).msg ?? ""];
      } catch {
        return [0, ""];
      }
    }"""
    target = f"http://127.0.0.1:{wire.port}/api/models/unload"
    page.goto(f"http://{EVIL}:{site}/")
    plain = {"content-type": "application/json"}
    for headers, credentials, wanted in (
        ({**plain, "authorization": f"Bearer {KEY}"}, "omit", [200, "ok"]),
        ({**plain, "x-api-key": KEY}, "omit", [200, "ok"]),
        ({**plain, "x-api-key": "sk-wrong"}, "omit", [401, ""]),
        ({**plain, "x-api-key": KEY}, "include", [0, ""]),  # no credentials besides, says CORS
        (plain, "include", [0, ""]),
        ({}, "include", [0, ""]),
    ):
        assert page.evaluate(ask, [target, headers, credentials]) == wanted, headers
