"""Attacks on credentials, scopes, Host and Origin."""

from __future__ import annotations

import base64
import socket
from urllib.parse import quote

from .entry import Attack
from .target import CHAT, Target, read_request

ADMIN, INFER, SOME, LIMITED = "sk-attack-admin", "sk-attack-infer", "sk-attack-some", "sk-limited"
PEER = "sk-attack-peer"
CONFIG = {
    "apiKeys": [
        ADMIN,
        {"key": INFER, "scopes": ["infer"]},
        {"key": SOME, "scopes": ["infer", "admin"], "models": ["demo"]},
        {"key": LIMITED, "models": ["demo"]},
        {"key": PEER, "scopes": ["infer", "admin"], "models": ["far/model", "model"]},
    ],
    "peers": {"far": {"proxy": "http://127.0.0.1:9", "models": ["model"], "apiKey": "theirs"}},
    "allowedHosts": ["*.a.*.b.*.lan"],
    "allowedOrigins": ["https://*.a.*.b.*.example"],
}
CLOSE = "Connection: close\r\n"
REFUSED = (400, 401, 403, 413, 414, 431)
EVIL = {"Origin": "https://evil.invalid"}


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"me:{key}".encode()).decode()


def infer_key_changes_a_models_server(target: Target) -> None:
    """An infer key has no method but the one of inference, below any spelling of a path."""
    paths = (CHAT, "/props", "/sdapi/v1/loras", "/v1/responses", "/slots/0?action=erase")
    spelled = ("/PROPS", "/props/", "//props", "/%70rops", "/props;x", "/a/../slots")
    for path in paths + spelled:
        for method in ("PUT", "DELETE", "PATCH", "POST"):
            if (method, path) in (("POST", CHAT), ("POST", "/v1/responses")):
                continue
            answer = target.call(
                method, f"/upstream/demo{path}", headers={"x-api-key": INFER}, body=b"{}"
            )
            assert answer.status == 403, (method, path)


def infer_key_opens_a_websocket(target: Target) -> None:
    """A websocket is opened by GET, so a path that is for POST needs admin."""
    fields = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    for key, path in (
        (INFER, f"/upstream/demo{CHAT}"), (INFER, "/upstream/demo/ws"),
        (LIMITED, "/upstream/hostile/ws"), (SOME, "/upstream/hostile/ws"),
    ):  # fmt: skip
        with target.connect() as connection:
            connection.request("GET", path, headers={**fields, "x-api-key": key})
            assert connection.read_head().status == 403, path


def key_for_one_model_reaches_for_another(target: Target) -> None:
    """A key for one model sees, stops and asks no other, and administers nothing whole."""
    some = {"x-api-key": SOME}
    whole = (
        "/logs", "/metrics", "/api/config", "/api/profiles", "/unload", "/api/performance",
        "/logs/stream", "/logs/stream/proxy", "/logs/stream/hostile", "/api/hardware",
        "/api/models/hostile/history", "/upstream/hostile/", "/props?model=hostile",
    )  # fmt: skip
    for path in whole:
        answer = target.call("GET", path, headers=some)
        assert answer.status == 403, path
    for path in ("/running", "/v1/models", "/models", "/api/queue", "/api/metrics/activity"):
        answer = target.call("GET", path, headers=some)
        assert answer.status == 200, path
        assert b"hostile" not in answer.body, path
    for path in ("/models/unload", CHAT, "/api/models/unload/hostile", "/api/config/reload"):
        value = {"model": "hostile", "messages": []}
        assert target.call("POST", path, value=value, headers=some).status == 403, path
    for path in ("/running", "/logs/stream/demo", "/api/models/demo/history"):
        assert target.call("GET", path, headers={"x-api-key": LIMITED}).status == 403, path


def key_for_a_peers_model_reaches_for_the_peer(target: Target) -> None:
    """A key for one model of a peer gets nothing else of it, whatever stands below its name."""
    for path in (CHAT, "/props?model=other", "/logs", "/api/models/unload", "/", "/%2e%2e/logs"):
        for name in ("far/model", "far%2Fmodel", "model"):
            for method in ("GET", "POST"):
                answer = target.call(
                    method, f"/upstream/{name}{path}", headers={"x-api-key": PEER},
                    body=b'{"model": "other"}',
                )  # fmt: skip
                assert answer.status == 403, (name, path)
    answer = target.call("POST", CHAT, value={"model": "model"}, headers={"x-api-key": PEER})
    assert answer.status == 502  # nobody is there


def long_fields_and_queries_of_many_words(target: Target) -> None:
    """Looking for keys in a head of many words costs each word one look."""
    for word in ("a,", "=", "%41", '"a";', "a=b&"):
        text = word * (6000 // len(word))
        answer = target.call(
            "POST", f"{CHAT}?{text}", value={"model": "demo", "messages": [], "max_tokens": 1},
            headers={"x-api-key": ADMIN, "x-words": text},
        )  # fmt: skip
        assert answer.status in (200, 414, 431)


def credentials_that_differ(target: Target) -> None:
    """The first valid credential counts; rights of two are never joined."""
    for fields, status in (
        ([("authorization", "Bearer sk-wrong"), ("x-api-key", ADMIN)], 200),
        ([("authorization", f"Bearer {INFER}"), ("x-api-key", ADMIN)], 403),
        ([("authorization", basic(INFER)), ("x-api-key", ADMIN)], 403),
        ([("authorization", f"Bearer {ADMIN}"), ("x-api-key", "sk-wrong")], 200),
        ([("authorization", "Basic !"), ("x-api-key", "")], 401),
    ):
        assert target.call("GET", "/running", headers=fields).status == status, fields


def thousands_of_guesses_in_one_request(target: Target) -> None:
    """A request is no way to try many keys at once."""
    fields = [("x-api-key", f"sk-{number}") for number in range(50)] + [("x-api-key", ADMIN)]
    assert target.call("GET", "/running", headers=fields).status in REFUSED
    many = b"".join(b"x-api-key: sk-%d\r\n" % number for number in range(5000))
    assert target.send(b"GET /running HTTP/1.1\r\nhost: localhost\r\n" + many + b"\r\n") in (
        *REFUSED, 0,
    )  # fmt: skip


def foreign_page_with_the_browsers_password(target: Target) -> None:
    """Credentials that a browser repeats do not count as the key of a page."""
    for fields in (
        {**EVIL, "Authorization": basic(ADMIN)},
        {"Origin": "null", "Authorization": basic(ADMIN)},
        {"Sec-Fetch-Site": "cross-site", "Authorization": basic(ADMIN)},
        {"Sec-Fetch-Site": "same-site", "Authorization": basic(ADMIN), "Host": "x.a.x.b.x.lan"},
        {**EVIL, "Authorization": basic(ADMIN), "x-api-key": INFER},
        {**EVIL},
    ):
        for method, path in (("POST", "/api/models/unload"), ("GET", "/unload"), ("POST", CHAT)):
            answer = target.call(method, path, headers=fields, body=b'{"model": "demo"}')
            assert answer.status == 403, (fields, path)
    assert target.call("GET", "/running", headers={**EVIL, "x-api-key": ADMIN}).status == 200


def rebound_and_malformed_hosts(target: Target) -> None:
    """A foreign or malformed Host is refused everywhere but at /health."""
    for host in ("evil.invalid", "127.0.0.1.evil.invalid", "a@127.0.0.1", "[::1", "x" * 5000):
        for path in ("/", "/running", "/v1/models"):
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {ADMIN}\r\n{CLOSE}\r\n"
            assert target.send(head.encode()) in (400, 421, 431), (host, path)
    assert target.send(f"GET /health HTTP/1.1\r\nHost: evil.invalid\r\n{CLOSE}\r\n".encode()) == 200


def names_made_for_slow_patterns(target: Target) -> None:
    """Long values of Host and Origin against patterns with many stars are cheap."""
    for name, start in (("Host", "x"), ("Origin", "https://x")):
        for filler in (".a", ".a.b", "."):
            value = start + filler * (12_000 // len(filler))
            other = "" if name == "Host" else "Host: localhost\r\n"
            head = f"POST /api/models/unload HTTP/1.1\r\n{other}{name}: {value}\r\n{CLOSE}\r\n"
            assert target.send(head.encode()) in (0, 421, *REFUSED)


def query_of_thousands_of_parameters(target: Target) -> None:
    """Looking for keys in a long query costs each parameter one look."""
    query = "&".join(f"a{number % 10}=b" for number in range(2000))
    answer = target.call(
        "POST", f"{CHAT}?{query}", value={"model": "demo", "messages": [], "max_tokens": 1},
        headers={"x-api-key": ADMIN},
    )  # fmt: skip
    assert answer.status in (200, 414, 431)


def keys_in_other_fields_and_in_the_query(target: Target) -> None:
    """No model gets a key of ours, whichever field or parameter holds it."""
    seen: list[bytes] = []

    def play(connection: socket.socket) -> None:
        while True:
            seen.append(read_request(connection))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with target.played(play):
        for field, value in (
            ("api-key", ADMIN), ("x-goog-api-key", ADMIN), ("cookie", f"a=b; key={ADMIN}"),
            ("cookie", f"a={'b' * 600}; key={ADMIN}"), ("x-auth", f'token="{ADMIN}"'),
            ("x-auth", f"token:{ADMIN}"), ("referer", f"http://h/?u={quote(f'?k={ADMIN}')}"),
        ):  # fmt: skip
            fields = {"authorization": f"Bearer {ADMIN}", field: value, "x-kept": "yes"}
            path = f"{CHAT}?api_key={quote(ADMIN)}&kept=1&{ADMIN}&a=1;key={ADMIN}"
            answer = target.call("POST", path, value={"model": "hostile"}, headers=fields)
            assert answer.status == 200
    assert len(seen) >= 3
    assert not [head for head in seen if ADMIN.encode() in head]
    assert all(b"kept=1" in head and b"x-kept: yes" in head.lower() for head in seen[-3:])


ATTACKS: tuple[Attack, ...] = tuple(
    Attack(run, growth_mib=24, config=CONFIG)
    for run in (
        infer_key_changes_a_models_server,
        infer_key_opens_a_websocket,
        key_for_one_model_reaches_for_another,
        key_for_a_peers_model_reaches_for_the_peer,
        long_fields_and_queries_of_many_words,
        credentials_that_differ,
        thousands_of_guesses_in_one_request,
        foreign_page_with_the_browsers_password,
        rebound_and_malformed_hosts,
        names_made_for_slow_patterns,
        query_of_thousands_of_parameters,
        keys_in_other_fields_and_in_the_query,
    )
)
