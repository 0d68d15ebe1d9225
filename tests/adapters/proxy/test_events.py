"""The event stream ``/api/events``: event types, order, and clients that read slowly."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tools.asgi import Bench, Call, Received, run_proxied
from tools.net import wait_until_async

from swapchart.adapters.proxy.event_bus import EventBus
from swapchart.adapters.proxy.formatting import redacted_headers, rfc3339
from swapchart.adapters.proxy.models.definitions import (
    Capabilities,
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
)
from swapchart.adapters.proxy.options import ApiKey, KeyScope, ProxyOptions
from swapchart.runtime import Command


def read(call: Call) -> list[tuple[int, str, Any]]:
    """Return (id, type, data) of the events that have come, after looking at their frames."""
    found = []
    for block in call.body.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        number, name, data = block.split("\n")
        assert name == "event:message"
        value = json.loads(data.removeprefix("data:"))
        assert isinstance(value["data"], str)
        found.append((int(number.removeprefix("id:")), value["type"], json.loads(value["data"])))
    return found


def types(call: Call) -> list[str]:
    return [kind for _, kind, _ in read(call)]


def of(call: Call, kind: str) -> list[Any]:
    return [data for _, found, data in read(call) if found == kind]


async def listen(bench: Bench) -> Call:
    call = bench.client.begin("GET", "/api/events")
    await call.until(lambda c: "queue" in types(c))
    return call


async def leave(call: Call) -> None:
    call.leave()
    await call.task


async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    await writer.drain()
    await asyncio.Event().wait()


def test_events_begin_with_the_current_state() -> None:
    """A listener gets models, settings, profile and requests, and then the logs."""
    cards = [
        ModelDefinition(id="b", name="B"),
        ModelDefinition(
            id="a", aliases=("a2",), is_unlisted=True,
            capabilities=Capabilities(has_tools=True, context=9),
        ),
    ]  # fmt: skip
    peer = PeerDefinition(id="p", url="http://127.0.0.1:9", models=("m",))
    options = ProxyOptions(session_headers=("X-Session-ID",))

    async def main(bench: Bench) -> None:
        bench.app.proxy.own_log.line("ours")
        bench.supervisor["a"].log.write(b"theirs\n")
        call = await listen(bench)
        await call.until(lambda c: len(of(c, "logData")) == 2)
        events = read(call)

        assert [kind for _, kind, _ in events] == [
            "modelStatus", "uiConfig", "profileChanged", "inflight", "queue", "memory", "logData",
            "logData",
        ]  # fmt: skip
        assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
        assert events[6][2] == {"source": "proxy", "data": "ours\n"}
        assert events[7][2] == {"source": "upstream", "data": "theirs\n"}
        a, b, remote = events[0][2]
        assert (a["id"], a["state"], a["unlisted"], a["aliases"]) == ("a", "stopped", True, ["a2"])
        assert (a["capabilities"], a["context_length"]) == ({"function_calling": True}, 9)
        assert (b["id"], b["name"], b["peerID"]) == ("b", "B", "")
        assert (remote["id"], remote["state"], remote["peerID"]) == ("p/m", "", "p")
        assert events[1][2] == {"activity": {"session_id": ["X-Session-ID"]}}
        assert events[2][2] == {"active": None}
        assert events[3][2] == {"operation": "snapshot", "requests": []}
        head = dict(call.headers)
        assert head["content-type"] == "text/event-stream"
        assert (head["cache-control"], head["x-accel-buffering"]) == ("no-cache", "no")
        assert head["x-content-type-options"] == "nosniff"
        await leave(call)
        assert not bench.app.proxy.event_bus.is_heard

    run_proxied(main, *cards, peers=[peer], options=options)


def test_events_report_changes_of_models() -> None:
    """Each change of a model's state is told, with its cause, and the list of all after it."""

    async def main(bench: Bench) -> None:
        call = await listen(bench)
        await bench.client.chat("a")
        await call.until(lambda c: any(r["target"] == "ready" for r in of(c, "transition")))
        await call.until(lambda c: of(c, "modelStatus")[-1][0]["state"] == "ready")
        first = of(call, "transition")[0]
        assert (first["model"], first["event"], first["source"]) == ("a", "request", "stopped")
        await bench.client.call("POST", "/api/models/unload/a")
        await call.until(lambda c: of(c, "modelStatus")[-1][0]["state"] == "stopped")
        assert any(row["cause"] == "unloaded by API" for row in of(call, "transition"))
        await leave(call)

    run_proxied(main)


def test_events_key_for_one_model_hides_changes_of_others() -> None:
    """Transitions and requests of other models are left out, and so are events without a rule."""
    scopes: frozenset[KeyScope] = frozenset({"infer", "admin"})
    own = ApiKey(key="sk-b", scopes=scopes, models=("b",))
    options = ProxyOptions(keys=(own, ApiKey(key="sk-all")))

    def asked(call: Call) -> set[str]:
        rows = of(call, "inflight")
        return {row["request"]["model"] for row in rows if row["operation"] == "upsert"}

    def has_asked(model: str, call: Call) -> bool:
        return model in asked(call)

    async def main(bench: Bench) -> None:
        call, whole = (
            bench.client.begin("GET", "/api/events", headers={"Authorization": f"Bearer {key}"})
            for key in ("sk-b", "sk-all")
        )
        for listener in (call, whole):
            await listener.until(lambda c: "queue" in types(c))
        bench.app.proxy.event_bus.publish("new kind", {"secret": 1})
        bench.server.respond = hold
        for model in ("a", "b"):
            held = bench.client.begin(
                "POST", "/v1/chat/completions", value={"model": model},
                headers={"Authorization": "Bearer sk-all"},
            )  # fmt: skip
            await whole.until(partial(has_asked, model))
            await leave(held)
        await call.until(lambda c: any(r["target"] == "ready" for r in of(c, "transition")))
        await call.until(asked)
        assert {row["model"] for row in of(call, "transition")} == asked(call) == {"b"}
        assert {row["id"] for rows in of(call, "modelStatus") for row in rows} == {"b"}
        assert "new kind" not in types(call)
        await leave(call)
        await leave(whole)

    run_proxied(main, options=options)


def test_event_listeners_beyond_the_limit_are_refused() -> None:
    """One too many gets 429 and when to come again, until another one leaves."""

    async def main(bench: Bench) -> None:
        first = await listen(bench)
        for path in ("/api/events", "/logs/stream", "/logs/stream/a"):
            refused = await bench.client.call("GET", path)
            assert refused.status == 429
            assert refused.header("retry-after") == "5"
            assert refused.error()["code"] == "too_many_listeners"
            assert "listeners.limit" in refused.error()["message"]
        await leave(first)
        await leave(await listen(bench))
        assert len(bench.app.proxy.listeners) == 0

    run_proxied(main, ModelDefinition(id="a"), options=ProxyOptions(listeners=1))


def test_events_send_the_log_history_in_pieces() -> None:
    """A megabyte of log comes whole, in small events, and no character is torn."""

    async def main(bench: Bench) -> None:
        text = "zwölf Boxkämpfer " * 20_000
        for start in range(0, len(text.encode()), 1000):
            bench.supervisor["a"].log.write(text.encode()[start : start + 1000])
        call = await listen(bench)
        size = len(text)

        def pieces(call: Call) -> list[str]:
            found = of(call, "logData")
            return [event["data"] for event in found if event["source"] == "upstream"]

        await call.until(lambda c: sum(map(len, pieces(c))) >= size)
        events = pieces(call)
        assert "".join(events) == text
        assert len(events) > 4
        await leave(call)

    run_proxied(main, ModelDefinition(id="a"))


@pytest.mark.parametrize("logs", ["none", "proxy", "upstream", "all"])
def test_events_send_the_logs_that_are_asked_for(logs: str) -> None:
    """A page that shows no log gets none, whatever their size; new lines included."""

    async def main(bench: Bench) -> None:
        call = bench.client.begin("GET", f"/api/events?logs={logs}")
        await call.until(lambda c: "queue" in types(c))
        bench.app.proxy.own_log.line("ours")
        bench.supervisor["a"].log.write(b"theirs\n")
        bench.app.proxy.event_bus.publish("activity", {"id": 1})
        expected = {"none": 0, "all": 2}.get(logs, 1)
        await call.until(lambda c: "activity" in types(c) and len(of(c, "logData")) >= expected)
        assert {event["source"] for event in of(call, "logData")} == {
            "none": set(), "all": {"proxy", "upstream"},
        }.get(logs, {logs})  # fmt: skip
        await leave(call)

    run_proxied(main, ModelDefinition(id="a"))


def test_events_refuse_an_unknown_log() -> None:
    async def main(bench: Bench) -> None:
        call = await bench.client.call("GET", "/api/events?logs=some")
        assert call.status == 400
        assert "expected one of all, none, proxy, upstream" in call.json()["error"]["message"]

    run_proxied(main, ModelDefinition(id="a"))


def test_events_send_new_log_lines() -> None:
    """What is logged after the beginning is told, from either source."""

    async def main(bench: Bench) -> None:
        call = await listen(bench)
        bench.app.proxy.own_log.line("ours")
        bench.supervisor["a"].log.write(b"theirs \xff\n")
        await call.until(lambda c: len(of(c, "logData")) == 2)
        told = {event["source"]: event["data"] for event in of(call, "logData")}
        assert told == {"proxy": "ours\n", "upstream": "theirs \ufffd\n"}
        await leave(call)

    run_proxied(main)


def test_events_report_requests_in_flight() -> None:
    """Requests are told when they come, as they go on, and when they end; without secrets."""

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        call = await listen(bench)
        held = bench.client.begin(
            "POST", "/v1/chat/completions", value={"model": "a"},
            headers={"Authorization": "Bearer secret", "User-Agent": "me", "Cookie": "secret"},
        )  # fmt: skip
        await call.until(lambda c: any(e["operation"] == "upsert" for e in of(c, "inflight")))
        await call.until(lambda c: of(c, "inflight")[-1]["request"]["resp_bytes"] == 9)
        entry = of(call, "inflight")[-1]["request"]
        assert {"id", "timestamp", "elapsed_ms", "resp_headers"} <= entry.keys()
        assert (entry["model"], entry["req_path"], entry["method"], entry["remote_ip"]) == (
            "a", "/v1/chat/completions", "POST", "127.0.0.1",
        )  # fmt: skip
        assert entry["req_headers"]["Authorization"] == "[REDACTED]"
        assert entry["req_headers"]["User-Agent"] == "me"
        assert entry["metadata"] == {"fifo_priority": "0"}
        assert "secret" not in call.body.decode()
        late = await listen(bench)
        assert of(late, "inflight")[0]["requests"][0]["id"] == entry["id"]
        await leave(held)
        gone = {"operation": "remove", "id": entry["id"]}
        await call.until(lambda c: gone in of(c, "inflight"))
        await leave(call)
        await leave(late)

    run_proxied(main)


def test_events_report_how_far_a_request_is() -> None:
    """A request has the same id in the queue and in flight, and its times so far."""

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        call = await listen(bench)
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await held.until(lambda c: c.messages)
        waiting = bench.client.begin("POST", "/v1/completions", value={"model": "b"})

        def flights() -> list[Any]:
            found = [e["request"] for e in of(call, "inflight") if e["operation"] == "upsert"]
            return [row for row in found if row["model"] == "b"]

        await call.until(lambda _: flights() and any(row["queue"] for row in of(call, "queue")))
        (place,) = of(call, "queue")[-1]["queue"]
        row = flights()[-1]
        assert (row["phase"], row["id"], row["request_id"]) == (
            "queue", place["id"], place["request_id"]
        )  # fmt: skip
        assert row["wait"]["resident"] == ["a"]
        assert row["wait"]["reasons"][0]["why"].startswith("a has 1 request")
        assert "wait_ms" not in row
        await leave(held)
        await call.until(lambda _: flights()[-1]["phase"] == "response")
        row = flights()[-1]
        wait = row["wait"]
        parts = sum(wait[f"{part}_ms"] for part in ("queue", "evict", "start", "hooks"))
        assert abs(parts - row["wait_ms"]) <= 10
        assert (wait["evicted"], row["first_byte_ms"] >= row["wait_ms"]) == (["a"], True)
        assert row["swap_id"]
        await leave(waiting)
        await leave(call)

    run_proxied(main)


def test_events_request_for_an_unknown_model_is_never_in_flight() -> None:
    """Only a request that follows it, for a model that exists, is listed."""

    async def main(bench: Bench) -> None:
        call = await listen(bench)
        answer = await bench.client.call("POST", "/v1/chat/completions", value={"model": "unknown"})
        assert answer.status == 404
        bench.server.respond = hold
        held = bench.client.begin("POST", "/v1/chat/completions", value={"model": "a"})
        await call.until(lambda c: any(e["operation"] == "upsert" for e in of(c, "inflight")))
        listed = [e["request"] for e in of(call, "inflight") if e["operation"] == "upsert"]
        assert {request["model"] for request in listed} == {"a"}
        await leave(held)
        await leave(call)

    run_proxied(main)


def test_events_report_the_active_profile() -> None:
    """Another profile is told, and so are the models as they are then."""

    async def main(bench: Bench) -> None:
        call = await listen(bench)
        await bench.client.call("PUT", "/api/profiles/active", value={"name": "p"})
        await call.until(lambda c: {"active": "p"} in of(c, "profileChanged"))
        await call.until(lambda c: len(of(c, "modelStatus")) == 2)
        await leave(call)

    run_proxied(main, profiles=[ProfileDefinition(id="p", pins={"x": "a"})])


def test_events_send_heartbeats() -> None:
    """A stream with nothing to say shows that it lives."""

    async def main(bench: Bench) -> None:
        call = await listen(bench)
        await call.until(lambda c: c.body.count(b": nothing new\n\n") >= 2)
        await leave(call)

    run_proxied(main, options=ProxyOptions(heartbeat_s=0.02))


def test_slow_listener_gets_the_number_of_lost_events() -> None:
    """Who does not read loses events, not the proxy its memory; and gets the whole state anew."""

    async def main(bench: Bench) -> None:
        call = await listen(bench)
        for number in range(3000):
            bench.app.proxy.event_bus.publish("flood", number)
        await call.until(lambda c: "lost" in types(c))
        kinds = types(call)
        after = kinds[kinds.index("lost") :]
        assert of(call, "lost")[0]["events"] > 1500
        assert kinds.count("flood") < 1500
        await call.until(lambda c: types(c).count("modelStatus") == 2)
        assert after[0] == "lost"
        await leave(call)

    run_proxied(main)


def test_events_without_listeners_are_not_built() -> None:
    """Without subscribers events are not built."""
    hub = EventBus()
    hub.publish("x", object())  # could not be written as JSON

    assert not hub.is_heard


@pytest.mark.parametrize("target", ["/api/events", "/logs/stream", "/logs/stream/a"])
def test_event_streams_end_with_the_proxy(target: str) -> None:
    """When the proxy ends, streams that have no end of their own end cleanly."""

    async def main(bench: Bench) -> None:
        call = bench.client.begin("GET", target)
        await call.until(lambda c: c.status)
        bench.app.end_streams()

        assert (await call.answer()).status == 200

    run_proxied(main)


def test_events_show_headers_without_secrets() -> None:
    """The first value of each field is shown, secrets are not, times are in UTC."""
    fields = [(b"x-api-key", b"s"), (b"accept", b"a"), (b"accept", b"b"), (b"set-cookie", b"s")]

    assert redacted_headers(fields) == {
        "X-Api-Key": "[REDACTED]", "Accept": "a", "Set-Cookie": "[REDACTED]",
    }  # fmt: skip
    assert rfc3339(1.5) == "1970-01-01T00:00:01.500Z"


# ---- the queue
def test_queue_endpoint_lists_waiting_requests() -> None:
    """Who waits, for what, since when and why; and what is being swapped."""

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        events = await listen(bench)
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await held.until(lambda c: c.messages)
        waiting = [
            bench.client.begin("POST", "/v1/completions", value={"model": "b"}) for _ in range(2)
        ]
        await wait_until_async(lambda: len(bench.supervisor.scheduler.queue) == 2)
        value = (await bench.client.call("GET", "/api/queue")).json()

        assert [(row["position"], row["model"]) for row in value["queue"]] == [(1, "b"), (2, "b")]
        assert "a has 1 request" in value["queue"][0]["why"]
        assert value["queue"][0]["waited_s"] >= 0
        open_ = bench.app.proxy.in_flight.open
        rows = {str(key): record.request.request_id.decode() for key, record in open_.items()}
        assert [(row["id"], row["request_id"]) for row in value["queue"]] == list(rows.items())[1:]
        assert value["models"] == [
            {"model": "a", "phase": "ready", "granted": 1, "limit": None, "pinned": False}
        ]
        await events.until(lambda c: len(of(c, "queue")[-1]["queue"]) == 2)
        for call in (*waiting, held, events):
            await leave(call)

    run_proxied(main)


def test_explain_endpoint_describes_a_request() -> None:
    """What a request would evict, and what it would wait for, is told without making one."""

    async def main(bench: Bench) -> None:
        async def explain(name: str) -> Any:
            return (await bench.client.call("GET", f"/api/models/{name}/explain")).json()

        first = await explain("a")
        assert (first["outcome"], first["evict"], first["why"]) == ("start", [], "")
        await bench.client.chat("a")
        assert (await explain("a2"))["outcome"] == "serve"
        swap = await explain("b")
        assert (swap["outcome"], swap["evict"]) == ("swap", ["a"])
        bench.server.respond = hold
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await held.until(lambda c: c.messages)
        busy = await explain("b")
        assert (busy["outcome"], busy["evict"]) == ("wait", ["a"])
        assert "a has 1 request" in busy["why"]
        await leave(held)
        bench.supervisor.scheduler.services["a"].is_pinned = True
        pinned = await explain("b")
        assert (pinned["outcome"], pinned["evict"]) == ("reject", [])
        assert pinned["why"] == "b cannot run beside a, which is pinned"
        refused = await bench.client.chat("b")
        assert (refused.status, refused.error()["message"]) == (503, pinned["why"])
        assert (await bench.client.call("GET", "/api/models/x/explain")).status == 404
        assert bench.supervisor["b"].incarnation == 0

    run_proxied(main, ModelDefinition(id="a", aliases=("a2",)), "b")


def test_explain_endpoint_reports_a_tripped_circuit_breaker() -> None:
    """A request that the lifecycle would reject is predicted with the same words."""

    async def main(bench: Bench) -> None:
        failed = await bench.client.chat("a")
        assert failed.status == 502
        told = (await bench.client.call("GET", "/api/models/a/explain")).json()
        refused = await bench.client.call("POST", "/v1/completions", value={"model": "a"})

        assert (told["outcome"], told["evict"], told["state"]) == ("reject", [], "tripped")
        assert refused.status == 503
        assert refused.error()["message"].startswith(told["why"])

    run_proxied(
        main, "a",
        specs=lambda spec: replace(
            spec, command=Command(argv=("/does/not/exist",), label="a"), intensity=1
        ),
    )  # fmt: skip
