"""Activity records, captures and the store: what is kept of a finished request."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Bench, Received, proxied, say, say_events
from tools.net import free_port, wait_until_async
from tools.rows import row

from swapchart.adapters.proxy.accounting.request_record import InFlightRequests, RequestRecord
from swapchart.adapters.proxy.api.inference_paths import POST_PATHS
from swapchart.adapters.proxy.models.definitions import (
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
)
from swapchart.adapters.proxy.options import ApiKey, KeyScope, ProxyOptions
from swapchart.adapters.store import Database
from swapchart.adapters.store.activity import ActivityQuery, ActivityRow, ActivityStore
from swapchart.adapters.store.activity_schema import MIGRATIONS, TABLE
from swapchart.adapters.store.histogram import histogram
from swapchart.runtime import Command, Hook, RunAction, ServiceSpec

USAGE = b'{"usage":{"prompt_tokens":11,"completion_tokens":4}}'


async def usage(received: Received, writer: asyncio.StreamWriter) -> None:
    await say(writer, USAGE)


async def hold_open(data: bytes, received: Received, writer: asyncio.StreamWriter) -> None:
    """Begin a stream of events with *data*, and never end it."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + data)
    await writer.drain()
    await asyncio.Event().wait()


def run(
    main: Callable[[Bench], Awaitable[None]],
    *cards: ModelDefinition | str,
    path: Path | None = None,
    limit: int = 1000,
    **options: Any,
) -> None:
    async def whole() -> None:
        database = Database(path, MIGRATIONS)
        database.open()
        store = ActivityStore(database, limit=limit)
        try:
            if database.is_on:
                await store.open()
            given = {"respond": usage, "activity": store, **options}
            async with proxied(*cards, **given) as bench:
                await main(bench)
        finally:
            database.close()

    asyncio.run(whole())


async def page(bench: Bench, query: str = "") -> Any:
    answer = await bench.client.call("GET", f"/api/metrics/activity?{query}")
    assert answer.status == 200, answer.body
    return answer.json()


# ---- rows
def test_activity_has_a_row_for_each_request() -> None:
    """What was asked, how it went and what it cost; and nothing of what was said."""
    selector = SelectorDefinition(id="s", strategy="pin", targets=("a",))

    async def main(bench: Bench) -> None:
        before = time.time() - 1
        await bench.client.call(
            "POST", "/v1/chat/completions",
            value={"model": "s", "messages": [{"role": "user", "content": "secret words"}]},
        )  # fmt: skip
        rows = await page(bench)
        (row,) = rows["data"]

        assert (rows["page"], rows["limit"], rows["total"], rows["total_pages"]) == (1, 25, 1, 1)
        assert (row["id"], row["model"], row["req_path"]) == (1, "a", "/v1/chat/completions")
        assert (row["resp_status_code"], row["resp_content_type"]) == (200, "application/json")
        assert row["tokens"] == {
            "cache_tokens": -1, "draft_tokens": -1, "draft_acc_tokens": -1, "input_tokens": 11,
            "output_tokens": 4, "prompt_per_second": -1.0, "tokens_per_second": -1.0,
        }  # fmt: skip
        assert row["metadata"] == {"fifo_priority": "0", "selector": "s"}
        assert before <= datetime.fromisoformat(row["timestamp"]).timestamp() <= time.time() + 1
        assert row["duration_ms"] >= row["first_byte_ms"] >= row["wait_ms"] >= 0
        assert "error_msg" not in row
        assert "secret words" not in json.dumps(rows)

    run(main, selectors=[selector])


def test_activity_includes_failed_requests() -> None:
    """Requests that fail, are refused or are cancelled are rows with their reason."""

    async def main(bench: Bench) -> None:
        async def fail(received: Received, writer: asyncio.StreamWriter) -> None:
            await say(writer, b'{"error":{"message":"too long"}}', status=400)

        async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        bench.server.respond = fail
        await bench.client.chat("a")
        bench.server.respond = hold
        left = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await wait_until_async(lambda: bench.supervisor["a"].in_flight)
        left.leave()
        await left.task
        cancelled = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await wait_until_async(lambda: bench.app.proxy.in_flight.open)
        for exchange in list(bench.app.proxy.in_flight.open.values()):
            exchange.cancel("somebody")
        await cancelled.answer()
        bench.supervisor.close()
        await bench.client.chat("b")
        rows = (await page(bench, "order=asc"))["data"]

        assert [(row["resp_status_code"], row.get("error_msg")) for row in rows] == [
            (400, "too long"), (499, "the client disconnected before the response began"),
            (499, "cancelled by somebody"),
            (503, "shutting down"),
        ]  # fmt: skip
        assert rows[0]["tokens"]["input_tokens"] == 0

    run(main)


@pytest.mark.parametrize(
    ("last", "status", "error"),
    [
        (b"data: " + USAGE, 499, "the client disconnected after "),
        (b"data: [DONE]", 200, None),
        (b'data: {"type":"message_stop"}', 200, None),
    ],
)
def test_stream_that_its_client_cut_is_recorded_as_499(
    last: bytes, status: int, error: str | None
) -> None:
    """Unless its last event was sent, it is no success; its tokens are counted all the same."""

    async def main(bench: Bench) -> None:
        bench.server.respond = partial(hold_open, b"data: " + USAGE + b"\n\n" + last + b"\n\n")
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a", "stream": True})
        await held.until(lambda call: last in call.body)
        held.leave()
        await held.task
        (row,) = (await page(bench))["data"]

        assert row["resp_status_code"] == status
        assert row.get("error_msg", "").startswith(error or "")
        assert ("error_msg" in row) == (error is not None)
        assert row["tokens"]["input_tokens"] == 11
        outcome = "200" if status == 200 else "client_left"
        assert bench.app.proxy.accounting.metrics.requests["a", outcome] == 1
        assert f'HTTP/1.1" {status} ' in bench.app.proxy.own_log.tail(1)[0]

    run(main)


def test_response_that_did_not_end_is_recorded_with_what_ended_it() -> None:
    """A model that aborts its response is 502, a stream that was cancelled 499; neither is 200."""

    async def main(bench: Bench) -> None:
        async def abort(received: Received, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
            await writer.drain()
            writer.close()

        bench.server.respond = abort
        with pytest.raises(Exception, match=r"closed|ended|after 3"):
            await bench.client.chat("a")
        bench.server.respond = partial(hold_open, b"data: 1\n\n")
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await held.until(lambda call: call.messages)
        for record in list(bench.app.proxy.in_flight.open.values()):
            record.cancel("somebody")
        with pytest.raises(Exception, match="cancelled by somebody"):
            await held.task
        rows = (await page(bench, "order=asc"))["data"]

        assert [row["resp_status_code"] for row in rows] == [502, 499]
        assert all(row["error_msg"] for row in rows)

    run(main)


def test_failed_start_records_how_long_its_request_waited() -> None:
    """The wait of a request whose model never became ready lasts until its end."""

    def fails(spec: ServiceSpec) -> ServiceSpec:
        command = Command(argv=("sh", "-c", "sleep 0.2; exit 3"), label=spec.name)
        hook = Hook(action=RunAction(argv=("sleep", "60")))
        return replace(spec, command=command, hooks={"afterHealthy": (hook,)})

    async def main(bench: Bench) -> None:
        assert (await bench.client.chat("a")).status == 502
        (row,) = (await page(bench))["data"]

        assert row["wait_ms"] == row["duration_ms"] >= 200
        waits = bench.app.proxy.accounting.metrics.models["a"].waits
        assert waits.buckets()[-1][1] == 1
        assert waits.total >= 0.2

    run(main, specs=fails)


def test_activity_excludes_requests_without_a_model() -> None:
    """GETs, also for unknown models, bodies without one and paths passed on leave no row."""

    async def main(bench: Bench) -> None:
        await bench.client.call("GET", "/props?model=a")
        await bench.client.call("GET", "/props?model=nope")
        await bench.client.call("POST", "/v1/completions", body=b"{}")
        await bench.client.call("POST", "/upstream/a/slots", body=b"{}")
        assert (await page(bench))["total"] == 0
        await bench.client.call("POST", "/upstream/a/v1/completions", body=b"{}")
        assert [row["req_path"] for row in (await page(bench))["data"]] == ["/v1/completions"]

    run(main)


@pytest.mark.parametrize("is_form", [False, True])
def test_activity_of_an_unknown_model_has_its_name(is_form: bool) -> None:
    """As in llama-swap: a row with the name, status and cause, and a capture of the request."""
    given: dict[str, Any] = {"value": {"model": "nope", "x": 1}}
    if is_form:
        kind = "application/x-www-form-urlencoded"
        given = {"body": b"model=nope", "headers": [("content-type", kind)]}

    async def main(bench: Bench) -> None:
        for accept in ("application/json", "text/plain"):
            headers = [*given.get("headers", []), ("accept", accept)]
            answer = await bench.client.call(
                "POST", "/v/completions", **{**given, "headers": headers}
            )
            assert answer.status == 404
            row = (await page(bench))["data"][0]

            assert (row["model"], row["req_path"]) == ("nope", "/completions")
            assert (row["resp_status_code"], "model not found" in row["error_msg"]) == (404, True)
            assert row["resp_content_type"] == answer.header("content-type")
            assert row.get("metadata") is None
            found = (await bench.client.call("GET", f"/api/captures/{row['id']}")).json()
            assert b"nope" in base64.b64decode(found["req_body"])
        metrics = (await bench.client.call("GET", "/metrics")).body
        assert b'swapchart_requests_total{model="",outcome="model_not_found"} 2.0\n' in metrics
        assert b"nope" not in metrics

    run(main, options=ProxyOptions(capture_bytes=1 << 20))


def test_activity_of_a_peer_has_the_name_of_the_request() -> None:
    """As in llama-swap, no priority is in the row; a key for the model sees it by either name."""

    async def main(bench: Bench) -> None:
        for name in ("m", "p/m", "n"):
            headers = {"Authorization": "Bearer ours"}
            assert (await bench.client.chat(name, headers=headers)).status == 502
        answer = await bench.client.call(
            "GET", "/api/metrics/activity", headers={"Authorization": "Bearer of-m"}
        )
        rows = answer.json()["data"]

        assert [row["model"] for row in rows] == ["p/m", "m"]
        assert all("metadata" not in row for row in rows)

    both: frozenset[KeyScope] = frozenset({"infer", "admin"})
    keys = (ApiKey(key="ours"), ApiKey(key="of-m", models=("p/m",), scopes=both))
    peer = PeerDefinition(id="p", url=f"http://127.0.0.1:{free_port()}", models=("m", "n"))
    run(main, peers=[peer], options=ProxyOptions(keys=keys))


def test_activity_of_a_name_that_a_profile_disables_is_empty() -> None:
    """A disabled name is no request for a model, as in llama-swap."""

    async def main(bench: Bench) -> None:
        bench.app.proxy.activate_profile("p")
        assert (await bench.client.chat("off")).status == 404
        assert (await page(bench))["total"] == 0

    run(main, profiles=[ProfileDefinition(id="p", pins={"off": None})])


@pytest.mark.parametrize(
    ("route", "path"), sorted((path, path[len(cut) :]) for path, cut in POST_PATHS.items())
)
def test_activity_path_is_that_at_the_server_of_the_model(route: str, path: str) -> None:
    """Prefixes that are cut off are not in the path, as in llama-swap."""

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", route, value={"model": "a"})
        (row,) = (await page(bench))["data"]

        assert row["req_path"] == bench.server.last.target == path

    run(main)


def test_activity_counts_tokens_of_streams_and_compressed_responses() -> None:
    """Tokens are read from streams, from packed answers, and from the ends of long ones."""

    async def main(bench: Bench) -> None:
        async def stream(received: Received, writer: asyncio.StreamWriter) -> None:
            pieces = [b'data: {"choices":[]}\n\n' * 50 for _ in range(50)]
            await say_events(writer, *pieces, b"data: " + USAGE + b"\n\n", b"data: [DONE]\n\n")

        async def packed(received: Received, writer: asyncio.StreamWriter) -> None:
            body = gzip.compress(USAGE)
            head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

        async def odd(received: Received, writer: asyncio.StreamWriter) -> None:
            head = "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx"
            writer.write(head.encode())
            await writer.drain()

        for respond in (stream, packed, odd):
            bench.server.respond = respond
            await bench.client.chat("a")
        rows = (await page(bench, "order=asc"))["data"]

        assert [row["tokens"]["input_tokens"] for row in rows] == [11, 11, 0]
        assert "Content-Encoding" in rows[2]["error_msg"]

    run(main)


def test_activity_row_is_published_and_logged() -> None:
    """Who listens is told of each row, and the log has a line that clients cannot break."""

    async def main(bench: Bench) -> None:
        events = bench.client.begin("GET", "/api/events")
        await events.until(lambda c: b"queue" in c.body)
        await bench.client.call(
            "POST", "/v1/chat/completions?x=%0A", value={"model": "a"},
            headers={"User-Agent": "me\x1b[31m"},
        )  # fmt: skip
        await events.until(
            lambda c: b'"type":"activity","data":"{\\"id\\":1,\\"inflight\\":\\"1\\"}"' in c.body
        )
        line = bench.app.proxy.own_log.tail(1)[0]

        assert line.startswith('Request 127.0.0.1 "POST /v1/chat/completions HTTP/1.1" 200 ')
        assert '"me\\x1b[31m"' in line
        events.leave()
        await events.task

    run(main)


# ---- pages
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [6, 5, 4, 3, 2, 1]),
        ("order=asc", [1, 2, 3, 4, 5, 6]),
        ("limit=2", [6, 5]),
        ("limit=2&page=2", [4, 3]),
        ("limit=2&page=9", []),
        ("model=a", [6, 4, 2]),
        ("model=a&model=b", [6, 5, 4, 3, 2, 1]),
        ("model=", [6, 5, 4, 3, 2, 1]),
        ("min_id=2&max_id=3", [3, 2]),
        ("sort=prompt", [6, 3, 5, 2, 4, 1]),
        ("sort=prompt&order=asc", [1, 4, 2, 5, 3, 6]),
        ("start=2026-01-01T00:00:03Z", [6, 5, 4, 3]),
        ("end=2026-01-01T00:00:03Z", [3, 2, 1]),
        ("start=2026-01-01T01:00:03%2B01:00&end=2026-01-01T00:00:04.000Z", [4, 3]),
        ("model=x", []),
        ("status=200", [6, 5, 4, 2, 1]),
        ("status=5xx", [3]),
        ("status=404&status=500-503", [3]),
        ("status=201-499", []),
        ("text=OUT%20OF", [3]),
        ("text=r-2", [2]),
        ("text=/X", [6, 5, 4, 3, 2, 1]),
        ("text=%25", []),
        ("text=_", [4]),
        ("text=chat_4", [4]),
        ("text=ority", []),
        ("text=b&model=b", [5, 3, 1]),
    ],
)
def test_activity_pages_cover_all_rows(query: str, expected: list[int]) -> None:
    """Rows are chosen, sorted and cut into pages as asked, ties by id."""

    async def main(bench: Bench) -> None:
        store = bench.app.proxy.accounting.activity
        assert store is not None
        base = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        for number in range(1, 7):
            row = ActivityRow(
                id=store.next_id(), time=round((base + number) * 1000),
                model="ba"[(number + 1) % 2], req_path="/x", resp_content_type="",
                resp_status_code=503 if number == 3 else 200, request_id=f"r-{number}",
                error_msg="out of memory" if number == 3 else "",
                metadata=f'{{"x": "priority_", "session": "{"Chat_4" if number == 4 else "-"}"}}',
                prompt=[10, 20, 30][(number - 1) % 3],
            )  # fmt: skip
            store.put(row)
        found = await page(bench, query)

        assert [row["id"] for row in found["data"]] == expected

    run(main)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1000", "limit=x", "limit=-1", "page=0", "page=x", "sort=nothing",
        "sort=id;drop", "order=up", "min_id=0", "max_id=x", "min_id=5&max_id=4", "start=yesterday",
        "start=2026-01-01T00:00:00", "start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z",
        "limit=%C2%B2", "status=x", "status=6xx", "status=99", "status=500-400", "status=4xx-",
        f"text={'x' * 201}", "min_id=99999999999999999999", "end=",
    ],
)  # fmt: skip
def test_activity_page_with_invalid_parameters_is_refused(query: str) -> None:
    """A parameter that makes no sense is 400 and named; an empty one is none."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", f"/api/metrics/activity?{query}")

        if query == "end=":
            assert answer.status == 200
        else:
            assert answer.status == 400
            assert query.partition("=")[0] in answer.error()["message"]

    run(main)


# ---- statistics
def test_activity_stats_summarize_rows() -> None:
    """Totals and histograms are those of the model that was asked for, or of all."""

    async def timed(received: Received, writer: asyncio.StreamWriter) -> None:
        await say(
            writer,
            b'{"timings":{"prompt_n":10,"predicted_n":5,"cache_n":90,"prompt_per_second":100,'
            b'"predicted_per_second":50}}',
        )

    async def main(bench: Bench) -> None:
        empty = (await bench.client.call("GET", "/api/metrics/stats")).json()
        assert (empty["total_requests"], empty["prompt_histogram"]) == (0, None)
        bench.server.respond = timed
        for model in ("a", "a", "b"):
            await bench.client.chat(model)
        one = (await bench.client.call("GET", "/api/metrics/stats?model=a")).json()
        both = (await bench.client.call("GET", "/api/metrics/stats")).json()

        assert (one["total_requests"], both["total_requests"]) == (2, 3)
        assert (both["total_input_tokens"], both["total_output_tokens"]) == (30, 15)
        assert both["total_cache_tokens"] == 270
        assert both["gen_histogram"] == {
            "bins": [3], "min": 50.0, "max": 50.0, "binSize": 0, "p50": 50.0, "p95": 50.0,
            "p99": 50.0,
        }  # fmt: skip

    run(main)


@given(st.lists(st.floats(-10, 1e6), max_size=200))
def test_activity_histograms_count_each_row_once(values: list[float]) -> None:
    """Every value above 0 is in one bin, and percentiles lie between the ends."""
    found = histogram(values)
    positive = [value for value in values if value > 0]

    if not positive:
        assert found is None
        return
    assert found is not None
    assert sum(found["bins"]) == len(positive)
    assert 1 <= len(found["bins"]) <= 20
    assert found["min"] <= found["p50"] <= found["p95"] <= found["p99"] <= found["max"]


def test_percentiles_are_interpolated_linearly() -> None:
    """Between two values a percentile is where it would be on the line."""
    found = histogram([10, 20])

    assert found is not None
    assert (found["p50"], len(found["bins"]), found["binSize"]) == (15.0, 5, 2.0)


# ---- captures
CAPTURING = ProxyOptions(capture_bytes=1 << 20, keys=(ApiKey(key="our-key"),))


def test_capture_holds_request_and_response() -> None:
    """A capture has the request as it was sent on and its answer, without credentials."""
    card = ModelDefinition(id="a", use_model_name="real")

    async def packed(received: Received, writer: asyncio.StreamWriter) -> None:
        body = gzip.compress(USAGE)
        head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nSet-Cookie: secret\r\nX-A: 1\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    async def main(bench: Bench) -> None:
        bench.client.headers["x-api-key"] = "our-key"
        await bench.client.call(
            "POST", "/v1/chat/completions", body=b'{"model":"a"}', headers={"Cookie": "secret"}
        )
        assert (await page(bench))["data"][0]["has_capture"] is True
        found = (await bench.client.call("GET", "/api/captures/1")).json()

        assert (found["id"], found["req_path"]) == (1, "/v1/chat/completions")
        assert base64.b64decode(found["req_body"]) == b'{"model":"real"}'
        assert base64.b64decode(found["resp_body"]) == USAGE
        assert found["req_headers"]["X-Api-Key"] == "[REDACTED]"
        assert found["req_headers"]["Cookie"] == "[REDACTED]"
        assert found["resp_headers"]["Set-Cookie"] == "[REDACTED]"
        assert found["resp_headers"]["X-A"] == "1"
        assert "Content-Encoding" not in found["resp_headers"]
        assert "our-key" not in json.dumps(found)
        assert "secret" not in json.dumps(found)
        for number, status in (("2", 404), ("x", 400), ("%C2%B2", 400)):
            answer = await bench.client.call("GET", f"/api/captures/{number}")
            assert answer.status == status

    run(main, card, respond=packed, options=CAPTURING)


@pytest.mark.parametrize(
    ("path", "has_request", "has_answer"),
    [
        ("/v1/chat/completions", True, True),
        ("/v1/audio/speech", True, False),
        ("/v1/images/generations", True, False),
        ("/sdapi/v1/txt2img", True, False),
        ("/v1/audio/voices", False, True),
        ("/sdapi/v1/img2img", False, False),
    ],
)
def test_capture_omits_audio_and_images(path: str, has_request: bool, has_answer: bool) -> None:
    """What would drive out everything else is not kept."""

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", path, value={"model": "a"})
        found = (await bench.client.call("GET", "/api/captures/1")).json()

        assert (bool(found["req_body"]), bool(found["resp_body"])) == (has_request, has_answer)
        assert found["resp_headers"]["Content-Type"] == "application/json"

    run(main, options=ProxyOptions(capture_bytes=1 << 20))


def test_capture_of_a_failure_keeps_its_request() -> None:
    """Of a request that failed the headers and the body are kept, not the error's body."""

    async def fail(received: Received, writer: asyncio.StreamWriter) -> None:
        await say(writer, b"why", status=500)

    async def main(bench: Bench) -> None:
        await bench.client.chat("a")
        found = (await bench.client.call("GET", "/api/captures/1")).json()
        assert b'"model":"a"' in base64.b64decode(found["req_body"]).replace(b" ", b"")
        assert found["resp_headers"]
        assert found["resp_body"] == ""

    run(main, respond=fail, options=ProxyOptions(capture_bytes=1 << 20))


def test_capture_of_a_rejected_request_keeps_its_request() -> None:
    """A request whose model did not start, or that was refused, is captured without response."""

    async def main(bench: Bench) -> None:
        bench.supervisor.close()
        assert (await bench.client.chat("a")).status == 503
        (row,) = (await page(bench))["data"]
        found = (await bench.client.call("GET", "/api/captures/1")).json()

        assert row["has_capture"] is True
        assert b'"model":"a"' in base64.b64decode(found["req_body"]).replace(b" ", b"")
        assert found["req_headers"]
        assert row["resp_content_type"] == found["resp_headers"]["Content-Type"]
        assert found["resp_body"] == ""

    run(main, options=ProxyOptions(capture_bytes=1 << 20))


def test_capture_of_a_stream_that_was_cut_keeps_what_was_sent() -> None:
    """What the client got of a stream before it disconnected is captured."""

    async def main(bench: Bench) -> None:
        bench.server.respond = partial(hold_open, b"data: 1\n\n")
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a", "stream": True})
        await held.until(lambda call: b"data: 1" in call.body)
        held.leave()
        await held.task
        found = (await bench.client.call("GET", "/api/captures/1")).json()

        assert base64.b64decode(found["resp_body"]) == b"data: 1\n\n"

    run(main, options=ProxyOptions(capture_bytes=1 << 20))


def test_capture_size_includes_headers_and_paths() -> None:
    """Large header fields and paths of small requests count: the oldest captures go for them."""

    async def main(bench: Bench) -> None:
        field = "x" * 20_000
        for _ in range(10):
            answer = await bench.client.call(
                "POST", "/v1/completions", body=b'{"model":"a"}', headers={"X-A": field}
            )
            assert answer.status == 200
        kept = [row["has_capture"] for row in (await page(bench))["data"]]
        assert 1 <= sum(kept) <= 4

    run(main, options=ProxyOptions(capture_bytes=100_000))


def test_capture_memory_is_bounded() -> None:
    """The oldest captures go first, what is too large is not kept, and 0 keeps none."""

    async def main(bench: Bench) -> None:
        for _ in range(10):
            await bench.client.call(
                "POST", "/v1/completions", value={"model": "a", "x": "y" * 2000}
            )
        rows = (await page(bench, "order=asc"))["data"]
        assert [row["has_capture"] for row in rows] == [False] * 7 + [True] * 3
        await bench.client.call("POST", "/v1/completions", value={"model": "a", "x": "y" * 20_000})
        assert (await page(bench))["data"][0]["has_capture"] is False
        bench.app.proxy.accounting.captures.resize(0)
        assert not any(row["has_capture"] for row in (await page(bench))["data"])

    run(main, options=ProxyOptions(capture_bytes=10_000))


# ---- the store
def rows_of(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(f"SELECT id, model FROM {TABLE} ORDER BY id").fetchall()


@row("E06")
def test_activity_rows_are_bounded_and_ids_continue(tmp_path: Path) -> None:
    """The oldest rows go, and after a restart numbers go on where they were."""
    path = tmp_path / "a.db"

    async def main(bench: Bench) -> None:
        for _ in range(25):
            await bench.client.chat("a")
        rows = await page(bench)
        assert rows["total"] <= 11
        assert rows["data"][0]["id"] == 25

    async def later(bench: Bench) -> None:
        await bench.client.chat("a")
        assert (await page(bench))["data"][0]["id"] == 26

    run(main, path=path, limit=10)
    run(later, path=path, limit=10)
    assert rows_of(path)[-1] == (26, "a")


@pytest.mark.parametrize("junk", [b"junk" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
@row("E01")
def test_store_that_is_damaged_is_moved_aside(tmp_path: Path, junk: bytes) -> None:
    """The proxy serves, the damaged file is kept aside, and the API says so."""
    path = tmp_path / "a.db"
    path.write_bytes(junk)

    async def main(bench: Bench) -> None:
        assert (await bench.client.chat("a")).status == 200
        rows = await page(bench)
        assert rows["total"] == 1
        assert "was damaged" in rows["problem"]

    run(main, path=path)
    assert [file.read_bytes() for file in tmp_path.glob("a.db.corrupt-*")] == [junk]


@row("E07")
def test_store_of_a_newer_version_is_left_unchanged(tmp_path: Path) -> None:
    """A file of a newer program is not touched; the proxy serves, and says that nothing is kept."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")

    async def main(bench: Bench) -> None:
        assert (await bench.client.chat("a")).status == 200
        answer = await bench.client.call("GET", "/api/metrics/activity")
        assert answer.status == 503
        assert "newer" in answer.error()["message"]
        assert (await bench.client.call("GET", "/api/metrics/stats")).status == 503

    run(main, path=path)
    with closing(sqlite3.connect(path)) as db, db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
        assert db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (0,)


def test_request_without_a_store_is_served() -> None:
    """Where nothing is written down, requests go through and the API says so."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.chat("a")).status == 200
        for target in ("/api/metrics/activity", "/api/metrics/stats"):
            assert (await bench.client.call("GET", target)).status == 503

    run(main, activity=None)


@row("E05")
def test_activity_rows_beyond_the_queue_are_dropped_and_counted() -> None:
    """A flood of requests never waits for what is written down."""
    seen: list[RequestRecord] = []
    in_flight = InFlightRequests()

    async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
        seen.extend(in_flight.open.values())
        await usage(received, writer)

    async def main(bench: Bench) -> None:
        nonlocal in_flight
        accounting, in_flight = bench.app.proxy.accounting, bench.app.proxy.in_flight
        await bench.client.chat("a")
        await wait_until_async(lambda: accounting.metrics.requests["a", "200"] == 1)
        assert accounting.activity is not None
        database, disk = accounting.activity._db, threading.Event()
        database.submit(lambda _: disk.wait(10))
        await wait_until_async(lambda: not database._jobs)
        seen[0].wait = None  # one row each
        for _ in range(10_500):
            accounting.recorder.record(seen[0])
        assert accounting.activity.dropped == 10_500 - 10_000 + 210  # with the rows that prune
        assert accounting.metrics.requests["a", "200"] == 10_501
        disk.set()

    run(main, respond=respond)


@row("E06")
def test_activity_page_of_many_rows_is_fast(tmp_path: Path) -> None:
    """With a hundred thousand rows a page takes a moment."""

    async def main() -> float:
        database = Database(tmp_path / "a.db", MIGRATIONS)
        database.open()
        row = ActivityRow(
            id=0, time=1, model="m", req_path="/x", resp_content_type="", resp_status_code=200
        )

        def fill(db: sqlite3.Connection) -> None:
            marks = ", ".join("?" * len(row))
            rows = ((number, *row[1:]) for number in range(1, 100_001))
            with db:
                db.executemany(f"INSERT INTO {TABLE} VALUES ({marks})", rows)

        try:
            await database.call(fill)
            store = ActivityStore(database)
            await store.open()
            times = []
            for _ in range(3):
                began = time.perf_counter()
                found = await store.page(ActivityQuery(models=("m",), sort="id"))
                times.append(time.perf_counter() - began)
            assert (found.total, found.rows[0].id, store.next_id()) == (100_000, 100_000, 100_001)
            return min(times)
        finally:
            database.close()

    assert asyncio.run(main()) < 0.5


def test_capture_of_a_large_body_is_sent_in_pieces() -> None:
    """A body of many megabytes is neither encoded nor joined at once."""
    body = b'{"model":"a","x":"' + bytes(range(65, 91)) * 200_000 + b'"}'

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", "/v1/completions", body=body)
        call = bench.client.begin("GET", "/api/captures/1")
        found = (await call.answer()).json()

        assert base64.b64decode(found["req_body"]) == body
        assert base64.b64decode(found["resp_body"]) == USAGE
        assert max(map(len, call.messages)) <= 1 << 20
        assert found["req_headers"]["Host"] == "127.0.0.1:8080"

    run(main, options=ProxyOptions(capture_bytes=1 << 25))
