"""Start rules: which requests start a model that is not loaded, and which parameter says so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import get_args
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Answer, Bench, Received, proxied, run_proxied, say
from tools.net import wait_until_async

from swapchart.adapters.proxy.body.errors import BadBodyError
from swapchart.adapters.proxy.forwarding.start_rules import (
    StartOnGet,
    split_autoload,
    why_not_start,
)
from swapchart.adapters.proxy.models.definitions import ModelDefinition, PeerDefinition
from swapchart.adapters.proxy.options import ProxyOptions
from swapchart.adapters.proxy.request import Request

NAVIGATES = {"sec-fetch-mode": "navigate"}
WANTS_HTML = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
PREFETCHES = {"sec-purpose": "prefetch;prerender"}
SETTINGS: Sequence[StartOnGet] = get_args(StartOnGet)


# ---- the parameter
@pytest.mark.parametrize(
    ("target", "rest", "value"),
    [
        ("/x?autoload=false", "/x", False), ("/x?autoload=true", "/x", True),
        ("/x?autoload=0&a=1", "/x?a=1", False), ("/x?a=%20&autoload=1&b", "/x?a=%20&b", True),
        ("/x?autoload=False&autoload=false", "/x", False), ("/x?a&&b", "/x?a&&b", None),
        ("/autoload=false", "/autoload=false", None), ("/x?noautoload=0", "/x?noautoload=0", None),
        ("/x?autoload", "/x?autoload", None), ("/x?", "/x?", None),
    ],
)  # fmt: skip
def test_autoload_is_removed_from_the_target(target: str, rest: str, value: bool | None) -> None:
    """The parameter goes, and every other byte stays."""
    assert split_autoload(target.encode()) == (rest.encode(), value)


@pytest.mark.parametrize("query", ["autoload=", "autoload=no", "autoload=true&autoload=0"])
def test_autoload_that_is_no_boolean_is_refused(query: str) -> None:
    """A value that could mean either starts no model by mistake."""
    with pytest.raises(BadBodyError, match="`autoload`"):
        split_autoload(f"/x?{query}".encode())


_PARTS = st.lists(st.sampled_from(["a=1", "", "b", "autoload=true", "model=x%26y"]), max_size=5)


@given(_PARTS)
def test_autoload_any_query_keeps_the_other_parameters(parts: list[str]) -> None:
    """Whatever else is in a query, it is there in the same order, and nothing twice."""
    target, value = split_autoload(("/p?" + "&".join(parts)).encode())

    given_pairs = parse_qsl("&".join(parts), keep_blank_values=True)
    kept = parse_qsl(target.decode().partition("?")[2], keep_blank_values=True)
    assert kept == [pair for pair in given_pairs if pair[0] != "autoload"]
    assert value is (True if "autoload=true" in parts else None)


# ---- the rules
def request(method: str, headers: dict[str, str]) -> Request:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": "/", "headers": fields}

    async def receive() -> dict[str, object]:
        raise AssertionError("not read")

    return Request(scope, receive)


CASES = list(
    itertools.product(
        ("GET", "HEAD", "POST", "DELETE"), ("/", "/metrics"), (None, True, False), SETTINGS,
        ({}, {"sec-fetch-mode": "cors"}, NAVIGATES, WANTS_HTML), (False, True),
    )
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_start_rule_every_combination_decides_as_documented(method: str) -> None:
    """A prefetch never starts; else the client decides, else the setting, for GET and HEAD only."""
    for given_method, path, autoload, rule, headers, prefetches in CASES:
        if given_method != method:
            continue
        sent = {**headers, **(PREFETCHES if prefetches else {})}
        why = why_not_start(request(method, sent), autoload, path, rule)

        is_page = path == "/" or headers in (NAVIGATES, WANTS_HTML)
        by_setting = {"all": True, "pages": is_page, "none": False}[rule]
        is_read = method in ("GET", "HEAD")
        starts = not prefetches and (
            autoload if autoload is not None else by_setting or not is_read
        )
        assert (why == "") is starts, (path, autoload, rule, sent)


@pytest.mark.parametrize(
    ("value", "starts"),
    [("prefetch", False), ("prefetch;prerender", False), ("a; Prefetch", False), ("print", True)],
)
def test_start_rule_of_a_purpose_reads_its_tokens(value: str, starts: bool) -> None:
    """Parameters of `Sec-Purpose` do not matter, and other purposes start a model."""
    why = why_not_start(request("GET", {"sec-purpose": value}), None, "/", "all")
    assert (why == "") is starts


# ---- a proxy
#: Name -> method, target, headers of what clients send: llama-swap's Load button, a shell, a
#: bookmark in a browser, a link that the browser prefetches, and programs that poll.
CLIENTS = {
    "load button": ("GET", "/upstream/a/?_=1764540000000", {"sec-fetch-mode": "cors"}),
    "curl": ("GET", "/upstream/a/", {"accept": "*/*"}),
    "bookmark": ("GET", "/upstream/a/chat", {**NAVIGATES, **WANTS_HTML}),
    "prefetch": ("GET", "/upstream/a/", {**NAVIGATES, **WANTS_HTML, **PREFETCHES}),
    "metrics": ("GET", "/upstream/a/metrics", {"accept": "application/openmetrics-text"}),
    "props": ("GET", "/props?model=a", {}),
    "slots": ("GET", "/slots?model=a", {}),
    "voices": ("GET", "/v1/audio/voices?model=a", {}),
    "chat": ("POST", "/v1/chat/completions?model=a", {}),
}
_ALWAYS = {"chat"}
STARTS = {
    "all": set(CLIENTS) - {"prefetch"},
    "pages": {"load button", "curl", "bookmark"} | _ALWAYS,
    "none": _ALWAYS,
}


def check_cold(answer: Answer) -> None:
    """Check the error of a request that found its model cold; a browser gets it as a page."""
    assert answer.status == 503
    assert b"a is not loaded (stopped): " in answer.body
    if b"<!doctype" not in answer.body:
        assert answer.error()["code"] == "model_not_loaded"


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("client", CLIENTS)
def test_cold_model_is_started_by_those_requests_that_the_setting_allows(
    setting: StartOnGet, client: str
) -> None:
    """A request that may not start its model gets 503; a loaded model serves it."""
    method, target, headers = CLIENTS[client]
    body = b'{"model":"a"}' if method == "POST" else b""
    starts = client in STARTS[setting]

    async def main(bench: Bench) -> None:
        call = bench.client.call
        cold = await call(method, target, headers=headers, body=body)
        assert cold.status == (200 if starts else 503)
        assert bench.supervisor["a"].incarnation == int(starts)
        if not starts:
            check_cold(cold)
            assert cold.header("retry-after") is None
            assert bench.server.received == []
        await bench.supervisor.load("a")
        warm = await call(method, target, headers=headers, body=body)
        assert warm.status == 200

    run_proxied(main, options=ProxyOptions(start_on_get=setting))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("client", CLIENTS)
def test_autoload_decides_whatever_the_setting_and_is_not_forwarded(
    setting: StartOnGet, client: str
) -> None:
    """`?autoload=false` starts nothing on GET and POST, `true` does, but not for a prefetch."""
    method, target, headers = CLIENTS[client]
    body = b'{"model":"a"}' if method == "POST" else b""
    mark = "&" if "?" in target else "?"
    starts = client != "prefetch"

    async def main(bench: Bench) -> None:
        call = bench.client.call
        no = await call(method, f"{target}{mark}autoload=false", headers=headers, body=body)
        check_cold(no)
        assert bench.supervisor["a"].incarnation == 0
        yes = await call(method, f"{target}{mark}autoload=true", headers=headers, body=body)
        assert yes.status == (200 if starts else 503)
        assert bench.supervisor["a"].incarnation == int(starts)
        await bench.supervisor.load("a")
        warm = f"{target}{mark}autoload=false&x=%31"
        loaded = await call(method, warm, headers=headers, body=body)
        assert loaded.status == 200
        below = target.removeprefix("/upstream/a")
        assert bench.server.last.target == f"{below}{mark}x=%31"
        bad = await call(method, f"{target}{mark}autoload=maybe", headers=headers, body=body)
        assert bad.status == 400
        assert b"`autoload`: expected true or false, got" in bad.body

    run_proxied(main, options=ProxyOptions(start_on_get=setting))


def test_cold_model_of_comfyui_follows_the_setting() -> None:
    """ComfyUI's first page starts it unless no GET may; other paths never do."""
    for setting, status in (("all", 200), ("pages", 200), ("none", 503)):

        async def main(bench: Bench, status: int = status) -> None:
            assert (await bench.client.call("GET", "/comfyui/queue")).status == 409
            assert (await bench.client.call("GET", "/comfyui/")).status == status

        run_proxied(main, "comfyui_auto", options=ProxyOptions(start_on_get=setting))  # type: ignore[arg-type]


def test_request_that_may_not_start_waits_for_a_busy_model_and_starts_none() -> None:
    """Of a busy model it gets its turn; once the model is unloaded, it gets 503."""
    release = asyncio.Event()

    async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
        if received.body:
            await release.wait()
        await say(writer, b"{}")

    async def main() -> None:
        async with proxied("a", "b", respond=respond) as bench:
            first = bench.client.begin("POST", "/v1/chat/completions", value={"model": "a"})
            await wait_until_async(lambda: bench.server.received, what="the first request")
            entry = bench.supervisor.scheduler.services["a"]
            entry.is_open = False  # so that the scheduler decides
            second = await bench.client.call("GET", "/props?model=a&autoload=false")
            assert second.status == 200
            release.set()
            assert (await first.answer()).status == 200
            assert bench.supervisor["a"].incarnation == 1
            await bench.supervisor.unload("a", "test")
            third = await bench.client.call("GET", "/props?model=a&autoload=false")
            assert third.status == 503
            assert bench.supervisor["a"].incarnation == 1

    asyncio.run(main())


def test_cold_model_that_streams_its_loading_state_gets_503_instead() -> None:
    """`sendLoadingState` begins no stream for a request that waits for no start."""
    card = ModelDefinition(id="a", sends_loading_state=True)

    async def main(bench: Bench) -> None:
        target = "/v1/chat/completions?autoload=false"
        answer = await bench.client.call("POST", target, value={"model": "a", "stream": True})
        assert (answer.status, answer.error()["code"]) == (503, "model_not_loaded")

    run_proxied(main, card)


def test_autoload_for_the_model_of_a_peer_is_forwarded() -> None:
    """The state of a peer's model is known there, so the peer gets the parameter."""

    async def main() -> None:
        async with proxied("far") as remote:
            peer = PeerDefinition(id="p", url=remote.server.url, models=("far",))
            async with proxied("a", peers=[peer]) as bench:
                target = "/v1/chat/completions?autoload=false"
                await bench.client.call("POST", target, value={"model": "far"})
                assert remote.server.last.target == target

    asyncio.run(main())


def test_polls_of_a_cold_model_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """A scraper that gets 503 every few seconds leaves no line and no activity."""

    async def main(bench: Bench) -> None:
        for _ in range(3):
            answer = await bench.client.call("GET", "/upstream/a/metrics")
            assert answer.status == 503
        assert not [line for line in caplog.messages if "not loaded" in line]
        assert bench.app.proxy.in_flight.open == {}

    run_proxied(main, options=ProxyOptions(start_on_get="none"))
