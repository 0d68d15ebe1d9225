"""Paths besides those of llama-swap: the model that a POST goes to, and the rights it needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.asgi import Bench, run_proxied

from swapchart.adapters.proxy.api.inference_paths import (
    POST_PATHS,
    SERVER_GET_PATHS,
    SERVER_POST_PATHS,
)
from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.models.definitions import (
    BodyFilters,
    ModelDefinition,
    PeerDefinition,
    ProfileDefinition,
    SelectorDefinition,
)
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

OTHER = "/v9/some/thing"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
IN_PARTS = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--x--\r\n'
KEYS = ProxyOptions(
    keys=(
        ApiKey(key="all"),
        ApiKey(key="infer", scopes=frozenset({"infer"})),
        ApiKey(key="admin", scopes=frozenset({"admin"})),
        ApiKey(key="some", scopes=frozenset({"infer", "admin"}), models=("a",)),
    )
)


@pytest.mark.parametrize(
    ("kind", "body", "query"),
    [
        ("application/json", b' {"model": "a", "x": 1}', ""),
        ("text/plain", b'{"model":"a"}', ""),
        ("application/json", b'{"x":1}', "?model=a&y=%20"),
        ("application/json", b'[{"id":0}]', "?model=a"),
        ("application/json", b"", "?model=a"),
        (FORM, b"", "?model=a"),
        (FORM, b"x=1&model=a", ""),
        (MULTIPART, IN_PARTS % b"a", ""),
        ("application/octet-stream", b"\x00\x01", "?model=a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [OTHER, "/tokenize", "/slots/0", "/lora-adapters"])
def test_other_path_reaches_the_model_that_the_request_names(
    path: str, kind: str, body: bytes, query: str
) -> None:
    """A POST goes to the model that body or query names, with its path and its bytes unchanged."""

    async def main(bench: Bench) -> None:
        target = path + query
        answer = await bench.client.call("POST", target, body=body, headers={"content-type": kind})

        assert answer.status == 200, answer.body
        assert (bench.server.last.target, bench.server.last.body) == (target, body)
        assert (bench.supervisor["a"].incarnation, bench.supervisor["b"].incarnation) == (1, 0)

    run_proxied(main)


@pytest.mark.parametrize(
    ("kind", "body", "code", "reason"),
    [
        ("application/json", b'{"model":"nobody"}', "model_not_found", "not found: 'nobody'"),
        ("application/json", b'{"x":1}', "not_found", "`model` is missing in the body"),
        ("application/json", b"{", "not_found", "not valid JSON"),
        ("application/json", b'{"model":7}', "not_found", "`model` must be a text"),
        ("application/json", b'{"model":"a","model":"a"}', "not_found", "given twice"),
        ("application/json", b'[{"model":"a"}]', "not_found", "expected a JSON object"),
        (FORM, b"model=a&model=b", "not_found", "given twice"),
        (MULTIPART, b"--x--\r\n", "not_found", "`model` is missing"),
        ("text/plain", b"", "not_found", "`model` is missing"),
        ("text/plain", b'{"model":"' + b"m" * 1025 + b'"}', "not_found", "longer than 1024"),
    ],
)  # fmt: skip
def test_other_path_without_a_known_model_is_404(
    kind: str, body: bytes, code: str, reason: str
) -> None:
    """The error says that there is no such route, and why no model got the request."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call("POST", OTHER, body=body, headers={"content-type": kind})

        assert answer.status == 404
        assert answer.error()["code"] == code
        message = answer.error()["message"]
        assert message.startswith(f"no such route: {OTHER}; a POST to any other path goes to")
        assert reason in message
        assert bench.server.received == []

    run_proxied(main)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("POST", "/running", 405), ("POST", "/v1/models/a", 405), ("POST", "/ui/x", 405),
        ("PUT", OTHER, 404), ("DELETE", OTHER, 404), ("PATCH", OTHER, 404), ("GET", OTHER, 404),
        ("POST", "/v9//x", 404), ("POST", "/v9/../x", 404), ("POST", "/v9/%zz", 404),
        ("POST", "/v9/%00", 404), ("POST", "//v1//chat/completions", 308),
    ],
)  # fmt: skip
def test_other_path_of_a_known_route_or_unclean_reaches_no_model(
    method: str, target: str, status: int
) -> None:
    """Routes keep their 405 and their redirects; other methods than POST go to no model."""

    async def main(bench: Bench) -> None:
        answer = await bench.client.call(method, target, value={"model": "a"})

        assert answer.status == status
        assert bench.server.received == []

    run_proxied(main)


def test_other_path_takes_the_rights_of_the_route_table() -> None:
    """Inference needs `infer`; what changes or reveals a server, and any other path, `admin`."""
    posts = dict.fromkeys(POST_PATHS, ("infer", "POST"))
    posts |= {path.replace("*", "0"): ("admin", "POST") for path in SERVER_POST_PATHS}
    posts |= dict.fromkeys(SERVER_GET_PATHS, ("admin", "GET"))
    posts |= {OTHER: ("admin", "POST"), "/v1/chat/completion": ("admin", "POST")}

    async def main(bench: Bench) -> None:
        for path, (scope, method) in posts.items():
            for key in ("infer", "admin", "all", "some"):
                target = f"{path}?model=a" if method == "GET" else path
                value = {"model": "a"} if method == "POST" else None
                sent = len(bench.server.received)
                headers = {"x-api-key": key}
                answer = await bench.client.call(method, target, value=value, headers=headers)

                allowed = key in (scope, "all", "some")
                assert answer.status == (200 if allowed else 403), (path, key)
                assert len(bench.server.received) == sent + allowed
        for path in (OTHER, "/tokenize", "/slots/1"):
            headers = {"x-api-key": "some"}
            answer = await bench.client.call("POST", path, value={"model": "b"}, headers=headers)
            assert answer.status == 403, path
            assert "add the name to `models`" in answer.error()["message"]
        assert bench.supervisor["b"].incarnation == 0
        below = "/upstream/a/tokenize"
        for key, status in (("infer", 200), ("admin", 403)):
            headers = {"x-api-key": key}
            assert (await bench.client.call("POST", below, headers=headers)).status == status

    run_proxied(main, options=KEYS)


def test_other_path_of_a_foreign_page_is_403() -> None:
    """A page of another site can send a form to any path; no model gets it."""

    async def main(bench: Bench) -> None:
        for path in (OTHER, "/tokenize", "/slots/0", "/lora-adapters"):
            headers = {"origin": "https://evil.example", "content-type": FORM}
            answer = await bench.client.call("POST", path, body=b"model=a", headers=headers)
            assert answer.status == 403, path
        assert bench.server.received == []

    run_proxied(main)


@given(st.text(alphabet="abv1/._-~%2 \u00e4", max_size=12).map(lambda text: "/" + text))
def test_other_route_is_found_for_unknown_paths_only(path: str) -> None:
    """The fallback takes a path exactly if no route has it, and only for POST."""
    known = bool(ROUTES.allowed(path))

    assert (ROUTES.other("POST", path) is None) is known
    assert ROUTES.other("GET", path) is None
    assert ROUTES.find("POST", path)[0] is not ROUTES.fallback


def test_other_path_gets_filters_and_the_model_name() -> None:
    """Filters and `useModelName` hold on any path, and a body that they cannot change is 415."""
    renamed = ModelDefinition(id="a", aliases=("alias",), use_model_name="inner")
    filtered = ModelDefinition(id="f", filters=BodyFilters(set_params={"x": 2}))

    async def main(bench: Bench) -> None:
        call = bench.client.call
        await call("POST", OTHER, value={"model": "alias"})
        assert bench.server.last.json() == {"model": "inner"}
        await call("POST", f"{OTHER}?model=alias&b=1", value={"n": 1})
        assert bench.server.last.target == f"{OTHER}?model=inner&b=1"
        assert bench.server.last.json() == {"n": 1}
        await call("POST", f"{OTHER}?model=f", value={"n": 1})
        assert bench.server.last.json() == {"n": 1, "x": 2}
        refused = await call("POST", f"{OTHER}?model=f", value=[1])
        assert refused.status == 415

    run_proxied(main, renamed, filtered)


def test_path_for_llama_server_without_a_model_is_400_and_names_the_parameter() -> None:
    """The error of llama-server's own paths tells how to name the model; nothing starts."""

    async def main(bench: Bench) -> None:
        for method, path in (
            ("GET", "/slots"), ("GET", "/lora-adapters"), ("POST", "/lora-adapters"),
            ("POST", "/tokenize"), ("POST", "/detokenize"), ("POST", "/apply-template"),
            ("POST", "/slots/0?action=erase"), ("POST", "/props"),
        ):  # fmt: skip
            for value in (None, {"content": "x"}) if method == "POST" else (None,):
                answer = await bench.client.call(method, path, value=value)
                assert answer.status == 400, path
                assert "`?model=NAME`" in answer.error()["message"]
        assert bench.server.received == []

    run_proxied(main)


def test_model_endpoint_returns_each_name() -> None:
    """Ids with slashes, aliases, unlisted models, peers, selectors and pins each have a record."""
    models = [
        ModelDefinition(id="org/m:7b", aliases=("short", "a/b"), name="M"),
        ModelDefinition(id="hidden", is_unlisted=True),
        ModelDefinition(id="off"),
    ]
    extra: dict[str, Any] = {
        "peers": [PeerDefinition(id="p", url="http://127.0.0.1:9", models=("x/y",))],
        "selectors": [SelectorDefinition(id="s", strategy="pin", targets=("hidden",))],
        "profiles": [ProfileDefinition(id="day", pins={"main": "org/m:7b", "off": None})],
    }

    async def main(bench: Bench) -> None:
        bench.app.proxy.activate_profile("day")
        call = bench.client.call
        listed = (await call("GET", "/v1/models")).json()["data"]
        for record in listed:
            if record["id"] != "off":
                assert (await call("GET", f"/v1/models/{record['id']}")).json() == record
        for path, name, kind in (
            ("org/m:7b", "org/m:7b", "model"), ("org%2Fm%3A7b", "org/m:7b", "model"),
            ("short", "short", "alias"), ("a/b", "a/b", "alias"), ("hidden", "hidden", "model"),
            ("p/x/y", "p/x/y", "peer"), ("x/y", "x/y", "peer"), ("s", "s", "selector"),
            ("main", "main", "profile"),
        ):  # fmt: skip
            answer = await call("GET", f"/v1/models/{path}")
            assert (answer.status, answer.json()["id"]) == (200, name)
            assert answer.json()["meta"]["llamaswap"]["type"] == kind
        unknown = await call("GET", "/v1/models/org/m")
        assert (unknown.status, unknown.error()["code"]) == (404, "model_not_found")
        assert "did you mean 'org/m:7b'" in unknown.error()["message"]
        assert (await call("GET", "/v1/models/off")).status == 404
        assert all(bench.supervisor[model.id].incarnation == 0 for model in models)

    run_proxied(main, *models, **extra)


def test_model_endpoint_of_a_key_for_some_models_shows_only_these() -> None:
    """A key reads the records of its own models, and 403 for others."""

    async def main(bench: Bench) -> None:
        for name, status in (("a", 200), ("b", 403), ("c", 404)):
            headers = {"x-api-key": "some"}
            answer = await bench.client.call("GET", f"/v1/models/{name}", headers=headers)
            assert answer.status == status

    run_proxied(main, options=KEYS)
