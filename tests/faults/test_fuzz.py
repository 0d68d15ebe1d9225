"""Parsers get random and mutated input: each accepts it, or refuses it with an error of its own.

Heads of requests are fuzzed in tests/adapters/http1/test_server_fuzz.py, configurations in
tests/adapters/config/test_hostile.py, forms and edits of JSON in tests/proxy, and the
journal in test_torn_journal.py.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from asyncio import StreamWriter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tools.asgi import Received, proxied
from tools.make_tiny_gguf import write_tiny_gguf
from tools.rows import row
from tools.swapchart_process import CHAT

from swapchart import machine
from swapchart.adapters.llama_cpp.gguf import Gguf, GgufError, read_gguf
from swapchart.adapters.proxy.body.errors import BadBodyError
from swapchart.adapters.proxy.body.model_name import model_of, model_of_query
from swapchart.adapters.proxy.body.multipart import MultipartScanner, boundary_of
from swapchart.adapters.proxy.forwarding.forwarding import ResponseAbortedError
from swapchart.machine import ChartError
from swapchart.machine.format.parse import read

CHART = (Path(machine.__file__).with_name("lifecycle.yaml")).read_text("utf-8")
ANSWERS = 400  # broken answers of an upstream; one proxy takes them all

JSONISH = st.lists(
    st.sampled_from(
        [
            *('"model"', '"mod\\u0065l"', '"stream"', ":", ",", "{", "}", "[", "]", '"a"', "1"),
            *("-", "true", "null", "NaN", "1e999", " ", "\n", '"', "\\", '"\\ud800"', "9" * 5000),
            *("\ufeff", '{"model":', '"a"}', "[" * 300, '"messages":[]', "\0", "é"),
        ]
    ),
    max_size=14,
).map("".join)


@settings(deadline=None, max_examples=1000)
@given(st.one_of(JSONISH.map(str.encode), st.binary(max_size=60)))
@example(b'{"model":"a","model":"b"}')
@example(b'{"model":"a","mod\\u0065l":"b"}')
@example(b'{"x":{"model":"b"},"model":"a"}')
@row("C42")
def test_model_name_is_the_same_for_any_json_parser(body: bytes) -> None:
    """A body that we accept is read by Python's parser too, with the same model, found once."""
    try:
        model, is_stream = model_of(body)
    except BadBodyError:
        return
    value = json.loads(body)
    found = [name for name, _ in json.loads(body, object_pairs_hook=list)]

    assert (value.get("model") or "") == model
    assert is_stream == (value.get("stream") is True)
    assert found.count("model") <= 1


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=80))
@row("C42")
def test_query_of_any_bytes_has_one_model_or_is_refused(query: bytes) -> None:
    """Bytes of any kind in it included."""
    with suppress(BadBodyError):
        assert isinstance(model_of_query(query), str)


@settings(deadline=None, max_examples=500)
@given(
    st.binary(max_size=50),
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from(
                [b"\r\n--x", b"--x\r\n", b"--x--", b"\r\n\r\n", b"--", b"\r\n", b'name="model"',
                 b"Content-Disposition: form-data; ", b'filename="../a"', b"a" * 9000]
            ),
        ),
        max_size=12,
    ),
)  # fmt: skip
@row("C43")
def test_form_of_any_bytes_is_scanned_or_refused(kind: bytes, pieces: list[bytes]) -> None:
    """However it is cut the verdict is the same, and little is kept."""
    with suppress(BadBodyError):
        boundary_of(kind)
    verdicts = set()
    whole = b"".join(pieces)
    for cut in (pieces, [whole], [whole[i : i + 1] for i in range(len(whole))]):
        scanner = MultipartScanner(b"x")
        try:
            for piece in cut:
                scanner.feed(piece)
            scanner.finish()
        except BadBodyError:
            verdicts.add("refused")
        else:
            verdicts.add(f"{scanner.model}")

    assert len(verdicts) == 1


GOOD_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\nA: b\r\n\r\n",
]
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
SNIPPETS = [b"\r\n", b"\n", b"\0", b" ", b":", b"0\r\n\r\n", b"Content-Length: 9\r\n", b"\xff",
            b"HTTP/", b"Transfer-Encoding: chunked\r\n", b"-1", b"ffffffffffffffff\r\n",
            b"x" * 70_000]  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    data = rng.choice(GOOD_ANSWERS)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data = data[:at] + rng.choice(SNIPPETS) + data[at:]
            case 1:
                data = data[:at] + data[at + rng.randint(1, 6) :]
            case 2:
                data = data[:at] + rng.randbytes(rng.randint(1, 4)) + data[at:]
            case _:
                data = data[:at]
    return data


@pytest.mark.anyio
@row("C07")
async def test_upstream_response_of_any_bytes_is_relayed_refused_or_aborted() -> None:
    """Never an error of ours, never a wait for more; and the next request is served."""
    rng = random.Random(7)
    data = b""

    async def respond(received: Received, writer: StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()

    ends: dict[str, int] = {}
    async with proxied("a", respond=respond) as bench:
        for number in range(ANSWERS):
            data = mutated(rng)
            call = bench.client.begin("POST", CHAT, value={"model": "a"})
            try:
                async with asyncio.timeout(10.0):
                    await call.task
                assert call.is_complete, (number, data)
                end = "502" if call.status == 502 else "relayed"
                assert 200 <= call.status <= 599, (number, data)
                assert all(TOKEN.fullmatch(name) for name, _ in call.headers), (number, data)
            except ResponseAbortedError:
                end = "broken off"
                assert not call.is_complete
            ends[end] = ends.get(end, 0) + 1
        data = GOOD_ANSWERS[0]

        assert (await bench.client.chat("a")).body == b"hello"
        assert bench.app.proxy.in_flight.open == {}
    assert set(ends) == {"502", "relayed", "broken off"}


@settings(deadline=None, max_examples=150)
@given(st.randoms(use_true_random=False))
def test_chart_with_any_change_is_accepted_or_refused(rng: random.Random) -> None:
    """Lines of the shipped chart are dropped, doubled, moved and spoilt."""
    lines = CHART.splitlines()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        match rng.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines.insert(at, lines.pop(rng.randrange(len(lines))))
            case 3:
                lines[at] = lines[at].replace(rng.choice((":", "[", "]", "{", ",", "a")), "", 1)
            case _:
                lines[at] += rng.choice(("x", " : ", " *a", " &a [*a]", " [", "\t", " !!int x"))
    with suppress(ChartError):
        assert read("\n".join(lines)).chart


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", "a: " + "[" * 5000, "a: &a [*a]", "a: &a {b: *a}", "chart: &a {states: *a}",
     "a: 2024-99-99", "a: " + "9" * 5000, "? {a: 1}\n: 2", "? [a]\n: 2",
     "a: !!python/name:os.system", "<<: *a", "<<: 1", "a: !!binary x", "\0",
     "a: !!timestamp x", "a: !!int x", "a: !!set [b]",
     "\n".join(["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
               + [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)])],
)  # fmt: skip
def test_hostile_charts_are_refused(text: str) -> None:
    """Nesting, bombs, loops and odd scalars: an error about the chart, at once."""
    with pytest.raises(ChartError):
        read(text)


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(st.integers(0, 2500), st.binary(min_size=1, max_size=8)), max_size=4),
    st.none() | st.integers(0, 2500),
)
def test_gguf_of_any_bytes_is_read_or_refused(
    changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    """Bytes of its metadata are overwritten, and it is cut off; numbers in it may be anything."""
    data = bytearray(gguf())
    for at, new in changes:
        data[at : at + len(new)] = new
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(bytes(data[:cut]))
        try:
            found = read_gguf(path)
        except GgufError:
            return
        assert isinstance(found.sliding_window, int)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), "7", True])
def test_gguf_window_that_is_not_a_number_is_none(number: object) -> None:
    """A model file may say anything about its window."""
    found = Gguf(architecture="a", values={"a.attention.sliding_window": number})  # type: ignore[dict-item]

    assert found.sliding_window in (0, 1)


_GGUF: list[bytes] = []


def gguf() -> bytes:
    if not _GGUF:
        with tempfile.TemporaryDirectory() as folder:
            path = write_tiny_gguf(Path(folder) / "tiny.gguf", window=64)
            _GGUF.append(path.read_bytes()[:100_000])
    return _GGUF[0]
