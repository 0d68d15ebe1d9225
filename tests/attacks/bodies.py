"""Attacks on request bodies (JSON, forms, multipart), and on what is read of responses."""

from __future__ import annotations

import contextlib
import gzip
import threading

from tools.swapchart_process import demo_model

from .entry import Attack
from .target import CHAT, Target, play_response

_FORM = "/v1/audio/transcriptions"
_JSON = {"Content-Type": "application/json"}
_URLENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
_BOUNDARY = "multipart/form-data; boundary=b"
_MIB = 1 << 20
_REST = b'"max_tokens":1,"messages":[{"role":"user","content":"hi"}]}'
_FILTERED = {
    "models": {
        "filtered": {
            **demo_model("filtered", "--slots", "64"),
            "filters": {"stripParams": "temperature", "setParams": {"stop": ["x"]}},
        }
    }
}


def post(target: Target, body: bytes, path: str = CHAT, **fields: str) -> int:
    """Send *body*; returns the status, or 0 if the connection ended before it came."""
    headers = {**_JSON, **{name.replace("_", "-"): value for name, value in fields.items()}}
    with target.connect() as client:
        with contextlib.suppress(ConnectionError):  # it may be refused before it was sent
            client.request("POST", path, body=body, headers=headers)
        with contextlib.suppress(EOFError, ConnectionError):
            return client.read_answer().status
    return 0


# ---- forms
def blanks_in_a_form_parameter(target: Target) -> None:
    """8,000 blanks, quotes or escapes before an open quote are refused at once."""
    for filler in (" ", ";", '\\"', "; a=", "; =", 'a="'):
        kind = "multipart/form-data; a=" + filler * (8000 // len(filler)) + '"'
        headers = {"Content-Type": kind}
        assert target.call("POST", _FORM, body=b"x", headers=headers).status == 400, filler


def blanks_in_the_head_of_a_part(target: Target) -> None:
    """So are they in the Content-Disposition of a part."""
    for filler in (b" ", b";", b'\\"', b"; a=", b"; =", b'a="'):
        given = b"form-data; a=" + filler * (8000 // len(filler)) + b'"'
        body = b"--b\r\nContent-Disposition: " + given + b"\r\n\r\nx\r\n--b--\r\n"
        headers = {"Content-Type": _BOUNDARY}
        assert target.call("POST", _FORM, body=body, headers=headers).status == 400, filler


def form_of_half_boundaries(target: Target) -> None:
    """16 MiB of beginnings of a boundary are no boundary."""
    body = b"--b\r\n\r\n" + b"\r\n--" * (4 * _MIB)

    assert post(target, body, _FORM, Content_Type=_BOUNDARY) == 400


def urlencoded_form_of_60_mb(target: Target) -> None:
    """A form with 15 million fields is looked through in small steps."""
    body = b"a=b&" * 15_000_000 + b"model=nobody"

    assert post(target, body, "/infill", **_URLENCODED) == 404


def urlencoded_form_of_models(target: Target) -> None:
    """A form that names its model a million times is refused."""
    assert post(target, b"&model=demo" * 1_000_000, "/infill", **_URLENCODED) == 400


# ---- JSON
def model_name_of_60_mb(target: Target) -> None:
    """A name that is no name is neither compared with others nor echoed."""
    body = b'{"model":"' + b"a" * 60_000_000 + b'"}'
    with target.connect() as client:
        client.request("POST", CHAT, body=body, headers=_JSON)
        answer = client.read_answer()

    assert (answer.status, len(answer.body) < 1000) == (400, True)


def model_names_near_the_limit(target: Target) -> None:
    """Model names of any length that do not exist are unknown."""
    for size in (200, 256, 257, 1000):
        for letter in ("a", "demo", "hostile"):
            name = (letter * size)[:size]
            answer = target.call("POST", CHAT, value={"model": name, "messages": []})
            assert (answer.status, len(answer.body) < 1000) == (404, True)


def json_of_60_mb(target: Target) -> None:
    """20 million empty lists are validated in small steps."""
    assert post(target, b'{"model":"nobody","x":[' + b"[]," * 20_000_000 + b"1]}") == 404


def json_of_names(target: Target) -> None:
    """`model` in a million places is found where it counts."""
    for part in (b'"model",', b'{"model":1},', b'"\\u006dodel",'):
        body = b'{"x":[' + part * (8_000_000 // len(part)) + b'1],"model":"nobody"}'
        assert post(target, body) == 404, part


def json_that_builds_a_tree(target: Target) -> None:
    """A model or a stream that is a list of a million lists is not built in memory."""
    tree = b"[" + b"[]," * 1_300_000 + b"1]"

    assert post(target, b'{"model":' + tree + b"}") == 400
    assert post(target, b'{"model":"nobody","stream":' + tree + b"}") == 404


def json_of_blanks_and_digits(target: Target) -> None:
    """White space or digits without end are refused, in whatever size."""
    for filler in (b" ", b"1", b"[", b'{"a":', b'"'):
        body = b'{"model":"nobody","x":' + filler * (16 * _MIB // len(filler)) + b"}"
        assert post(target, body) == 400, filler


def repeated_keys_that_are_edited(target: Target) -> None:
    """1.1 MB of one key are edited in one pass: stripped, or refused where they would be set."""
    for part, status in ((b'"temperature":1,', 200), (b'"stop":[],', 400), (b'"a":{},', 200)):
        body = b'{"model":"filtered",' + part * (1_100_000 // len(part)) + _REST
        assert post(target, body) == status, part
    target.proxy.unload("filtered")


def many_repeated_keys_at_once(target: Target) -> None:
    """42 such bodies at once, of clients that leave, delay no other client and are freed."""
    body = b'{"model":"filtered",' + b'"temperature":1,' * 70_000 + _REST
    threads = [threading.Thread(target=post, args=(target, body)) for _ in range(21)]
    for thread in threads:
        thread.start()
    for _ in range(21):
        with target.connect() as client:
            client.request("POST", CHAT, body=body, headers=_JSON)
    for thread in threads:
        thread.join()
    target.proxy.unload("filtered")


# ---- paths and numbers
def slashes_below_upstream(target: Target) -> None:
    """16,000 slashes behind `/upstream/` name no model, over HTTP and as a websocket."""
    path = "/upstream/" + "a/" * 3000 + "/" * 9000
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    for _ in range(5):
        assert target.call("GET", path).status == 404
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", **key}
        assert target.call("GET", path, headers=headers).status in (403, 404)


def dots_below_a_model_that_is_not_loaded(target: Target) -> None:
    """A path of 15,000 dots is held against `ignorePaths` in no time."""
    assert target.call("GET", "/upstream/filtered/" + "." * 15_000).status == 404
    target.proxy.unload("filtered")


def numbers_of_5000_digits(target: Target) -> None:
    """A number that no program counts with is refused, wherever it stands."""
    digits = "9" * 5000
    for method, path in (
        ("GET", f"/api/captures/{digits}"), ("GET", f"/api/models/demo/history?limit={digits}"),
        ("GET", f"/api/activity?limit={digits}"), ("GET", f"/api/activity?min_id={digits}"),
        ("GET", f"/api/performance?after={digits}"), ("GET", f"/api/activity?start={digits}"),
        ("POST", f"/api/inflight/{digits}/cancel"),
    ):  # fmt: skip
        answer = target.call(method, path)
        assert answer.status in (400, 404, 503), (path[:40], answer.status)
        assert len(answer.body) < 1000
    for name in ("model", "stream"):
        body = f'{{"model":"nobody","{name}":{digits}}}'.encode()
        assert post(target, body) in (400, 404)


# ---- responses
def model_repeats_its_usage(target: Target) -> None:
    """2.7 MB of beginnings of a usage in a response are looked at once, and not all of them."""
    for part in (b'"usage":{', b'data:{"usage":{', b'data: {"usage":{}}\n', b'{"usage":['):
        for kind in (b"application/json", b"text/event-stream"):
            head = b"Content-Type: " + kind + b"\r\n\r\n"
            reply = target.ask_hostile(play_response(head, part * (2_700_000 // len(part))))
            assert reply.startswith(b"HTTP/1.1 200"), reply[:100]


def model_sends_a_bomb(target: Target) -> None:
    """A compressed response of 200 MB is passed on as it is, and not unpacked to the end."""
    packed = gzip.compress(b'{"usage":{' + bytes(200 << 20), 1)
    head = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    reply = target.ask_hostile(play_response(head, packed))

    assert reply.startswith(b"HTTP/1.1 200"), reply[:100]


def model_fails_at_length(target: Target) -> None:
    """An error of 2 MB is passed on, and not read to find its message."""
    body = b'{"error":' * 220_000
    head = b"Content-Length: %d\r\n\r\n" % len(body)
    reply = target.ask_hostile(play_response(head, body, status=b"500 No"))

    assert reply.startswith(b"HTTP/1.1 500"), reply[:100]


ATTACKS: tuple[Attack, ...] = (
    Attack(blanks_in_a_form_parameter, growth_mib=16),
    Attack(blanks_in_the_head_of_a_part, growth_mib=16),
    Attack(form_of_half_boundaries, growth_mib=16),
    Attack(urlencoded_form_of_60_mb, growth_mib=200),
    Attack(urlencoded_form_of_models),
    Attack(model_name_of_60_mb, growth_mib=200),
    Attack(model_names_near_the_limit, growth_mib=16),
    Attack(json_of_60_mb, growth_mib=200),
    Attack(json_of_names),
    Attack(json_that_builds_a_tree, growth_mib=40),
    Attack(json_of_blanks_and_digits, growth_mib=100),
    Attack(repeated_keys_that_are_edited, config=_FILTERED),
    Attack(many_repeated_keys_at_once, config=_FILTERED, growth_mib=200),
    Attack(slashes_below_upstream, growth_mib=16),
    Attack(dots_below_a_model_that_is_not_loaded, config=_FILTERED),
    Attack(numbers_of_5000_digits, growth_mib=16),
    Attack(model_repeats_its_usage),
    Attack(model_sends_a_bomb),
    Attack(model_fails_at_length),
)
