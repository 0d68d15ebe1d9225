"""Reading from a cold model under each setting of ``startOnGet``, on real proxies."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from tools import raw
from tools.net import LONG_S
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body, demo_model

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow


PROXIES = [
    ("all", "hypercorn"), ("pages", "hypercorn"), ("none", "hypercorn"), ("pages", "uvicorn"),
]  # fmt: skip


@pytest.fixture(scope="module", params=PROXIES, ids="-".join)
def served(serve_module: Serve, request: pytest.FixtureRequest) -> tuple[str, SwapchartProcess]:
    """A setting, and a proxy with it."""
    setting, server = request.param
    config = {"upstream": {"startOnGet": setting}}
    return setting, serve_module({"m": demo_model("m")}, config=config, server=server)


@pytest.fixture
def cold(served: tuple[str, SwapchartProcess]) -> tuple[str, SwapchartProcess]:
    """The same with the model stopped, whatever ran before."""
    assert served[1].unload().status == 200
    return served


def started(proxy: SwapchartProcess) -> bool:
    return "m" in proxy.running()


def check(proxy: SwapchartProcess, answer: raw.Answer, starts: bool) -> None:
    """Check that a request has started the model, or was told that it is not loaded."""
    assert answer.status == (200 if starts else 503), answer
    assert started(proxy) is starts
    if not starts:
        assert answer.json()["error"]["code"] == "model_not_loaded"


def test_start_on_get_of_the_load_button_of_llama_swap(
    cold: tuple[str, SwapchartProcess],
) -> None:
    """Its page sends a GET to the bare path by fetch, with a time in the query."""
    setting, proxy = cold
    headers = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    answer = proxy.call("GET", "/upstream/m/?_=1764540000000", headers=headers)

    check(proxy, answer, setting != "none")


def test_start_on_get_of_curl(cold: tuple[str, SwapchartProcess]) -> None:
    """`curl /upstream/m/` loads the model as llama-swap's users do it, unless no GET may."""
    setting, proxy = cold
    url = f"http://127.0.0.1:{proxy.port}/upstream/m/"
    command = ["curl", "-s", "-o", os.devnull, "-w", "%{http_code}", "-m", str(int(LONG_S)), url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=True)

    assert said.stdout == ("503" if setting == "none" else "200")
    assert started(proxy) is (setting != "none")


@pytest.mark.parametrize("path", ["/upstream/m/", "/upstream/m/echo/chat"])
def test_start_on_get_of_a_bookmark_in_a_browser(
    cold: tuple[str, SwapchartProcess], browser: Browser, path: str
) -> None:
    """A page that a real Chromium opens starts its model, and what it prefetches does not."""
    setting, proxy = cold
    context = browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}")
    context.set_default_timeout(LONG_S * 1000)
    try:
        page = context.new_page()
        response = page.goto(path)
        assert response is not None
        assert response.status == (503 if setting == "none" else 200)
        if setting == "none":
            assert "m is not loaded (stopped)" in page.content()
    finally:
        context.close()
    assert started(proxy) is (setting != "none")


def test_start_on_get_of_a_page_that_a_browser_prefetches(
    cold: tuple[str, SwapchartProcess], browser: Browser
) -> None:
    """A real Chromium that prefetches a link to a model announces that, and starts nothing."""
    _, proxy = cold
    context = browser.new_context(base_url=f"http://127.0.0.1:{proxy.port}")
    context.set_default_timeout(LONG_S * 1000)
    link = f"http://127.0.0.1:{proxy.port}/upstream/m/"
    try:
        page = context.new_page()
        page.goto("/ui/")
        with page.expect_response(link) as fetched:
            page.evaluate(
                """link => {
                  const hint = document.createElement("link");
                  hint.rel = "prefetch";
                  hint.href = link;
                  document.head.append(hint);
                }""",
                link,
            )
        assert fetched.value.request.all_headers()["sec-purpose"].startswith("prefetch")
        assert fetched.value.status == 503
    finally:
        context.close()
    assert not started(proxy)


@pytest.mark.parametrize("target", ["/upstream/m/metrics", "/props?model=m", "/slots?model=m"])
def test_start_on_get_of_a_scraper(cold: tuple[str, SwapchartProcess], target: str) -> None:
    """A program that polls keeps a model loaded only where every GET may start it."""
    setting, proxy = cold
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        for _ in range(3):
            connection.request("GET", target, headers={"Accept": "text/plain, application/json"})
            check_json = connection.read_answer()
            if setting == "all":
                assert check_json.status == 200
            else:
                assert check_json.status == 503
    assert started(proxy) is (setting == "all")


def test_autoload_of_a_real_model_starts_only_if_it_says_so(
    cold: tuple[str, SwapchartProcess],
) -> None:
    """The parameter decides on GET and POST, and the server of the model never sees it."""
    _, proxy = cold
    for target in ("/upstream/m/echo/x", "/upstream/m/", "/props?model=m&y=1"):
        mark = "&" if "?" in target else "?"
        check(proxy, proxy.call("GET", f"{target}{mark}autoload=false"), False)
    post = proxy.call("POST", f"{CHAT}?autoload=false", value=chat_body("m", 2))
    check(proxy, post, False)
    other = proxy.call("POST", "/echo/x?autoload=0", value={"model": "m"})
    check(proxy, other, False)

    got = proxy.call("GET", "/upstream/m/echo/x?a=%20&autoload=true&b")
    assert got.status == 200
    assert got.json()["target"] == "/echo/x?a=%20&b"
    loaded = proxy.call("POST", "/echo/x?autoload=false", value={"model": "m"})
    assert loaded.json()["target"] == "/echo/x"
    assert proxy.call("POST", f"{CHAT}?autoload=false", value=chat_body("m", 2)).status == 200


def test_autoload_of_a_websocket_starts_nothing(cold: tuple[str, SwapchartProcess]) -> None:
    """A handshake with `?autoload=false` to a cold model is rejected before it is accepted."""
    _, proxy = cold
    handshake = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    refused = proxy.call("GET", "/upstream/m/ws?autoload=false", headers=handshake)
    check(proxy, refused, False)
    bad = proxy.call("GET", "/upstream/m/ws?autoload=x", headers=handshake)
    assert bad.status == 400
    with raw.Connection(proxy.port, timeout_s=LONG_S) as connection:
        connection.request("GET", "/upstream/m/ws", headers=handshake)
        assert connection.read_head().status == 101
    assert started(proxy)
