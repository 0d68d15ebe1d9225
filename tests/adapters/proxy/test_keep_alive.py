"""X-Keep-Alive: its values, and its effect on both paths of a request."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Bench, run_proxied
from tools.front import PATH, Front, run

from swapchart.adapters.proxy.access.keep_alive import KeepAliveError, keep_alive_of


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("300", 300.0), (" 300 ", 300.0), ("90.5", 90.5), ("0", 0.0), ("0s", 0.0), ("-0", 0.0),
        ("5m", 300.0), ("1h30m", 5400.0), ("1h2m3.5s", 3723.5), ("500ms", 0.5), ("2us", 2e-6),
        ("2\u00b5s", 2e-6), ("3ns", 3e-9), (".5s", 0.5), ("-1", math.inf), ("-5m", math.inf),
        ("-1ns", math.inf), ("9" * 30, 1e9), ("99999999h", 1e9),
    ],
)  # fmt: skip
def test_keep_alive_value_is_read(value: str, seconds: float) -> None:
    """Seconds and durations have their length, and negative ones mean no limit."""
    assert keep_alive_of([(b"x-keep-alive", value.encode())]) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "5 m",
        "5x",
        "m5",
        "5m3",
        "5m-3s",
        "--1",
        "+1",
        "1e3",
        "inf",
        "nan",
        "1" * 33,
        "٣",
    ],
)
def test_keep_alive_value_that_is_invalid_is_refused(value: str) -> None:
    """The error names the header and the forms, and shows little of a long value."""
    with pytest.raises(KeepAliveError, match=r"X-Keep-Alive is .*expected seconds .*5m.*-1") as got:
        keep_alive_of([(b"x-keep-alive", value.encode())])
    assert len(str(got.value)) < 200


@given(st.binary(max_size=40))
def test_keep_alive_of_any_bytes_is_a_limit_or_an_error(value: bytes) -> None:
    """Nothing else comes out, whatever a client sends."""
    try:
        seconds = keep_alive_of([(b"other", b"1"), (b"x-keep-alive", value)])
    except KeepAliveError:
        return
    assert seconds is not None
    assert seconds >= 0


def test_keep_alive_without_the_header_is_none() -> None:
    """Other headers set nothing."""
    assert keep_alive_of([(b"keep-alive", b"5"), (b"x-keep-alive-s", b"5")]) is None


def test_keep_alive_counts_on_both_paths() -> None:
    """The first request takes the regular path, the second the fast one; both set the limit."""

    async def main(front: Front) -> None:
        lifecycle, loop = front.bench.supervisor["a"], asyncio.get_running_loop()

        def left_s() -> float:
            return (lifecycle.deadline("idle_limit") or math.inf) - loop.time()

        async with front.client() as client:
            for number in range(2):
                client.send(None, "X-Keep-Alive: 5m")
                assert (await client.response())[0] == 200
                await asyncio.sleep(0)
                assert 290 < left_s() < 300.001  # a deadline is rounded
                assert front.accepted[-1] is (number == 1)
                lifecycle.keep_for(1000.0)
            for _ in range(2):
                client.send(None)
                assert (await client.response())[0] == 200
            await asyncio.sleep(0)
            assert 990 < left_s() < 1000.001

    run(main)


def test_keep_alive_of_zero_unloads_after_the_response() -> None:
    """On both paths the response is complete, and the model then stops; a request starts it."""

    async def main(front: Front) -> None:
        supervisor = front.bench.supervisor
        async with front.client() as client:
            for number in range(2):
                await front.warm(client, "X-Keep-Alive: 1h")
                await front.warm(client, "X-Keep-Alive: 0s")
                await supervisor["a"].wait_for("stopped")
                assert supervisor["a"].incarnation == number + 1
            await front.warm(client)
            await front.warm(client, "X-Keep-Alive: 1h")
            client.send(None, "X-Keep-Alive: 0s")
            assert (await client.response())[0] == 200
            assert front.accepted == [True]
            await supervisor["a"].wait_for("stopped")

    run(main)


def test_keep_alive_that_is_invalid_is_rejected_before_anything_starts() -> None:
    """400 in each kind of request that reaches a model; the header has no meaning elsewhere."""

    async def main(bench: Bench) -> None:
        headers = {"x-keep-alive": "soon"}
        for method, path in (("POST", PATH), ("GET", "/upstream/a/x"), ("GET", "/v1/audio/voices")):
            answer = await bench.client.call(
                method, path, headers=headers, value={"model": "a"} if method == "POST" else None
            )
            assert answer.status == 400
            assert b"X-Keep-Alive is 'soon'; expected seconds such as 300" in answer.body
        assert bench.server.received == []
        assert bench.supervisor["a"].state == "stopped"
        assert (await bench.client.call("GET", "/health", headers=headers)).status == 200

    run_proxied(main)
