"""What a key may do below a model's path, and that no key of ours reaches a model or a peer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from urllib.parse import quote

import pytest
from tools.asgi import Bench, Server, proxied, serving

from swapchart.adapters.proxy.access.api_keys import ApiKeys
from swapchart.adapters.proxy.api.inference_paths import GET_PATHS, POST_PATHS
from swapchart.adapters.proxy.models.definitions import (
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
)
from swapchart.adapters.proxy.options import Access, ApiKey, KeyScope, ProxyOptions
from swapchart.runtime import Command, ServiceSpec

INFER, ADMIN = "sk-infer/+=", "sk-admin"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
KEYED = ProxyOptions(
    keys=(
        ApiKey(key=INFER, scopes=frozenset({"infer"})),
        ApiKey(key=ADMIN),
        ApiKey(key="sk-main", models=("main",)),
        ApiKey(key="sk-a", models=("a",)),
    )
)


def run(
    main: Callable[[Bench], Awaitable[None]], *cards: str | ModelDefinition, **more: object
) -> None:
    async def whole() -> None:
        async with proxied(*cards, **{"options": KEYED, **more}) as bench:  # type: ignore[arg-type]
            await main(bench)

    asyncio.run(whole())


# ---- methods and paths
def allowed(method: str, path: str) -> bool:
    if method == "POST":
        return path in POST_PATHS
    return method in ("GET", "HEAD") and path in GET_PATHS


def test_infer_key_below_upstream_every_method_and_path() -> None:
    """Below /upstream an infer key asks the model, and neither changes nor looks at its server."""
    paths = [*POST_PATHS, *GET_PATHS, "/", "/slots", "/v1/models", "/v1/responses/1"]

    async def main(bench: Bench) -> None:
        wrong = {}
        for path in dict.fromkeys(paths):
            for method in METHODS:
                target = f"/upstream/a{path}"
                answer = await bench.client.call(method, target, headers={"x-api-key": INFER})
                wanted = 200 if allowed(method, path) else 403
                if answer.status != wanted:
                    wrong[method, path] = answer.status
                admin = await bench.client.call(method, target, headers={"x-api-key": ADMIN})
                assert admin.status == 200
        assert wrong == {}

    run(main)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/", "/V1/chat/completions", "/v1/Chat/completions",
        "/v1//chat/completions", "//v1/chat/completions", "/v1/chat%2Fcompletions",
        "/v1/chat/completion%73", "/x/../v1/chat/completions", "/./v1/chat/completions",
        "/v1/chat/completions;x=1", "/props", "/sdapi/v1/loras", "/v1/chat/completions%20",
        "/v1/chat/completions/../../slots",
    ],
)  # fmt: skip
def test_infer_key_path_that_is_spelled_otherwise_needs_admin(path: str) -> None:
    """A path with an escape, a second slash, dots or another case is another path."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", f"/upstream/a{path}", headers={"x-api-key": INFER})
        assert answer.status == 403
        assert bench.server.received == []

    run(main)


@pytest.mark.parametrize(
    "name",
    ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL",
     "X-Rewrite-URL"],
)  # fmt: skip
@pytest.mark.parametrize("target", ["/v1/chat/completions", "/upstream/a/v1/chat/completions"])
def test_headers_that_override_method_or_path_are_removed(name: str, target: str) -> None:
    """What a server reads is the method and the path that were allowed here."""

    async def main(bench: Bench) -> None:
        fields = {"x-api-key": INFER, name: "DELETE"}
        answer = await bench.client.call("POST", target, value={"model": "a"}, headers=fields)
        assert answer.status == 200
        assert bench.server.last.header(name.lower()) is None

    run(main)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/comfyui/", 200), ("GET", "/comfyui/view?x=1", 200), ("HEAD", "/comfyui/", 200),
        ("POST", "/comfyui/prompt", 200), ("POST", "/comfyui/api/prompt", 200),
        ("POST", "/comfyui/upload/image", 200), ("POST", "/comfyui/free", 403),
        ("POST", "/comfyui/interrupt", 403), ("DELETE", "/comfyui/userdata/x", 403),
        ("PUT", "/comfyui/", 403), ("POST", "/comfyui/manager/queue/install", 403),
        ("POST", "/comfyui/PROMPT", 403), ("POST", "/comfyui/x/../prompt", 403),
    ],
)  # fmt: skip
def test_infer_key_below_comfyui_looks_and_runs_workflows(
    method: str, path: str, status: int
) -> None:
    """Below /comfyui an infer key looks and runs workflows; what changes the server needs admin."""

    async def main(bench: Bench) -> None:
        first = await bench.client.call("GET", "/comfyui/", headers={"x-api-key": ADMIN})
        assert first.status == 200  # loads it
        for key, wanted in ((INFER, status), (ADMIN, 200)):
            answer = await bench.client.call(method, path, headers={"x-api-key": key})
            assert answer.status == wanted

    run(main, "comfyui_auto")


def test_rights_by_model_agree_everywhere() -> None:
    """The name that a client uses counts, or the model it means: in bodies and below /upstream."""
    profile = ProfileDefinition(id="day", pins={"main": "b", "off": None, "a": "b"})

    async def main(bench: Bench) -> None:
        bench.app.proxy.activate_profile("day")
        for key, name, status in (
            ("sk-main", "main", 200), ("sk-main", "b", 403), ("sk-main", "a", 403),
            ("sk-a", "main", 403), ("sk-a", "b", 403), ("sk-a", "a", 200), ("sk-a", "off", 404),
        ):  # fmt: skip
            headers = {"x-api-key": key}
            body = await bench.client.chat(name, headers=headers)
            path = f"/upstream/{name}/v1/chat/completions"
            below = await bench.client.call("POST", path, value={}, headers=headers)
            query = await bench.client.call("GET", f"/props?model={name}", headers=headers)
            assert (body.status, below.status, query.status) == (status,) * 3, (key, name)

    run(main, profiles=[profile])


@pytest.mark.parametrize("scopes", [frozenset({"infer"}), frozenset({"infer", "admin"})])
@pytest.mark.parametrize("models", [("p/m",), ("m",), ("*",)])
def test_key_for_some_models_reaches_a_peer_by_body_and_query_only(
    models: tuple[str, ...], scopes: frozenset[KeyScope]
) -> None:
    """Below /upstream a peer is reached whole, with its key: not by a key for some models."""
    key = ApiKey(key="sk-some", models=models, scopes=scopes)
    options = ProxyOptions(keys=(key, ApiKey(key=ADMIN)))
    pinned = ProfileDefinition(id="day", pins={"main": "p/m"})
    asked = [
        ("POST", "/v1/chat/completions", {"model": "secret"}), ("GET", "/props?model=secret", None),
        ("POST", "/api/models/unload", {}), ("GET", "/logs", None), ("GET", "/", None),
    ]  # fmt: skip
    upgrade = {
        "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip

    async def whole() -> None:
        async with serving() as remote:
            names = ("m", "secret")
            peers = [PeerDefinition(id="p", url=remote.url, models=names, api_key="peer-key")]
            async with proxied("a", peers=peers, profiles=[pinned], options=options) as bench:
                bench.app.proxy.activate_profile("day")
                some = {"x-api-key": "sk-some"}
                for name in ("p/m", "m", "p%2Fm", "main"):
                    for method, path, value in asked:
                        place = f"/upstream/{name}{path}"
                        for headers in (some, {**some, **upgrade}):
                            answer = await bench.client.call(
                                method, place, value=value, headers=headers
                            )
                            assert answer.status == 403, (method, place)
                assert remote.received == []
                for name in ("m",) if models == ("m",) else ("p/m", "m"):
                    body = await bench.client.chat(name, headers=some)
                    query = await bench.client.call("GET", f"/props?model={name}", headers=some)
                    assert (body.status, query.status) == (200, 200)
                admin = {"x-api-key": ADMIN}
                below = await bench.client.call("GET", "/upstream/p/m/logs", headers=admin)
                assert below.status == 200

    asyncio.run(whole())


def test_unknown_name_suggests_no_model_of_other_keys() -> None:
    """A key for one model is not told the names of others when it makes a mistake."""
    card = SelectorDefinition(id="omega-pick", strategy="pin", targets=("omega",))

    async def main(bench: Bench) -> None:
        for name in ("omegaa", "omega-pickk"):
            for path, value in ((f"/upstream/{name}/x", None), ("/v1/embeddings", {"model": name})):
                for key, is_told in ((ADMIN, True), ("sk-a", False)):
                    method = "POST" if value else "GET"
                    headers = {"x-api-key": key}
                    answer = await bench.client.call(method, path, value=value, headers=headers)
                    assert answer.status == 404
                    assert ("did you mean" in answer.error()["message"]) is is_told

    run(main, "a", "omega", selectors=[card])


# ---- what models print, and how they are started
def test_infer_key_sees_no_arguments_and_no_output_of_models() -> None:
    """Arguments and output may hold secrets: `GET /models` and errors tell admins only."""
    card = ModelDefinition(id="a", command="server --api-key sk-of-the-model")

    def failing(spec: ServiceSpec) -> ServiceSpec:
        argv = ("sh", "-c", "echo printed-secret; exit 3")
        return replace(spec, command=Command(argv=argv, label="a"), check_url=spec.endpoint)

    async def main(bench: Bench) -> None:
        for key, is_told in ((INFER, False), (ADMIN, True)):
            headers = {"x-api-key": key}
            error = await bench.client.chat("a", headers=headers)
            listed = await bench.client.call("GET", "/models", headers=headers)
            assert error.status == 502
            assert (b"printed-secret" in error.body) is is_told
            assert (b"sk-of-the-model" in listed.body) is is_told
            (record,) = listed.json()["data"]
            assert record["status"]["failed"] is True

    run(main, card, specs=failing)


# ---- keys of ours stay here
FIELDS = [
    ("api-key", INFER), ("x-goog-api-key", INFER), ("x-auth-token", ADMIN), ("x-other", INFER),
    ("x-goog-api-key", f"Bearer {INFER}"), ("cookie", f"theme=dark; token={INFER}; x=1"),
    ("cookie", f"key={quote(INFER, safe='')}"), ("x-api-key", INFER),
    ("referer", f"http://localhost/page?a=1&api_key={quote(INFER, safe='')}&b=2"),
    ("referer", f"http://localhost/?next={quote(f'http://h/?a=1&key={quote(ADMIN)}', safe='')}"),
    ("cookie", f"session={'s' * 520}; token={INFER}"), ("x-auth", f"{'x ' * 900}{ADMIN}"),
    ("x-auth", f'token="{INFER}"'), ("api-key", f'"{INFER}"'), ("api-key", f"'{ADMIN}'"),
    ("x-auth", f"token:{ADMIN}"), ("x-auth", f'{{"a": 1, "key": "{INFER}"}}'),
    ("x-auth", f"a=token={ADMIN}"), ("x-auth", f"a=1;key={INFER}"),
]  # fmt: skip
QUERIES = [
    f"api_key={INFER}", f"key={quote(INFER, safe='')}", f"a=1&access_token={ADMIN}&b=2",
    f"api-key={quote(ADMIN)}&api_key={INFER}", ADMIN, quote(INFER, safe=""), f"{ADMIN}&kept=1",
    f"a=1;key={ADMIN}&b=2", f"a=1&b=2&key=%22{ADMIN}%22", f"a={'s' * 600};key={ADMIN}",
    f"u={quote(f'http://h/?key={ADMIN}', safe='')}", f"key=Bearer%20{ADMIN}", f"k=a:{ADMIN}",
]  # fmt: skip
TARGETS = [
    ("POST", "/v1/chat/completions"), ("POST", "/upstream/{}/v1/chat/completions"),
    ("GET", "/props?model={}"), ("GET", "/upstream/{}/slots"),
]  # fmt: skip


@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hashed"])
@pytest.mark.parametrize("model", ["a", "m"])
@pytest.mark.parametrize(("method", "target"), TARGETS)
def test_proxy_keys_in_any_header_or_parameter_are_removed(
    model: str, method: str, target: str, hashed: bool
) -> None:
    """Whichever field or parameter holds a key of ours, neither a model nor a peer gets it."""

    async def ask(bench: Bench, server: Server, fields: list[tuple[str, str]], query: str) -> None:
        place = target.format(model)
        place += ("&" if "?" in place else "?") + query if query else ""
        headers = [("authorization", f"Bearer {ADMIN}"), ("x-kept", "yes"), *fields]
        value = {"model": model} if method == "POST" else None
        answer = await bench.client.call(method, place, value=value, headers=headers)
        assert answer.status == 200
        sent = server.last
        for key in (INFER, ADMIN):
            for form in (key, quote(key), quote(key, safe="")):
                assert form not in sent.target
                assert form not in str(sent.headers)
        assert sent.header("x-kept") == "yes"
        if query.startswith("a=1"):
            assert sent.target.endswith("a=1&b=2")
        assert ("kept=1" in query) is ("kept=1" in sent.target)

    async def whole() -> None:
        keys = [ApiKey(key=key) for key in (INFER, ADMIN)]
        if hashed:
            keys = [ApiKey(key=f"sha256:{sha256(k.key.encode()).hexdigest()}") for k in keys]
        options = ProxyOptions(keys=tuple(keys))
        async with serving() as remote:
            peers = [PeerDefinition(id="p", url=remote.url, models=("m",))]
            async with proxied("a", peers=peers, options=options) as bench:
                server = bench.server if model == "a" else remote
                for field in FIELDS:
                    await ask(bench, server, [field], "")
                for query in QUERIES:
                    await ask(bench, server, [], query)

    asyncio.run(whole())


def test_proxy_keys_in_websocket_protocols_and_views_are_removed() -> None:
    """A key in a subprotocol is not offered to a model, and one in a field is not shown."""
    ring = ApiKeys([ApiKey(key="sk-a.b")])
    offered = ["realtime", "openai-insecure-api-key.sk-a.b", "sk-a.b", "openai-beta.realtime-v1"]

    assert ring.protocols_without_keys(offered) == ["realtime", "openai-beta.realtime-v1"]
    assert ApiKeys().protocols_without_keys(offered) == offered
    kept = {"Accept": "a/b", "X-Third": "sk-a.bc", "Cookie": "a=" + "x" * 600}
    held = (
        "Bearer sk-a.b",
        'a="sk-a.b"',
        "a:sk-a.b",
        "x" * 600 + "; a=sk-a.b",
        "u=%3Fk%3Dsk-a%2Eb",
    )
    for value in held:
        shown = ring.redacted({"X-Other": value, **kept})
        assert shown == {"X-Other": "[REDACTED]", **kept}


def test_headers_and_parameters_pass_where_the_proxy_has_no_keys() -> None:
    """Where we ask for no key, and for values that are no key of ours, everything crosses."""

    async def main(bench: Bench) -> None:
        target = "/v1/chat/completions?api_key=theirs&key=other"
        fields = {"api-key": "theirs", "x-api-key": ADMIN, "Cookie": "a=b"}
        for options, kept in ((ProxyOptions(), ADMIN), (KEYED, None)):
            bench.app.proxy.configure(bench.app.proxy.catalog, options)
            await bench.client.call("POST", target, value={"model": "a"}, headers=fields)
            sent = bench.server.last
            assert sent.target == target
            assert (sent.header("api-key"), sent.header("cookie")) == ("theirs", "a=b")
            assert sent.header("x-api-key") == kept

    run(main, "a")


def test_query_of_endless_parameters_takes_linear_time() -> None:
    """Looking for keys in a query of a megabyte costs each parameter one look."""
    ring = ApiKeys([ApiKey(key="sk-one"), ApiKey(key="sha256:" + "0" * 64)])
    query = b"&".join([b"a=%d" % number for number in range(100_000)])

    assert ring.query_without_keys(query) is query
    assert ring.query_without_keys(query + b"&key=sk-one") == query
    assert ring.query_without_keys(query + b";key=sk-one") == query
    assert ring.target_without_keys(b"/x?key=sk-one") == b"/x"
    assert ring.target_without_keys(b"/x?") == b"/x?"


@pytest.mark.parametrize(
    "key", ["sk-a", "sk:a", "a;b", "a,b", "a&b", "a=b==", 'q"uote', "sk%41", "ü"]
)
@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hashed"])
def test_proxy_keys_with_separators_are_removed(key: str, hashed: bool) -> None:
    """A key with a character that also separates is found as a value, quoted or encoded."""
    text = key.encode()
    ring = ApiKeys([ApiKey(key=f"sha256:{sha256(text).hexdigest()}" if hashed else key)])
    encoded = quote(key, safe="").encode()

    for value in (
        text,
        encoded,
        b"k=" + encoded,
        b"x" * 600 + b"; k=" + encoded,
        b'k="%b"' % encoded,
    ):
        assert ring.without_keys([(b"x", value), (b"y", b"z")]) == [(b"y", b"z")], value
    for query in (encoded, encoded + b"=", b"k=" + encoded, b"k=" + encoded + b"&k=" + encoded):
        assert ring.query_without_keys(query) == b""
    assert ring.query_without_keys(b"a=1;k=" + encoded + b"&b=2") == b"a=1&b=2"


def test_ordinary_headers_and_queries_pass_where_the_proxy_has_keys() -> None:
    """Values with separators, escapes and the beginning of a key are left alone."""
    ring = ApiKeys((ApiKey(key="sk-one/two"), ApiKey(key="sk-three")))
    values = [
        b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        b"text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", b"multipart/form-data; boundary=a=b=c",
        b"session=abc; theme=dark; token=sk-thre", b"100%25 of a=b&c=d", b"a=sk-three4&b=2",
        b"k=sk-one&l=two", b"1=2", b"Basic c2stb25lOm5vdGhpbmc=",
    ]  # fmt: skip
    fields = [(b"x-%d" % number, value) for number, value in enumerate(values)]

    assert ring.without_keys(fields) == fields
    texts = {name.decode(): value.decode() for name, value in fields}
    assert ring.redacted(texts) == texts
    for value in (b"a=1&b=2&c=%25", b"a=sk-three4&b=2", b"k=sk-one&l=two"):
        assert ring.query_without_keys(value) == value


@pytest.mark.parametrize(
    ("pattern", "name", "is_allowed"),
    [
        ("qwen?", "qwen2", False), ("qwen?", "qwen?", True), ("[ab]", "a", False),
        ("[ab]", "[ab]", True), ("[!x]*", "abc", False), ("[!x]*", "[!x]abc", True),
        ("qwen*", "qwen", True), ("qwen*", "aqwen", False), ("*", "", True), ("a*b", "a*b", True),
        ("q*n*2", "qwen2", True), ("q*n*2", "q2n", False), ("", "a", False),
    ],
)  # fmt: skip
def test_models_of_a_key_only_a_star_is_a_pattern(
    pattern: str, name: str, is_allowed: bool
) -> None:
    """In `models` of a key `*` is anything, and every other character is itself."""
    assert Access(models=(pattern,)).allows_model(name) is is_allowed
    assert Access(models=("other", pattern)).allows_model("x", name) is is_allowed


@pytest.mark.parametrize("target", ["/api/events", "/logs/stream", "/logs/stream/a"])
@pytest.mark.parametrize(
    ("after", "goes_on"),
    [
        (KEYED, True),
        (ProxyOptions(keys=(ApiKey(key="sk-new"),)), False),
        (ProxyOptions(keys=(ApiKey(key=ADMIN, scopes=frozenset({"infer"})),)), False),
        (
            ProxyOptions(keys=(ApiKey(key=ADMIN, scopes=frozenset({"admin"}), models=("b",)),)),
            False,
        ),
    ],
    ids=["same", "revoked", "fewer scopes", "fewer models"],
)
def test_stream_ends_when_a_reload_takes_rights_from_its_key(
    target: str, after: ProxyOptions, goes_on: bool
) -> None:
    """Streams of events and logs end with the rights of the key that opened them."""

    async def main(bench: Bench) -> None:
        call = bench.client.begin("GET", target, headers={"x-api-key": ADMIN})
        await call.until(lambda it: it.status == 200)
        bench.supervisor["a"].log.line("first")
        await call.until(lambda it: b"first" in it.body)
        bench.app.proxy.configure(bench.app.proxy.catalog, after)
        if goes_on:
            bench.supervisor["a"].log.line("second")
            await call.until(lambda it: b"second" in it.body)
            call.leave()
            await call.task
        else:
            assert (await call.answer()).status == 200

    run(main)
