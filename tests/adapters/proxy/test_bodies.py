"""Request bodies: model names, filters, limits and passing them on unchanged."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import quote_plus

import pytest
from tools.asgi import Bench, Received, run_proxied, say
from tools.net import wait_until_async
from tools.rows import row

from swapchart.adapters.proxy.api.inference_paths import GET_PATHS, POST_PATHS
from swapchart.adapters.proxy.body.errors import BadBodyError
from swapchart.adapters.proxy.body.json_edit import put
from swapchart.adapters.proxy.body.json_path import parse_path
from swapchart.adapters.proxy.body.model_name import model_of, model_of_query
from swapchart.adapters.proxy.models.definitions import BodyFilters, ModelDefinition
from swapchart.adapters.proxy.options import ProxyOptions

FILTERED = ModelDefinition(
    id="f", aliases=("f:fast",), use_model_name="real-name",
    filters=BodyFilters(
        strip=("temperature", "top_p"), set_params={"stop": ["x"], "a.b": 1},
        set_params_by_id={"f:fast": {"fast": True, "a.b": 2}},
    ),
)  # fmt: skip
RENAMED = ModelDefinition(id="r", aliases=("r2",), use_model_name="upstream/r")
BOUNDARY = "b0undary"


# ---- JSON
@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a"}', "a"),
        (b' \n{"x":{"model":"b"},"model":"a"}', "a"),
        (b'{"messages":[{"content":"\\"model\\":\\"b\\""}],"model":"a"}', "a"),
        (b'{"mod\\u0065l":"a"}', "a"),
        (b'{"model":"a","tools":[{"properties":{"model":{}}}]}', "a"),
        (b'{"model":"\\u00e9\\n"}', "\u00e9\n"),
        (b'{"model":""}', ""),
        (b'{"model":null}', ""),
        (b"{}", ""),
        (b'{"n":' + b"9" * 5000 + b',"model":"a"}', "a"),
    ],
)
def test_model_name_is_read_from_json(body: bytes, model: str) -> None:
    """The model is the member of that name at the top, and nothing that looks like it."""
    assert model_of(body)[0] == model


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b'"a"', b"1", b"null", b'{"model":', b'{"model":"a"} x', b'{"model":"a",}',
        b'\xef\xbb\xbf{"model":"a"}', b'{"model":NaN}', b'{"x":NaN,"model":"a"}', b"{'model':'a'}",
        b'{"model":1}', b'{"model":["a"]}', b'{"model":{"a":1}}', b'{"model":true}',
        b'{"model":"a","model":"b"}', b'{"model":"a","model":"a"}',
        b'{"model":"a","mod\\u0065l":1}', b'{"model":"model","\xaf":1}',
        b'{"\\u006dodel":"a","model":"b"}', b'{"model":"\\ud800"}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"model":"a"}',
        b'{"x":' + b'{"y":' * 100_000 + b"1" + b"}" * 100_000 + b',"model":"a"}',
    ],
)  # fmt: skip
@row("C42")
def test_hazardous_json_is_refused(body: bytes) -> None:
    """Whatever else the body is, the answer is 400, and the model is never guessed."""
    with pytest.raises(BadBodyError):
        model_of(body)


@pytest.mark.parametrize("depth", [500, 1500, 5000, 15_000])
def test_model_of_a_deeply_nested_body_is_found_or_refused(depth: int) -> None:
    """How deep a body may be nested depends on the Python; never what its model is."""
    nested = b"[" * depth + b"]" * depth
    body = b'{"x":' + nested + b',"model":"a"}'
    try:
        assert model_of(body) == ("a", False)
    except BadBodyError:
        assert depth > 500
    assert put(body, parse_path("model"), b'"b"') == b'{"x":' + nested + b',"model":"b"}'


@row("C42")
def test_filters_refuse_names_that_are_no_text() -> None:
    """A body that its model's server could not read either is told so, not an error of ours."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(
            "POST", "/v1/chat/completions", body=b'{"model":"a","\xaf":1}',
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert (answer.status, b"not valid JSON" in answer.body) == (400, True)

    run_proxied(main, ModelDefinition(id="a", filters=BodyFilters(strip=("x",))))


@row("C42")
def test_hazardous_json_gets_the_standard_error() -> None:
    """A bad body is told to its sender as any error is, and nothing is started for it."""

    async def main(bench: Bench) -> None:
        for body in (b'{"model":"a","model":"b"}', b'{"model":"a"', b"[1]", b'{"model":7}', b""):
            answer = await bench.client.call(
                "POST", "/v1/chat/completions", body=body,
                headers={"Content-Type": "application/json"},
            )  # fmt: skip

            assert (answer.status, answer.error()["type"]) == (400, "invalid_request_error")
        assert bench.supervisor["a"].incarnation == 0

    run_proxied(main)


def test_body_without_filters_is_passed_unchanged() -> None:
    """Without filters the model gets the very bytes that the client sent."""
    body = b'{ "model" :"a",\r\n "n":1.50, "t":1e400, "s":"\\u00e9\xc3\xa9" , "x":[ ] }'

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", "/v1/completions", body=body)

        assert bench.server.last.body == body
        assert bench.server.last.header("content-length") == str(len(body))

    run_proxied(main)


def test_filters_apply_in_their_order() -> None:
    """useModelName, then strip, then setParams, then those of the name that was asked for."""
    body = b'{"model": "f:fast", "temperature": 0.70, "keep": 1.50, "a": {"c": 0}, "stop": null}'

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", "/v1/chat/completions", body=body)

        sent = bench.server.last
        expected = (
            b'{"model": "real-name", "keep": 1.50, "a": {"c": 0,"b":2}, "stop": ["x"],"fast":true}'
        )
        assert sent.body == expected
        assert sent.header("content-length") == str(len(expected))
        await bench.client.call("POST", "/v1/chat/completions", body=b'{"model":"f"}')
        assert bench.server.last.json() == {"model": "real-name", "stop": ["x"], "a": {"b": 1}}

    run_proxied(main, FILTERED)


def test_filters_apply_to_any_content_type() -> None:
    """Unlike in llama-swap, another type does not get a body round the filters."""

    async def main(bench: Bench) -> None:
        body = b'{"model":"f","temperature":1}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/xml"):
            await bench.client.call(
                "POST", "/v1/chat/completions?model=f", body=body, headers={"Content-Type": kind}
            )

            assert "temperature" not in bench.server.last.json()
        form = await bench.client.call(
            "POST", "/v1/chat/completions?model=f", body=b"temperature=1",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )  # fmt: skip
        assert form.status == 415

    run_proxied(main, FILTERED)


def test_filter_that_does_not_fit_the_body_is_400() -> None:
    """A path through a list by name is the configuration's fault, and is said so."""
    card = ModelDefinition(id="m", filters=BodyFilters(set_params={"stop.name": 1}))

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(
            "POST", "/v1/completions", value={"model": "m", "stop": ["x"]}
        )

        assert answer.status == 400
        assert "stop.name" in answer.error()["message"]

    run_proxied(main, card)


@row("C42")
def test_large_body_does_not_stop_the_others() -> None:
    """While megabytes are looked through, other requests are answered."""
    numbers = b",".join([b"0.123456"] * 1_000_000)
    body = b'{"model":"f","x":[' + numbers + b"]}"

    async def main(bench: Bench) -> None:
        await bench.client.chat("f")
        large = bench.client.begin("POST", "/v1/completions", body=body)
        answered = 0
        while not large.task.done():
            assert (await bench.client.call("GET", "/health")).status == 200
            answered += 1
            await asyncio.sleep(0)

        assert answered > 5
        assert (await large.answer()).status == 200
        assert bench.server.last.json()["stop"] == ["x"]

    run_proxied(main, FILTERED)


def test_body_beyond_the_limit_is_413() -> None:
    """Beyond the limit the answer is 413, before the body was read if its length was told."""

    async def main(bench: Bench) -> None:
        told = await bench.client.call("POST", "/v1/completions", body=b"{" + b" " * 99)
        untold = await bench.client.call("POST", "/v1/completions", pieces=[b"{", b" " * 99])

        assert (told.status, untold.status) == (413, 413)
        assert told.header("connection") == "close"

    run_proxied(main, options=ProxyOptions(json_limit_bytes=50))


@pytest.mark.parametrize("path", sorted(POST_PATHS))
def test_post_routes_forward_to_the_model(path: str) -> None:
    """Every route whose body names the model passes it on, less what is cut off its path."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", f"{path}?q=%2F", value={"model": "r2", "n": 1})

        assert answer.status == 200
        cut = POST_PATHS[path].decode()
        assert bench.server.last.target == path.removeprefix(cut) + "?q=%2F"
        assert bench.server.last.json() == {"model": "upstream/r", "n": 1}

    run_proxied(main, RENAMED)


@pytest.mark.parametrize("path", GET_PATHS)
def test_get_routes_forward_to_the_model(path: str) -> None:
    """The GET routes take the model from the query, and start it like any other."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", f"{path}?x=%20&model=r2&autoload=true")
        missing = await bench.client.call("GET", path)
        twice = await bench.client.call("GET", f"{path}?model=r&model=r2")

        assert answer.status == 200
        target = f"{path}?x=%20&model=upstream%2Fr"
        assert (bench.server.last.method, bench.server.last.target) == ("GET", target)
        assert (missing.status, twice.status) == (400, 400)
        assert (await bench.client.call("HEAD", f"{path}?model=r")).status == 200

    run_proxied(main, RENAMED)


def test_urlencoded_form_names_its_model() -> None:
    """A form names its model in its body or in the query; only that part changes."""
    fields = {"Content-Type": "application/x-www-form-urlencoded"}

    async def main(bench: Bench) -> None:
        await bench.client.call("POST", "/infill", body=b"a=%41&model=r2&b=+", headers=fields)
        assert bench.server.last.body == b"a=%41&model=upstream%2Fr&b=+"
        await bench.client.call("POST", "/infill?model=r", body=b"a=1", headers=fields)
        assert bench.server.last.body == b"a=1"
        answer = await bench.client.call("POST", "/infill", body=b"a=1", headers=fields)
        assert answer.status == 400

    run_proxied(main, RENAMED)


def test_model_name_is_read_from_the_query() -> None:
    """A name that is given twice with one value is no contradiction."""
    assert model_of_query(b"model=a&model=a") == "a"
    assert model_of_query(b"mode=a") == ""
    with pytest.raises(BadBodyError):
        model_of_query(b"model=a&mod%65l=b")


def test_unknown_or_missing_model_is_an_error() -> None:
    """An unknown model is 404, with a guess; a missing one is 400."""

    async def main(bench: Bench) -> None:
        unknown = await bench.client.chat("alpho")
        missing = await bench.client.call("POST", "/v1/completions", value={})

        assert (unknown.status, unknown.error()["code"]) == (404, "model_not_found")
        assert "did you mean 'alpha'?" in unknown.error()["message"]
        assert missing.status == 400
        assert "no model id could be identified" in missing.error()["message"]

    run_proxied(main, "alpha")


# ---- forms
def form(*parts: tuple[str, bytes] | tuple[str, bytes, str]) -> bytes:
    pieces = []
    for name, value, *file in parts:
        extra = f'; filename="{file[0]}"\r\nContent-Type: audio/x-strange' if file else ""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
        pieces.append(head.encode() + value + b"\r\n")
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
SOUND = bytes(range(256)) * 4000  # about a megabyte


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits"])
@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("model", ["r2", "a"])
def test_form_keeps_its_bytes(path: str, is_last: bool, has_length: bool, model: str) -> None:
    """Only the bytes of the model change; order, types and files stay as they were."""
    parts: list[Any] = [("file", SOUND, "a.wav"), ("language", b"de")]
    parts.insert(2 if is_last else 0, ("model", model.encode()))
    body = form(*parts)
    expected = body.replace(b"\r\n\r\nr2\r\n", b"\r\n\r\nupstream/r\r\n")
    fields = {**FORM, **({"Content-Length": str(len(body))} if has_length else {})}
    pieces = [body[at : at + 50_001] for at in range(0, len(body), 50_001)]

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", path, pieces=pieces, headers=fields)

        assert answer.status == 200
        sent = bench.server.last
        assert sent.body == expected
        assert sent.header("content-type") == FORM["Content-Type"]
        length = str(len(expected)) if has_length else None
        assert sent.header("content-length") == length

    run_proxied(main, RENAMED, "a")


@row("C43")
def test_form_is_streamed() -> None:
    """Once the model is known, the rest reaches its server while the client still sends."""
    arrived = asyncio.Event()

    async def main(bench: Bench) -> None:
        async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
            await say(writer, b"{}")

        bench.server.respond = respond
        body = form(("model", b"a"), ("file", SOUND * 4, "a.wav"))
        released = asyncio.Event()
        first, rest = [body[:2000]], [body[2000:]]

        async def receive() -> dict[str, Any]:
            if first:
                return {"type": "http.request", "body": first.pop(), "more_body": True}
            if rest:
                await released.wait()
                return {"type": "http.request", "body": rest.pop(), "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] == 200
                arrived.set()

        fields = [(b"host", b"localhost"), (b"content-type", FORM["Content-Type"].encode())]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/audio/transcriptions",
            "raw_path": b"/v1/audio/transcriptions", "query_string": b"", "headers": fields,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        task = asyncio.get_running_loop().create_task(bench.app(scope, receive, send))
        await wait_until_async(lambda: bench.supervisor["a"].in_flight, what="admitted")
        released.set()
        await asyncio.wait_for(task, 10)

        assert arrived.is_set()
        assert bench.server.last.body == body

    run_proxied(main)


@pytest.mark.parametrize("is_model_first", [True, False])
def test_form_without_an_end_is_refused(is_model_first: bool) -> None:
    """No model takes a part of a form for the whole, whichever part comes last."""
    parts: list[Any] = [("model", b"a"), ("file", SOUND, "a.wav")]
    body = form(*(parts if is_model_first else parts[::-1]))[: -len(BOUNDARY)]
    pieces = [body[at : at + 50_001] for at in range(0, len(body), 50_001)]

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(
            "POST", "/v1/audio/transcriptions", pieces=pieces, headers=FORM
        )

        assert answer.status == 400
        assert b"ends in the middle" in answer.body
        # Bytes of a body that is refused while it is forwarded may follow on the connection.
        assert (dict(answer.headers).get("connection") == "close") == is_model_first
        assert [each for each in bench.server.received if each.body == body] == []
        assert bench.supervisor["a"].in_flight == 0

    run_proxied(main)


def test_upload_that_its_client_aborts_is_recorded_as_499() -> None:
    """A client that disconnects within its form leaves a record of that, and no request."""

    async def main(bench: Bench) -> None:
        body = form(("model", b"a"), ("file", SOUND * 4, "a.wav"))
        left = asyncio.Event()
        first = [body[:2000]]

        async def receive() -> dict[str, Any]:
            if first:
                return {"type": "http.request", "body": first.pop(), "more_body": True}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        fields = [(b"host", b"localhost"), (b"content-type", FORM["Content-Type"].encode())]
        scope = {
            "type": "http", "method": "POST", "path": "/v1/audio/transcriptions",
            "raw_path": b"/v1/audio/transcriptions", "query_string": b"", "headers": fields,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        task = asyncio.get_running_loop().create_task(bench.app(scope, receive, send))
        await wait_until_async(lambda: bench.supervisor["a"].in_flight, what="admitted")
        left.set()
        await asyncio.wait({task}, timeout=10)

        assert task.done()
        assert bench.supervisor["a"].in_flight == 0
        assert bench.app.proxy.accounting.metrics.requests == {("a", "client_left"): 1}
        assert 'transcriptions HTTP/" 499 0 ' in bench.app.proxy.own_log.tail(1)[0]

    run_proxied(main)


@pytest.mark.parametrize(
    ("body", "fields", "status"),
    [
        (form(("file", b"x", "a")), FORM, 400),
        (form(("model", b"a"), ("model", b"b")), FORM, 400),
        (form(("model", b"a"))[:-10], FORM, 400),
        (form(("model", b"nobody")), FORM, 404),
        (form(("model", b"a")), {"Content-Type": "multipart/form-data"}, 400),
        (form(("file", b"x" * 3000, "a"), ("model", b"a")), FORM, 413),
        (form(("model", b"a"), ("file", b"x" * 9000, "a")), FORM, 413),
    ],
)
@row("C43")
def test_form_that_is_invalid_is_refused(body: bytes, fields: dict[str, str], status: int) -> None:
    """A form without one model, without an end, or too large, is refused; nothing hangs."""

    async def main(bench: Bench) -> None:
        pieces = [body[at : at + 500] for at in range(0, len(body), 500)]
        answer = await bench.client.call(
            "POST", "/v1/audio/transcriptions", pieces=pieces, headers=fields
        )

        assert answer.status == status
        assert bench.supervisor["a"].in_flight == 0

    run_proxied(main, options=ProxyOptions(form_head_bytes=2500, form_limit_bytes=8000))


@row("C43")
def test_spooled_body_leaves_no_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits on disk has no name there, so that nothing is left however we end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    body = form(("file", SOUND * 3, "../../x"), ("model", b"r"))
    names: list[list[str]] = []

    async def main(bench: Bench) -> None:
        async def respond(received: Received, writer: asyncio.StreamWriter) -> None:
            names.append([path.name for path in tmp_path.iterdir()])
            assert received.body == body.replace(b"\r\n\r\nr\r\n", b"\r\n\r\nupstream/r\r\n")
            await say(writer, json.dumps({"text": "x"}).encode())

        bench.server.respond = respond
        pieces = [body[at : at + 60_000] for at in range(0, len(body), 60_000)]
        answer = await bench.client.call(
            "POST", "/v1/audio/transcriptions", pieces=pieces, headers=FORM
        )
        assert answer.status == 200

    run_proxied(main, RENAMED)
    assert names == [[]]
    assert list(tmp_path.iterdir()) == []


# ---- bodies that take long
def brackets(model: str) -> bytes:
    """Return a body of 8 MB that takes long to look through."""
    return b'{"model":"%b","x":[' % model.encode() + b"[]," * 2_700_000 + b"1]}"


def test_body_that_takes_long_is_given_up_when_its_client_leaves() -> None:
    """Work for a client that is gone ends in the middle, and its request reaches no model."""

    async def main(bench: Bench) -> None:
        call = bench.client.begin("POST", "/v1/completions", body=brackets("f"))
        await asyncio.sleep(0)
        call.leave()
        await asyncio.wait_for(call.task, 20)
        await bench.client.chat("f")

        assert (call.status, len(bench.server.received)) == (0, 1)
        assert bench.app.bodies.used_bytes == 0

    run_proxied(main, FILTERED)


def test_bodies_that_take_long_take_turns() -> None:
    """Of many such bodies one is worked on at a time, and others are answered between its steps."""

    async def main(bench: Bench) -> None:
        await bench.client.chat("f")
        calls = [
            bench.client.begin("POST", "/v1/completions", body=brackets(name))
            for name in ("f", "nobody")
        ]
        longest = 0.0
        while not all(call.task.done() for call in calls):
            began = time.process_time()
            assert (await bench.client.call("GET", "/health")).status == 200
            longest = max(longest, time.process_time() - began)
            await asyncio.sleep(0)

        assert [(await call.answer()).status for call in calls] == [200, 404]
        assert longest < 0.5  # five times what the event loop may be blocked

    run_proxied(main, FILTERED)


@pytest.mark.parametrize("size", [1025, 100_000, 5_000_000])
def test_model_name_without_end_is_refused(size: int) -> None:
    """A name longer than 1 KiB is neither compared nor echoed, in whatever body it comes."""
    name = "a" * size

    async def main(bench: Bench) -> None:
        urlencoded = {"Content-Type": "application/x-www-form-urlencoded"}
        bodies = (
            ({"value": {"model": name}}, "/v1/completions"),
            ({"body": b"model=" + name.encode(), "headers": urlencoded}, "/infill"),
            ({"body": form(("model", name.encode())), "headers": FORM}, "/v1/images/edits"),
        )
        for body, path in bodies:
            answer = await bench.client.call("POST", path, **body)

            assert (answer.status, len(answer.body) < 500) == (400, True)

    run_proxied(main)


def test_model_name_that_is_unknown_is_shortened() -> None:
    """An unknown name of some length is named in part."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.chat("alpha" * 100)

        assert (answer.status, len(answer.body) < 500) == (404, True)
        assert "(500 characters)" in answer.error()["message"]

    run_proxied(main)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"hello"),
        ("audio/wav", b"RIFF\x00\xff"),
        ("", b""),
        ("", b"\x00"),
        ("application/x-www-form-urlencoded", b"input=x&voice=y"),
        (FORM["Content-Type"], form(("file", SOUND, "a.wav"))),
    ],
    ids=["text", "audio", "empty", "untyped", "urlencoded", "multipart"],
)
@pytest.mark.parametrize(("name", "sent"), [("a", "a"), ("r2", "upstream/r")])
def test_body_without_model_is_sent_to_the_model_of_the_query(
    kind: str, body: bytes, name: str, sent: str
) -> None:
    """Text, bytes and forms pass unchanged; the query has the name that the server knows."""

    async def main(bench: Bench) -> None:
        headers = {"Content-Type": kind} if kind else {}
        target = f"/v1/audio/transcriptions?x=1&model={name}"
        answer = await bench.client.call("POST", target, body=body, headers=headers)

        assert answer.status == 200
        assert bench.server.last.body == body
        query = f"?x=1&model={quote_plus(sent)}"
        assert bench.server.last.target == f"/v1/audio/transcriptions{query}"

    run_proxied(main, RENAMED, "a")


def test_body_without_model_does_not_bypass_filters() -> None:
    """A model with filters takes JSON only; a body of another type that names it is 415."""
    card = ModelDefinition(id="f", filters=BodyFilters(strip=("seed",)))

    async def main(bench: Bench) -> None:
        headers = {"Content-Type": "text/plain"}
        answer = await bench.client.call(
            "POST", "/v1/completions?model=f", body=b"x", headers=headers
        )

        assert answer.status == 415
        assert bench.server.received == []
        for kind in ("application/json", "text/plain"):
            target = "/v1/completions" + ("?model=f" if "json" in kind else "")
            answer = await bench.client.call(
                "POST", target, body=b"x", headers={"Content-Type": kind}
            )
            assert answer.status == 400, kind

    run_proxied(main, card)
