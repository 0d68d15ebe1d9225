"""Fast path: its requests get the responses and records of the regular path."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tools.asgi import Fields, Received, say, say_events
from tools.front import Front, hold, run
from tools.net import wait_until_async
from tools.rows import row

from swapchart.adapters.proxy.accounting.request_record import RequestRecord
from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import ModelDefinition, UpstreamTimeouts
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

USAGE = b'{"ok":true,"usage":{"prompt_tokens":3,"completion_tokens":2}}'
_ALIKE = (
    "model",
    "path",
    "status",
    "content_type",
    "sent_bytes",
    "body_chunks",
    "is_metered",
    "is_stream",
    "is_whole",
    "code",
    "error",
    "priority",
)


async def usage(received: Received, writer: asyncio.StreamWriter) -> None:
    await say(writer, USAGE)


def without_id(headers: Fields) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name != "x-request-id"]


def test_fast_path_serves_the_second_similar_request() -> None:
    """Response, upstream request and record of both are equal."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            for number in range(3):
                client.send({"model": "a", "n": number}, "X-Mine: 1")
                assert await client.response() == (200, USAGE)
        assert front.accepted == [False, True, True]
        first, *others = front.bench.server.received
        assert json.loads(first.body) == {"model": "a", "n": 0}
        for other in others:
            assert (other.method, other.target) == (first.method, first.target)
            assert without_id(other.headers) == without_id(first.headers)
        assert len({dict(each.headers)["x-request-id"] for each in (first, *others)}) == 3
        slow, *quick = front.finished
        for record in quick:
            for name in _ALIKE:
                assert getattr(record, name) == getattr(slow, name), name
            assert record.started <= record.admitted <= record.headers_at <= record.ended
            assert record.body == b'{"model": "a", "n": %d}' % front.finished.index(record)
        assert front.bench.app.proxy.accounting.metrics.tokens["a", "generated"] == 6
        front.assert_nothing_is_acquired()

    run(main, respond=usage)


@pytest.mark.parametrize(
    ("value", "fields", "status"),
    [
        ({"model": "nobody"}, (), 404),
        ({"n": 1}, (), 400),
        ({"model": "a", "pad": "x" * 70_000}, (), 200),
        ({"model": "b"}, (), 200),
        ({"model": "a"}, ("Other: field",), 200),
        ({"model": "a"}, ("Expect: 100-continue",), 200),
        ([1], (), 400),
    ],
)
def test_complex_request_takes_the_regular_path(
    value: Any, fields: tuple[str, ...], status: int
) -> None:
    """An unknown model, a large body, a stopped model, and new headers are not accepted."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            client.send(value, *fields)
            assert (await client.response())[0] == status
        assert True not in front.accepted
        front.assert_nothing_is_acquired()

    run(main)


@pytest.mark.parametrize("key", ["sk-b", "sk-none"])
@row("C33")
def test_fast_path_requires_keys(key: str) -> None:
    """A key for another model and an unknown key are rejected however often they are tried."""
    keys = (ApiKey(key="sk-a", models=("a",)), ApiKey(key="sk-b", models=("b",)))

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client, "Authorization: Bearer sk-a")
            for _ in range(3):
                client.send(None, f"Authorization: Bearer {key}")
                assert (await client.response())[0] == (403 if key == "sk-b" else 401)
        assert front.accepted == [False] * 3
        assert not front.bench.server.received

    run(main, options=ProxyOptions(keys=keys))


def test_stream_continues_on_the_regular_path() -> None:
    """Its headers arrive on the fast path, and each event is relayed as it arrives."""
    events = [b'data: {"n": %d}\n\n' % number for number in range(5)]

    async def slowly(received: Received, writer: asyncio.StreamWriter) -> None:
        if b"stream" in received.body:
            await say_events(writer, *events)
        else:
            await say(writer, b"{}")

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            for _ in range(2):
                client.send({"model": "a", "stream": True})
                assert await client.response() == (200, b"".join(events))
        assert front.accepted == [True, False]  # what carried events is not used again
        assert [record.is_stream for record in front.finished] == [True, True]
        front.assert_nothing_is_acquired()

    run(main, respond=slowly)


@row("C18")
def test_fast_path_request_that_was_not_sent_uses_another_connection() -> None:
    """Its connection ends after it was chosen and before the end of the loop's turn."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            pool = front.bench.app.proxy.upstreams._of_models["a"].pool
            pool.write_batch._is_busy = True
            (conn,) = pool._idle
            loop = asyncio.get_running_loop()
            front.before_offer = lambda: loop.call_soon(conn.transport.abort)
            client.send()
            assert await client.response() == (200, USAGE)
        assert front.accepted == [True]
        assert len(front.bench.server.received) == 1
        await wait_until_async(lambda: bool(front.finished))
        assert (front.finished[0].status, front.finished[0].error) == (200, "")
        front.assert_nothing_is_acquired()

    run(main, respond=usage)


@row("C14")
def test_fast_path_client_that_leaves_ends_its_request() -> None:
    """The upstream connection is closed, nothing stays acquired, and 499 is recorded."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.hold_request(client)
            assert len(front.bench.app.proxy.in_flight.open) == 1
            assert front.bench.supervisor["a"].in_flight == 1
        await wait_until_async(lambda: bool(front.finished))
        assert front.accepted == [True]
        assert (front.finished[0].status, front.finished[0].code) == (499, "client_left")
        front.assert_nothing_is_acquired()

    run(main)


def test_fast_path_cancelled_request_gets_499() -> None:
    """It is cancelled by the API while it waits for its response; the connection stays open."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.hold_request(client)
            (record,) = front.bench.app.proxy.in_flight.open.values()
            record.cancel("somebody")
            record.cancel("somebody else")
            status, body = await client.response()
            assert (status, b"cancelled by somebody" in body) == (499, True)
            assert (record.code, record.cancelled_by) == ("request_cancelled", "somebody")
            front.assert_nothing_is_acquired()
            front.bench.server.respond = usage
            client.send()
            assert await client.response() == (200, USAGE)
        assert front.accepted == [True, False]  # its connection was closed, so none was idle

    run(main)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"", 502),
        (b"nonsense\r\n\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 502),
    ],
)
@row("A03")
def test_fast_path_upstream_that_closes_is_502(said: bytes, status: int) -> None:
    """An invalid response, or incomplete headers, give a complete 502 response."""

    async def broken(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()
        await asyncio.sleep(0.01)

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            front.bench.server.respond = broken
            client.send()
            assert (await client.response())[0] == status
        assert front.accepted == [True]
        assert len(front.bench.server.received) == 1  # a POST is never sent twice
        front.assert_nothing_is_acquired()

    run(main)


@row("A04")
def test_fast_path_aborted_response_aborts_the_client() -> None:
    """An incomplete response is never ended as if it were complete."""

    async def half(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.01)

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            front.bench.server.respond = half
            client.send()
            assert (await client.head())[0] == 200
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.reader.readexactly(9)
        await wait_until_async(lambda: bool(front.finished))
        assert (front.accepted, front.finished[0].code) == ([True], "broken")
        front.assert_nothing_is_acquired()

    run(main)


def test_fast_path_request_is_drained_or_aborted_by_a_stop() -> None:
    """A stop waits for a request on the fast path, and aborts it when the drain expires."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.hold_request(client)
            front.bench.supervisor["a"].stop_nowait("test")
            assert front.bench.supervisor["a"].state == "draining"
            front.bench.supervisor["a"].replay("drain_expired")
            assert (await client.response())[0] == 502
            await front.bench.supervisor["a"].wait_stopped()
        front.assert_nothing_is_acquired()

    run(main)


def test_fast_path_end_of_a_request_can_start_a_swap(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A model that another one waits for is evicted as soon as it has responded."""
    gates: list[asyncio.Event] = []

    async def after_event(received: Received, writer: asyncio.StreamWriter) -> None:
        if b'"a"' in received.body:
            await gates[-1].wait()
        await say(writer, USAGE)

    async def main(front: Front) -> None:
        gates.append(asyncio.Event())
        gates[-1].set()
        async with front.client() as client, front.client() as other:
            await front.warm(client)
            gates[-1].clear()
            front.bench.server.respond = after_event
            client.send()
            await wait_until_async(lambda: bool(front.bench.server.received))
            other.send({"model": "b"})
            await wait_until_async(lambda: bool(front.bench.supervisor.scheduler.queue))
            assert front.accepted == [True, False]
            gates[-1].set()
            assert await client.response() == (200, USAGE)
            assert await other.response() == (200, USAGE)
            assert front.bench.supervisor["a"].state == "stopped"
        front.assert_nothing_is_acquired()

    run(main)

    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_fast_path_pipelined_requests_keep_their_order() -> None:
    """Pipelined requests, and an invalid one behind them, get responses in their order."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            for number in range(3):
                client.send({"model": "a", "n": number})
            client.writer.write(b"GET nonsense\r\n\r\n")
            responses = [(await client.response())[0] for _ in range(4)]
            assert responses == [200, 200, 200, 400]
            assert await client.reader.read() == b""
        found = [json.loads(received.body)["n"] for received in front.bench.server.received]
        assert found == [0, 1, 2]
        front.assert_nothing_is_acquired()

    run(main)


@row("C19")
def test_client_that_does_not_read_takes_the_regular_path() -> None:
    """Responses that cannot be written at once wait, and memory stays bounded."""
    large = b'{"x":"' + b"y" * 900_000 + b'"}'

    async def big(received: Received, writer: asyncio.StreamWriter) -> None:
        await say(writer, large)

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            front.bench.server.respond = big
            for _ in range(8):
                client.send()
            await wait_until_async(lambda: bool(front.finished))
            await asyncio.sleep(0.05)
            for _ in range(8):
                assert await client.response() == (200, large)
        front.assert_nothing_is_acquired()

    run(main)


def test_fast_path_request_cancelled_at_its_first_byte_is_served_once() -> None:
    """Its task exists but has not started: a cancellation does not start another one."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.hold_request(client)
            (record,) = front.bench.app.proxy.in_flight.open.values()
            assert record.on_cancel is not None
            record.on_cancel()  # as the headers of a response do
            record.cancel("somebody")
            status, body = await client.response()
            assert (status, b"cancelled by somebody" in body) == (499, True)
            await wait_until_async(lambda: not front.bench.app.proxy.in_flight.open)
        assert [record.code for record in front.finished] == ["request_cancelled"]
        front.assert_nothing_is_acquired()

    run(main)


@pytest.mark.parametrize("is_leaving", [False, True])
def test_fast_path_error_at_the_end_leaves_no_request_in_flight(is_leaving: bool) -> None:
    """The callback for finished requests fails; connection and model are released all the same."""

    def fail(record: RequestRecord) -> None:
        raise RuntimeError("unexpected")

    async def main(front: Front) -> None:
        proxy = front.bench.app.proxy
        async with front.client() as client:
            await front.warm(client)
            proxy.on_finished = fail
            if is_leaving:
                front.bench.server.respond = hold
            client.send()
            if is_leaving:
                await wait_until_async(lambda: bool(front.bench.server.received))
            else:
                assert (await client.response())[0] == 200
                proxy.on_finished = front.finished.append
                client.send()
                assert (await client.response())[0] == 200
                assert front.accepted == [True, True]  # the upstream's connection was given back
        await wait_until_async(lambda: not proxy.in_flight.open)
        await wait_until_async(lambda: not front.hub.connections)
        front.assert_nothing_is_acquired()

    run(main)


def test_fast_path_model_without_service_is_503() -> None:
    """The client gets a response, and its connection does not hang."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            await front.bench.supervisor.remove("a")
            client.send()
            status, body = await client.response()
            assert (status, b"model_removed" in body) == (503, True)
        assert front.accepted == [False]

    run(main)


def test_fast_path_request_aborted_before_it_falls_back_ends() -> None:
    """A shutdown may come between the headers of a response and the task that relays it."""

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.hold_request(client)
            (record,) = front.bench.app.proxy.in_flight.open.values()
            assert record.on_cancel is not None
            record.on_cancel()  # as the headers of a response do
            front.hub.cancel()
            await wait_until_async(lambda: not front.hub.connections)
        front.assert_nothing_is_acquired()

    run(main)


def test_fast_path_error_before_sending_falls_back() -> None:
    """An unexpected exception costs neither the request nor its connection."""

    def fail() -> None:
        raise RuntimeError("unexpected")

    async def main(front: Front) -> None:
        async with front.client() as client:
            await front.warm(client)
            front.before_offer = fail
            for number in range(2):  # the second is parsed when the first has its response
                client.send({"model": "a", "n": number})
            for _ in range(2):
                assert await client.response() == (200, USAGE)
        assert not front.accepted
        front.assert_nothing_is_acquired()

    run(main, respond=usage)


def test_fast_path_reload_replaces_cached_limits() -> None:
    """A request from before the reload goes on; later ones use the new timeouts."""

    async def main(front: Front) -> None:
        proxy = front.bench.app.proxy
        async with front.client() as client:
            await front.hold_request(client)
            (record,) = proxy.in_flight.open.values()
            limits = UpstreamTimeouts(header_s=7.0)
            proxy.configure(ModelCatalog([ModelDefinition(id="a", limits=limits)]), proxy.options)
            assert record.on_cancel is not None
            record.on_cancel()  # as the headers of a response do
            await wait_until_async(lambda: record.on_cancel is None)
            assert proxy.upstreams.of_model(proxy.catalog.models["a"]).limits == limits
        await wait_until_async(lambda: not proxy.in_flight.open)

    run(main)


@pytest.mark.parametrize("way", ["fast", "regular"])
def test_fast_path_stop_aborts_requests_from_before_a_reload(way: str) -> None:
    """Requests that began with other timeouts are aborted, too, when the drain expires."""

    async def main(front: Front) -> None:
        proxy = front.bench.app.proxy
        async with front.client() as client:
            await front.warm(client)
            front.bench.server.respond = hold
            client.send(None, *(() if way == "fast" else ("Other: head",)))
            await wait_until_async(lambda: bool(front.bench.server.received))
            assert front.accepted == [way == "fast"]
            proxy.configure(
                ModelCatalog([ModelDefinition(id="a", limits=UpstreamTimeouts(header_s=7.0))]),
                proxy.options,
            )
            front.bench.supervisor["a"].stop_nowait("test")
            front.bench.supervisor["a"].replay("drain_expired")
            assert (await client.response())[0] == 502
            await front.bench.supervisor["a"].wait_stopped()
        assert "a" not in proxy.upstreams._retired

    run(main)
