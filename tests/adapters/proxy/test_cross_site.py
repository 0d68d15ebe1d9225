"""Who gets in from where: each kind of route, by credential, Origin, Host and Sec-Fetch fields."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from itertools import product

import pytest
from tools.asgi import Bench, proxied

from swapchart.adapters.proxy.access.admission import AdmissionControl, Allowed
from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

KEY, OTHER_KEY, PORTED = "sk-right", "sk-other", "proxy.lan:8080"
HOSTS = {"allowed_hosts": ("*.lan",), "allowed_origins": ("https://chat.example.org",)}
OPEN = ProxyOptions(**HOSTS)  # type: ignore[arg-type]
KEYED = ProxyOptions(keys=(ApiKey(key=KEY), ApiKey(key=OTHER_KEY)), **HOSTS)  # type: ignore[arg-type]


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"me:{key}".encode()).decode()


#: Kind of route -> one of them.
ROUTE_KINDS = {
    "health": ("GET", "/health"),
    "open": ("GET", "/favicon.ico"),
    "page": ("GET", "/ui/"),
    "list": ("GET", "/v1/models"),
    "facts": ("GET", "/running"),
    "model page": ("GET", "/upstream/a/"),
    "infer": ("POST", "/v1/chat/completions"),
    "change by GET": ("GET", "/unload"),
    "change by POST": ("POST", "/api/models/unload"),
    "nowhere": ("GET", "/no/such/route"),
}
CHANGES = {"model page", "infer", "change by GET", "change by POST"}
#: Kind of credential -> fields.
CREDENTIALS = {
    "none": [],
    "Bearer": [("authorization", f"Bearer {KEY}")],
    "x-api-key": [("x-api-key", KEY)],
    "Basic": [("authorization", basic(KEY))],
    "wrong Bearer": [("authorization", "Bearer sk-wrong")],
    "wrong Basic": [("authorization", basic("sk-wrong"))],
    "Basic, wrong x-api-key": [("authorization", basic(KEY)), ("x-api-key", "sk-wrong")],
    "Basic, x-api-key": [("authorization", basic(KEY)), ("x-api-key", OTHER_KEY)],
    "wrong Basic, x-api-key": [("authorization", basic("sk-wrong")), ("x-api-key", KEY)],
}
VALID = {name for name in CREDENTIALS if name not in ("none", "wrong Bearer", "wrong Basic")}
ADDED_BY_PAGE = {"Bearer", "x-api-key", "wrong Basic, x-api-key"}
#: Origin -> whether its pages may use the API without a key of their own.
ORIGINS = {
    None: True,
    "http://localhost:3000": True,
    f"http://{PORTED}": False,  # ours only by that Host
    "https://chat.example.org": True,
    "app://obsidian.md": True,
    "vscode-webview://0a1b": True,
    "chrome-extension://abcd": False,
    "moz-extension://abcd": False,
    "null": False,
    "https://evil.example": False,
}
LOOPBACK_HOSTS = ("127.0.0.1:8080", "localhost", "[::1]:8080")
GOOD_HOSTS = (*LOOPBACK_HOSTS, "192.168.1.5:8080", "[fe80::1]", PORTED)
BAD_HOSTS = ("evil.example", "127.0.0.1.evil.example:8080")
CLICK = [("site", "cross-site"), ("mode", "navigate"), ("user", "?1"), ("dest", "document")]
FETCHES = {
    "none": [],
    "same-origin": [("site", "same-origin"), ("mode", "cors")],
    "typed": [("site", "none"), ("mode", "navigate"), ("user", "?1"), ("dest", "document")],
    "image": [("site", "cross-site"), ("mode", "no-cors"), ("dest", "image")],
    "click": CLICK,
    "script opens": [CLICK[0], CLICK[1], CLICK[3]],
    "click in a frame": [*CLICK[:3], ("dest", "iframe")],
    "image of a sibling": [("site", "same-site"), ("mode", "no-cors"), ("dest", "image")],
    "click of a sibling": [("site", "same-site"), *CLICK[1:]],
}
CROSS_SITE = {"image", "click", "script opens", "click in a frame"}
SAME_SITE = {"image of a sibling", "click of a sibling"}  # of this machine, where that is asked
CLICKS = {"click", "click of a sibling"}


def expected(
    kind: str, is_keyed: bool, credential: str, origin: str | None, host: str, fetch: str
) -> tuple[int, bool]:
    """Return the status of the gate, and whether the page may read the response."""
    if host in BAD_HOSTS and kind != "health":
        return 421, False
    has_key = is_keyed and credential in VALID
    is_added = is_keyed and credential in ADDED_BY_PAGE
    is_ours = ORIGINS[origin] or (origin is not None and origin.partition("://")[2] == host)
    is_others = fetch in CROSS_SITE or (fetch in SAME_SITE and host not in LOOPBACK_HOSTS)
    is_foreign = not is_ours or (origin is None and is_others)
    is_read = origin is not None and (is_added or not is_foreign)
    if is_foreign and not is_added:
        if is_keyed and credential == "wrong Bearer":
            return 401, origin is not None
        may_open = kind == "model page" and fetch in CLICKS and origin is None
        if kind in CHANGES and not may_open:
            return 403, False
    if is_keyed and not has_key and kind not in ("health", "open"):
        return 401, is_read
    return 200, is_read


@pytest.mark.parametrize("is_keyed", [False, True], ids=["without keys", "with keys"])
@pytest.mark.parametrize("kind", ROUTE_KINDS)
def test_gate_every_combination_decides_as_documented(kind: str, is_keyed: bool) -> None:
    """Route x credential x Origin x Host x Sec-Fetch: the status and who may read are as said."""
    gate = AdmissionControl(KEYED if is_keyed else OPEN)
    method, path = ROUTE_KINDS[kind]
    route, _ = ROUTES.find(method, path)
    wrong = []
    for credential, origin, host, fetch in product(
        CREDENTIALS, ORIGINS, GOOD_HOSTS + BAD_HOSTS, FETCHES
    ):
        fields = [("host", host), *CREDENTIALS[credential]]
        fields += [] if origin is None else [("origin", origin)]
        fields += [(f"sec-fetch-{name}", value) for name, value in FETCHES[fetch]]
        headers = [(name.encode(), value.encode()) for name, value in fields]
        verdict = gate.admit({"headers": headers, "server": ("127.0.0.1", 8080)}, route)
        status = 200 if isinstance(verdict, Allowed) else verdict.status
        found = status, verdict.origin is not None
        wanted = expected(kind, is_keyed, credential, origin, host, fetch)
        if found != wanted:
            wrong.append((credential, origin, host, fetch, found, wanted))

    assert wrong == []


def test_gate_foreign_page_with_two_keys_gets_no_rights_of_the_browsers() -> None:
    """A page that adds a key of its own does not get the rights of the password in the browser."""
    infer = ApiKey(key="sk-infer", scopes=frozenset({"infer"}))
    gate = AdmissionControl(ProxyOptions(keys=(ApiKey(key="sk-admin"), infer)))
    route, _ = ROUTES.find("POST", "/api/models/unload")
    headers = [
        (b"authorization", basic("sk-admin").encode()), (b"x-api-key", b"sk-infer"),
        (b"origin", b"https://evil.example"),
    ]  # fmt: skip
    verdict = gate.admit({"headers": headers, "server": None}, route)

    assert not isinstance(verdict, Allowed)
    assert verdict.code == "origin_not_allowed"


def run(main: Callable[[Bench], Awaitable[None]], options: ProxyOptions) -> None:
    async def whole() -> None:
        async with proxied(options=options) as bench:
            await main(bench)

    asyncio.run(whole())


def fetch_fields(kind: str) -> dict[str, str]:
    return {f"Sec-Fetch-{name.title()}": value for name, value in FETCHES[kind]}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/upstream/a/", 200),
        ("GET", "/upstream/a", 301),
        ("GET", "/upstream/a/slots", 403),
        ("GET", "/upstream/a/?x=1", 200),
        ("POST", "/upstream/a/", 403),
        ("DELETE", "/upstream/a/", 403),
        ("GET", "/unload", 403),
        ("GET", "/props?model=a", 403),
    ],
)
@pytest.mark.parametrize("options", [OPEN, KEYED], ids=["without keys", "with keys"])
def test_click_on_another_site_opens_first_page_only(
    method: str, target: str, status: int, options: ProxyOptions
) -> None:
    """A click on a link of another site opens a model's first page, and does nothing else."""

    async def main(bench: Bench) -> None:
        fields = {**fetch_fields("click"), "Authorization": basic(KEY)}
        for _ in range(2):  # the second time the verdict is remembered
            answer = await bench.client.call(method, target, headers=fields)
            assert answer.status == status
            if status == 403:
                assert answer.error()["code"] == "origin_not_allowed"
        safe = await bench.client.call("GET", "/upstream/a/", headers=fields)
        assert safe.status == 200  # what was refused before is not remembered for it

    run(main, options)


PREFLIGHTS = [
    (None, "content-type", False, False),
    ("https://evil.example", "content-type", False, False),
    ("https://evil.example", "authorization, content-type", False, True),
    ("https://evil.example", "Content-Type,X-Api-Key", False, True),
    ("chrome-extension://abcd", "x-api-key", False, True),
    ("null", "authorization", False, True),
    ("https://evil.example", "x-authorization", False, False),
    ("https://evil.example", "api-key", False, False),
    ("http://localhost:3000", "content-type", True, True),
    ("app://obsidian.md", "authorization", True, True),
]


@pytest.mark.parametrize(("origin", "asked", "when_open", "when_keyed"), PREFLIGHTS)
def test_preflight_that_announces_a_key_granted_where_keys_are_configured(
    origin: str | None, asked: str, when_open: bool, when_keyed: bool
) -> None:
    """A preflight has no key: one that announces a key is granted, never with credentials."""

    async def ask(bench: Bench) -> bool:
        fields = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
        fields |= {} if origin is None else {"Origin": origin}
        answer = await bench.client.call("OPTIONS", "/v1/chat/completions", headers=fields)
        assert answer.status == 204
        assert answer.header("access-control-allow-credentials") is None
        granted = answer.header("access-control-allow-origin")
        assert granted in (None, origin)
        return granted is not None

    async def without(bench: Bench) -> None:
        assert await ask(bench) is when_open

    async def keyed(bench: Bench) -> None:
        assert await ask(bench) is when_keyed

    run(without, OPEN)
    run(keyed, KEYED)


def test_foreign_page_with_key_reads_responses_and_errors() -> None:
    """A page that brings a key may read what it gets; what a wrong key gets, too."""

    async def main(bench: Bench) -> None:
        origin = {"Origin": "https://any.example"}
        for key, status in ((KEY, 200), ("sk-wrong", 401)):
            answer = await bench.client.chat("a", headers={**origin, "X-Api-Key": key})
            assert answer.status == status
            assert answer.header("access-control-allow-origin") == origin["Origin"]
            assert answer.header("access-control-allow-credentials") is None

    run(main, KEYED)


@pytest.mark.parametrize(
    ("fields", "code", "value"),
    [
        ({"Host": "Box.example:8080"}, "host_not_allowed", 'allowedHosts: ["Box.example"]'),
        (
            {"Origin": "https://evil.example:8443"},
            "origin_not_allowed",
            'allowedOrigins: ["https://evil.example:8443"]',
        ),
        ({"Sec-Fetch-Site": "cross-site"}, "origin_not_allowed", "allowedOrigins"),
        (
            {"Sec-Fetch-Site": "same-site", "Host": "proxy.lan"},
            "origin_not_allowed",
            "allowedOrigins",
        ),
        ({"Host": 'a"b\x01' + "c" * 5000}, "host_not_allowed", "docs/security.md"),
    ],
)
def test_refusal_names_key_value_and_page_and_is_logged_once(
    fields: dict[str, str], code: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal says which key to add what to, and where to read; the log says it once."""

    async def main(bench: Bench) -> None:
        for number in range(3):
            headers = {**fields, "User-Agent": f"client {number}"}  # not remembered as one head
            answer = await bench.client.call("POST", "/api/models/unload", headers=headers)
            error = answer.error()
            assert error["code"] == code
            assert value in error["message"]
            assert "docs/security.md" in error["message"]
            assert len(error["message"]) < 600

    with caplog.at_level(logging.WARNING, "swapchart.proxy"):
        run(main, OPEN)
    (line,) = [record.message for record in caplog.records if code in record.message]
    assert value in line
    assert line.isprintable()


def test_refusals_of_endless_names_are_logged_in_bounds(caplog: pytest.LogCaptureFixture) -> None:
    """However many names a client makes up, the log gets few lines."""

    async def main(bench: Bench) -> None:
        for number in range(500):
            headers = {"Host": f"evil{number}.example"}
            assert (await bench.client.call("GET", "/", headers=headers)).status == 421

    with caplog.at_level(logging.WARNING, "swapchart.proxy"):
        run(main, OPEN)
    assert 1 <= len([record for record in caplog.records if "evil" in record.message]) <= 40
