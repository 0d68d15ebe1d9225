"""Access control: API keys and scopes, origins, the Host header, and every route's scope."""

from __future__ import annotations

import asyncio
import base64
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Bench, proxied
from tools.net import wait_until_async
from tools.rows import row

from swapchart.adapters.proxy.access.admission import AdmissionControl, Allowed
from swapchart.adapters.proxy.access.api_keys import ApiKeys
from swapchart.adapters.proxy.access.origins import (
    HostCheck,
    OriginCheck,
    ProxyTrust,
    host_name,
    is_loopback_host,
)
from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import Access, ApiKey, KeyScope, ProxyOptions
from swapchart.runtime import CallAction, Hook, HookContext, ServiceSpec

KEY = "sk-right"
KEYED = ProxyOptions(keys=(ApiKey(key=KEY), ApiKey(key="sk-other")))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def run(
    main: Callable[[Bench], Awaitable[None]], options: ProxyOptions | None = None,
    *models: ModelDefinition,
) -> None:  # fmt: skip
    async def whole() -> None:
        async with proxied(*models, options=options) as bench:
            await main(bench)

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([], 401),
        ([("authorization", f"Bearer {KEY}")], 200),
        ([("authorization", f"bEARER   {KEY}")], 200),
        ([("authorization", basic(f"anybody:{KEY}"))], 200),
        ([("authorization", basic(f":{KEY}"))], 200),
        ([("x-api-key", KEY)], 200),
        ([("x-api-key", KEY), ("authorization", f"Bearer {KEY}")], 200),
        ([("authorization", "Basic !!!"), ("x-api-key", KEY)], 200),
        ([("authorization", basic("user:")), ("x-api-key", KEY)], 200),
        ([("authorization", f"Bearer {KEY}"), ("x-api-key", "sk-other")], 200),
        ([("x-api-key", KEY), ("x-api-key", "sk-other")], 200),
        ([("authorization", f"Bearer {KEY}"), ("x-api-key", "sk-wrong")], 200),
        ([("authorization", "Bearer sk-wrong"), ("x-api-key", KEY)], 200),
        ([("authorization", basic("me:sk-wrong")), ("x-api-key", KEY)], 200),
        ([("authorization", "Bearer sk-wrong"), ("x-api-key", "sk-wrong too")], 401),
        ([*[("x-api-key", f"sk-guess-{n}") for n in range(8)], ("x-api-key", KEY)], 401),
        ([("authorization", f"Bearer {KEY[:-1]}")], 401),
        ([("authorization", f"Bearer {KEY}x")], 401),
        ([("authorization", f"Bearer {KEY} x")], 401),
        ([("authorization", "Bearer ")], 401),
        ([("authorization", "Bearer")], 401),
        ([("authorization", KEY)], 401),
        ([("authorization", f"Digest {KEY}")], 401),
        ([("authorization", basic(KEY))], 401),
        ([("authorization", "Bearer k\xfcche")], 401),
        ([("authorization", "Bearer " + "k" * 20_000)], 401),
        ([("x-api-key", "")], 401),
    ],
)
@row("C33")
def test_key_is_accepted_in_three_forms(fields: list[tuple[str, str]], status: int) -> None:
    """A key counts as Bearer, as the password of Basic and as x-api-key; one valid is enough."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("GET", "/running", headers=fields)

        assert answer.status == status
        if status == 401:
            assert answer.header("www-authenticate") == 'Basic realm="swapchart"'
            assert answer.error()["type"] == "authentication_error"
            assert answer.error()["code"] == "unauthorized"
            assert answer.error()["message"] == "unauthorized: invalid or missing API key"

    run(main, KEYED)


def test_key_in_the_query_is_ignored() -> None:
    """Keys are never taken from URLs: those end up in logs."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.call("GET", f"/running?api_key={KEY}")).status == 401

    run(main, KEYED)


@given(st.text(max_size=40), st.text(max_size=40))
def test_key_that_only_resembles_is_refused(key: str, other: str) -> None:
    """Whatever two texts are, one opens what the other locks only if they are the same."""
    ring = ApiKeys([ApiKey(key=key)])

    assert (ring.access(other.encode("utf-8", "surrogateescape")) is not None) == (key == other)


@row("C33")
def test_key_can_be_configured_by_its_hash() -> None:
    """The configuration need not hold the key itself, and repr shows neither."""
    hashed = ApiKey(key="sha256:" + sha256(KEY.encode()).hexdigest())
    ring = ApiKeys([hashed])

    assert ring.access(KEY.encode()) == Access()
    assert ring.access(hashed.key.encode()) is None
    assert KEY not in repr(ApiKey(key=KEY))


@row("C33")
def test_key_comparison_takes_constant_time() -> None:
    """A near miss takes no longer than a wild guess, whichever key it is near to."""
    keys = [f"{number:02}" + "k" * 60 for number in range(20)]
    ring = ApiKeys([ApiKey(key=key) for key in keys])
    guesses = [b"x" * 62, keys[0][:-1].encode() + b"x", keys[19][:-1].encode() + b"x"]

    def spread() -> float:
        times: list[list[float]] = [[] for _ in guesses]
        for _ in range(3000):
            for guess, taken in zip(guesses, times, strict=True):
                began = time.perf_counter()
                ring.access(guess)
                taken.append(time.perf_counter() - began)
        medians = [statistics.median(taken) for taken in times]
        return max(medians) / min(medians)

    assert min(spread() for _ in range(3)) < 1.25


@pytest.mark.parametrize(
    ("authorizations", "api_keys", "client", "is_added"),
    [
        ([], [], None, False),
        ([b"Bearer infer", basic("me:admin").encode()], [b"some"], "admin", False),
        ([b"Bearer infer"], [b"admin"], "infer", True),
        ([b"Bearer wrong"], [b"admin", b"infer"], "admin", True),
        ([basic("me:wrong").encode()], [b"infer"], "infer", True),
        ([basic("me:").encode(), b"Bearer some"], [b"admin"], "some", True),
        ([b"Bearer wrong"], [b"wrong"], None, False),
    ],
)
def test_api_keys_two_credentials_first_valid_one_counts(
    authorizations: list[bytes], api_keys: list[bytes], client: str | None, is_added: bool
) -> None:
    """Of several credentials the first valid one counts: Basic, Bearer, x-api-key; no union."""
    rights: dict[str, frozenset[KeyScope]] = {
        "infer": frozenset({"infer"}), "admin": frozenset({"admin"}), "some": frozenset({"infer"}),
    }  # fmt: skip
    ring = ApiKeys([ApiKey(key=key, scopes=scopes) for key, scopes in rights.items()])
    access, found = ring.first_valid(authorizations, api_keys)

    assert found is is_added
    assert (None if access is None else access.scopes) == (client and rights[client])


@pytest.mark.parametrize("name", ["authorization", "Authorization", "X-Api-Key", "x-api-key"])
@pytest.mark.parametrize("target", ["/v1/chat/completions", "/upstream/a/v1/chat/completions"])
@row("C34")
def test_proxy_key_is_not_sent_upstream(name: str, target: str) -> None:
    """A key that we consumed is not passed on, whichever way it came."""

    async def main(bench: Bench) -> None:
        secret = f"Bearer {KEY}" if name.lower() == "authorization" else KEY
        await bench.client.call(
            "POST", target, value={"model": "a"},
            headers=[(name, secret), ("Proxy-Authorization", "x"), ("X-Other", "1")],
        )  # fmt: skip

        sent = bench.server.last
        assert KEY not in str(sent)
        assert (sent.header("authorization"), sent.header("x-api-key")) == (None, None)
        assert sent.header("x-other") == "1"

    run(main, KEYED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", f"Bearer {KEY}"),
        ("Authorization", basic(f"x:{KEY}")),
        ("X-Api-Key", KEY),
    ],
)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/chat/completions?key=KEY&x=1"),
        ("POST", "/upstream/keyed/v1/chat/completions?key=KEY&x=1"),
        ("GET", "/props?model=keyed&key=KEY&x=1"),
    ],
)
@row("C34")
def test_proxy_key_is_sent_to_a_model_that_asks_for_it(
    name: str, value: str, method: str, target: str
) -> None:
    """``passKeys`` forwards the key wherever it stands, and no model gets it without asking."""
    target = target.replace("KEY", KEY)

    async def main(bench: Bench) -> None:
        for model in ("a", "keyed", "a", "keyed"):  # the second time from the header cache
            await bench.client.call(
                method, target.replace("keyed", model), value={"model": model},
                headers=[
                    (name, value), ("api-key", KEY), ("Cookie", f"token={KEY}"),
                    ("X-HTTP-Method-Override", "DELETE"),
                ],
            )  # fmt: skip
            sent = bench.server.last

            assert sent.header("x-http-method-override") is None
            if model == "a":
                assert KEY not in str(sent)
                assert value not in str(sent)
                continue
            assert sent.header(name.lower()) == value
            assert (sent.header("api-key"), sent.header("cookie")) == (KEY, f"token={KEY}")
            assert f"key={KEY}" in sent.target

    run(main, KEYED, ModelDefinition(id="a"), ModelDefinition(id="keyed", passes_keys=True))


@row("C34")
def test_proxy_key_ends_with_the_configuration_that_passes_it() -> None:
    """A reload without ``passKeys`` holds for the next request, with the same headers."""

    async def main(bench: Bench) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        for passes, found in ((True, f"Bearer {KEY}"), (False, None), (True, f"Bearer {KEY}")):
            definition = ModelDefinition(id="a", passes_keys=passes)
            bench.app.proxy.configure(ModelCatalog([definition]), KEYED)
            for _ in range(2):
                assert (await bench.client.chat("a", headers=headers)).status == 200
                assert bench.server.last.header("authorization") == found

    run(main, KEYED, ModelDefinition(id="a"))


@row("C34")
def test_credentials_without_proxy_keys_pass_upstream() -> None:
    """Where we ask for no key, what a client sends is meant for the model's own server."""

    async def main(bench: Bench) -> None:
        await bench.client.chat("a", headers={"Authorization": "Bearer upstream's"})

        assert bench.server.last.header("authorization") == "Bearer upstream's"

    run(main)


# ---- scopes
SCOPED = ProxyOptions(
    keys=(
        ApiKey(key="infer", scopes=frozenset({"infer"})),
        ApiKey(key="admin", scopes=frozenset({"admin"})),
        ApiKey(key="only-a", scopes=frozenset({"infer"}), models=("a*",)),
    )
)


@pytest.mark.parametrize(
    ("key", "method", "target", "status"),
    [
        ("infer", "POST", "/v1/chat/completions", 200),
        ("admin", "POST", "/v1/chat/completions", 403),
        ("only-a", "POST", "/v1/chat/completions", 200),
        ("infer", "POST", "/upstream/a/v1/chat/completions", 200),
        ("infer", "POST", "/upstream/a/slots/0?action=erase", 403),
        ("admin", "POST", "/upstream/a/slots/0?action=erase", 200),
        ("only-a", "POST", "/upstream/b/v1/chat/completions", 403),
        ("infer", "GET", "/running", 403),
        ("admin", "GET", "/running", 200),
        ("infer", "GET", "/v1/models", 200),
        ("infer", "POST", "/api/models/unload", 403),
        ("admin", "POST", "/api/models/unload", 200),
        ("infer", "GET", "/no/such/route", 404),
    ],
)
def test_key_scopes_limit_routes(key: str, method: str, target: str, status: int) -> None:
    """A key does what its scopes say: infer asks models, admin does the rest."""

    async def main(bench: Bench) -> None:
        value = {"model": "a"} if method == "POST" else None
        answer = await bench.client.call(method, target, value=value, headers={"X-Api-Key": key})

        assert answer.status == status
        if status == 403:
            assert answer.error()["code"] == "forbidden"

    run(main, SCOPED)


def test_key_for_some_models() -> None:
    """A key that names models is good for these only, and the others are not listed to it."""

    async def main(bench: Bench) -> None:
        bench.client.headers["x-api-key"] = "only-a"
        listed = (await bench.client.call("GET", "/v1/models")).json()["data"]

        assert (await bench.client.chat("a")).status == 200
        assert (await bench.client.chat("b")).status == 403
        assert [record["id"] for record in listed] == ["a"]

    run(main, SCOPED)


# ---- every route
OPEN = {
    ("GET", "/health"), ("GET", "/wol-health"), ("GET", "/"), ("GET", "/favicon.ico"),
    ("GET", "/ollama"), ("GET", "/ollama/"),  # a line of text, by which clients find Ollama
}  # fmt: skip


@row("C51")
def test_open_routes_are_these_only() -> None:
    """What answers without a key is on this short list, and a new route is not on it."""
    found = {(route.method, route.path) for route in ROUTES.routes if route.access == "open"}

    assert found <= OPEN
    assert found >= {("GET", "/health"), ("GET", "/wol-health")}


@row("C51")
def test_each_route_requires_a_key() -> None:
    """Each route, by each way of spelling it, refuses no key and a wrong key with 401."""

    async def main(bench: Bench) -> None:
        for route in ROUTES.routes:
            if route.access == "open":
                continue
            method = "GET" if route.method == "*" else route.method
            for fields in ([], [("x-api-key", "wrong")]):
                target = route.path.replace("*", "a")
                answer = await bench.client.call(method, target, headers=fields)

                assert answer.status == 401, (method, target, fields)
        assert bench.server.received == []

    run(main, KEYED)


def test_metrics_key_reads_metrics_and_nothing_else() -> None:
    """A key with the scope metrics gets 200 for /metrics and 403 for every other route."""
    only = ApiKey(key="m", scopes=frozenset({"metrics"}))
    admin = ApiKey(key="a", scopes=frozenset({"admin"}))
    infer = ApiKey(key="i", scopes=frozenset({"infer"}))

    async def main(bench: Bench) -> None:
        for route in ROUTES.routes:
            if route.access == "open" or route.path in ("/metrics", "/metrics/models"):
                continue
            method = "GET" if route.method == "*" else route.method
            target = route.path.replace("*", "a")
            answer = await bench.client.call(method, target, headers=[("x-api-key", "m")])

            assert answer.status == 403, (method, target)
        assert bench.server.received == []
        for key, status in (("m", 200), ("a", 200), ("i", 403)):
            for method in ("GET", "HEAD"):
                headers = [("x-api-key", key)]
                answer = await bench.client.call(method, "/metrics", headers=headers)
                assert answer.status == status, (key, method)
        answer = await bench.client.call("GET", "/metrics", headers=[("x-api-key", "i")])
        assert b"no metrics or admin scope" in answer.body
        assert b"set scopes: [infer, metrics] at the key in `apiKeys`" in answer.body
        assert b"(docs/security.md, Keys)" in answer.body

    run(main, ProxyOptions(keys=(only, admin, infer)))


@row("C51")
def test_routes_that_change_state_are_marked() -> None:
    """Whatever is not a GET counts as a change, and so do the GETs that stop or start models."""
    unmarked = {(route.method, route.path) for route in ROUTES.routes if not route.changes}
    unmarked.remove(("POST", "/ollama/api/show"))  # reads

    assert {method for method, _ in unmarked} == {"GET"}
    assert ("GET", "/unload") not in unmarked


def test_unknown_path_without_a_key_is_401() -> None:
    """Without a key, what exists and what does not look the same."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.call("GET", "/no/such/route")).status == 401

    run(main, KEYED)


# ---- origins
@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1:8080", True),
        ("http://[::1]:9", True),
        ("https://app.localhost", True),
        ("http://proxy.lan:8080", True),
        ("https://chat.example.org", True),
        ("https://a.trusted.example", True),
        ("chrome-extension://abc", True),
        ("https://evil.example", False),
        ("http://[::1]:4000", True),
        ("app://obsidian.md", True),
        ("tauri://localhost", True),
        ("capacitor://localhost", True),
        ("ionic://localhost", True),
        ("vscode-webview://0a1b2c", True),
        ("vscode-file://vscode-app", True),
        ("app://", False),
        ("moz-extension://0a1b", False),
        ("http://proxy.lan:8081", False),
        ("http://localhost.evil.example", False),
        ("http://evil.example/http://localhost", False),
        ("http://localhost@evil.example", False),
        ("null", False),
        ("", False),
        ("file://localhost", False),
        ("http://[", False),
    ],
)
@row("C31")
def test_origin_is_allowed_or_refused_as_configured(origin: str, allowed: bool) -> None:
    """Pages of this machine, our own and the configured ones may ask; no other."""
    check = OriginCheck(
        ["https://chat.example.org/", "https://*.trusted.example", "chrome-extension://*"]
    )

    for _ in range(2):  # the second time it is remembered
        assert check.allows(origin.encode(), b"proxy.lan:8080") is allowed


def test_preflight_of_an_allowed_page() -> None:
    """OPTIONS answers 204 before any key is asked for, and names what was asked for."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(
            "OPTIONS", "/v1/chat/completions",
            headers={
                "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, x-bad header, x-stainless-os",
            },
        )  # fmt: skip

        assert answer.status == 204
        assert answer.header("access-control-allow-origin") == "http://localhost:3000"
        assert answer.header("access-control-allow-headers") == "authorization, x-stainless-os"
        assert "DELETE" in (answer.header("access-control-allow-methods") or "")
        assert answer.header("access-control-max-age") == "86400"
        assert answer.header("vary") == "origin"
        assert answer.header("access-control-allow-credentials") is None

    run(main, KEYED)


def test_preflight_without_configured_origins_gets_the_default() -> None:
    """A preflight that names no fields is told the usual ones."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("OPTIONS", "/x", headers={"Origin": "http://localhost"})

        usual = "Content-Type, Authorization, Accept, X-Requested-With"
        assert answer.header("access-control-allow-headers") == usual

    run(main)


@row("C31")
def test_preflight_of_a_foreign_page_grants_nothing() -> None:
    """Unlike llama-swap's, the answer is never open to all pages."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("OPTIONS", "/unload", headers={"Origin": "https://evil"})

        assert answer.status == 204
        assert not any(name.startswith("access-control") for name, _ in answer.headers)

    run(main)


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/unload"),
        ("POST", "/api/models/unload"),
        ("GET", "/upstream/a/"),
        ("POST", "/v1/chat/completions"),
    ],
)
@row("C31")
def test_foreign_page_changes_nothing(fields: dict[str, str], method: str, target: str) -> None:
    """No page of another site stops or starts a model with a key that the browser repeats."""

    async def main(bench: Bench) -> None:
        headers = {**fields, "Authorization": basic(f"me:{KEY}")}
        answer = await bench.client.call(method, target, headers=headers, body=b'{"model":"a"}')

        assert answer.status == 403
        assert answer.error()["code"] == "origin_not_allowed"
        assert bench.supervisor["a"].incarnation == 0

    run(main, KEYED)


def test_allowed_page_reads_responses() -> None:
    """An allowed page may read what a model says, whatever its server thinks of origins."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.chat("a", headers={"Origin": "http://localhost:3000"})

        found = [v for n, v in answer.headers if n == "access-control-allow-origin"]
        assert (answer.status, found) == (200, ["http://localhost:3000"])
        listing = await bench.client.call("GET", "/v1/models", headers={"Origin": "https://evil"})
        assert listing.status == 200
        assert listing.header("access-control-allow-origin") is None

    run(main)


@row("C31")
def test_json_sent_as_plain_text_by_a_page_is_refused() -> None:
    """What a form can send is not taken for JSON by routes that administer."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(
            "POST", "/api/models/unload", body=b"{}", headers={"Content-Type": "text/plain"}
        )

        assert answer.status == 415

    run(main)


# ---- Host
GOOD_HOSTS = [
    "127.0.0.1", "127.0.0.1:8080", "127.1.2.3", "localhost", "LOCALHOST:99", "localhost.",
    "x.localhost", "[::1]", "[::1]:8080", "named.example", "named.example:8080",
    "[::2]", "[fe80::1]:8080", "0.0.0.0", "10.0.0.1", "192.168.1.5:8080",
    "box.lan", "a.b.LAN:8080", "ported.example:8080",
]  # fmt: skip
BAD_HOSTS = [
    "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example",
    "a@127.0.0.1", "127.0.0.1/x", "a@b/c", "localhost:", "localhost:x", "localhost:123456",
    "::1", "[::1", "127.0.0.1 ", " localhost", "localhost,evil", "localhost#", "2130706433",
    "0x7f000001", "10.0.0", "[10.0.0.1]x", "lan", "box.lan.evil", "ported.example",
    "ported.example:81", "evil.example:8080/box.lan",
]  # fmt: skip


@pytest.mark.parametrize("host", GOOD_HOSTS)
@row("C30")
def test_host_that_names_this_machine_is_accepted(host: str) -> None:
    """On a loopback address, names of this machine, all addresses and configured names are ours."""
    check = HostCheck(["Named.example", "*.lan", "ported.example:8080"])

    assert [check.allows(host.encode()), check.allows(host.encode())] == [True, True]


@pytest.mark.parametrize("host", BAD_HOSTS)
@row("C30")
def test_host_of_another_name_is_refused(host: str) -> None:
    """Everything else is refused, malformed or not."""
    check = HostCheck(["named.example", "*.lan", "ported.example:8080"])

    assert [check.allows(host.encode()), check.allows(host.encode())] == [False, False]


@row("C30")
def test_rebound_host_is_421_on_each_route() -> None:
    """Every route but health answers 421 to a foreign name, the open ones and OPTIONS too."""

    async def main(bench: Bench) -> None:
        for route in ROUTES.routes:
            method = "GET" if route.method == "*" else route.method
            target = route.path.replace("*", "a")
            answer = await bench.client.call(method, target, headers={"Host": "evil.example"})

            if target in ("/health", "/wol-health"):
                assert answer.status == 200
                continue
            assert answer.status == 421, target
            error = answer.json()["error"]  # a text in Ollama's API
            message = error if isinstance(error, str) else answer.error()["message"]
            assert 'allowedHosts: ["evil.example"]' in message
            assert "docs/security.md" in message
        preflight = await bench.client.call("OPTIONS", "/", headers={"Host": "evil.example"})
        assert preflight.status == 421
        bench.client.server = ("192.168.1.5", 8080)
        assert (await bench.client.call("GET", "/health", headers={"Host": "any"})).status == 200

    run(main)


@given(st.text(alphabet="ab1.:[]@/-_ ", max_size=12))
@row("C30")
def test_host_is_never_both_malformed_and_accepted(text: str) -> None:
    """Whatever Host says, either it has a name in it or it is not allowed."""
    if host_name(text) is None:
        assert not HostCheck(["a", "b", "ab"]).allows(text.encode())


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("::1", True), ("localhost", True), ("lo", False), ("::ffff:127.0.0.1", True),
        ("::FFFF:7f00:1", True), ("::ffff:10.0.0.1", False), ("::127.0.0.1", False),
    ],
)  # fmt: skip
@row("C30")
def test_loopback_addresses_are_recognized(host: str, ours: bool) -> None:
    """Loopback is an address or a name of this machine."""
    assert is_loopback_host(host) is ours


@pytest.mark.parametrize(
    ("server", "status"),
    [("127.0.0.1", 421), ("::1", 421), ("::ffff:127.0.0.1", 421), ("::ffff:10.0.0.1", 200)],
)
@row("C30")
def test_foreign_name_at_a_mapped_loopback_address_is_misdirected(server: str, status: int) -> None:
    """A socket for IPv4 and IPv6 tells a loopback address as `::ffff:127.0.0.1`."""
    gate = AdmissionControl(ProxyOptions())
    route, _ = ROUTES.find("GET", "/running")
    verdict = gate.admit({"headers": [(b"host", b"evil.example")], "server": (server, 80)}, route)

    assert (200 if isinstance(verdict, Allowed) else verdict.status) == status


def test_proxy_trust_mapped_address_is_the_address() -> None:
    """A trusted proxy stays one where a socket for IPv4 and IPv6 tells its address."""
    trust = ProxyTrust(["10.0.0.0/8"])

    assert trust.allows("::ffff:10.1.2.3")
    assert not trust.allows("::ffff:11.1.2.3")


# ---- methods
@pytest.mark.parametrize("is_announced", [False, True])
@row("D20")
def test_keys_are_scheduled_in_turns(is_announced: bool) -> None:
    """Of what waits for a model with a limit, each key's first goes before any key's second."""
    go = asyncio.Event()

    async def wait(context: HookContext) -> None:
        await go.wait()

    def limited(spec: ServiceSpec) -> ServiceSpec:
        hooks = {"beforeStart": (Hook(action=CallAction(function=wait)),)}
        return replace(spec, concurrency_limit=1, hooks=hooks)

    async def main() -> None:
        card = ModelDefinition(id="a", sends_loading_state=is_announced)
        async with proxied(card, options=KEYED, specs=limited) as bench:
            calls = []
            for number, key in enumerate([KEY, KEY, KEY, KEY, "sk-other", "sk-other"]):
                value = {"model": "a", "messages": [], "stream": True, "user": str(number)}
                headers = [("x-api-key", key)]
                path = "/v1/chat/completions"
                calls.append(bench.client.begin("POST", path, value=value, headers=headers))
                await wait_until_async(lambda: waiting(bench) == len(calls))
            go.set()
            for call in calls:
                assert (await call.answer()).status == 200
            served = [int(received.json()["user"]) for received in bench.server.received]
            assert served == [0, 4, 1, 5, 2, 3]

    def waiting(bench: Bench) -> int:
        scheduler = bench.supervisor.scheduler
        return len(scheduler.queue) + scheduler.services["a"].granted

    asyncio.run(main())


def test_wrong_method_and_unknown_path() -> None:
    """A known path with the wrong method is 405 and says which are right; HEAD goes with GET."""

    async def main(bench: Bench) -> None:
        wrong = await bench.client.call("DELETE", "/v1/models")
        unknown = await bench.client.call("GET", "/v1/modelz")

        assert (wrong.status, wrong.header("allow")) == (405, "GET, HEAD")
        assert (unknown.status, unknown.error()["code"]) == (404, "not_found")
        assert (await bench.client.call("HEAD", "/health")).status == 200

    run(main)
