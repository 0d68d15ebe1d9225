"""Responses of our own API have the types that the OpenAPI document declares for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tools import raw
from tools.asgi import proxied
from tools.net import wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

from swapchart.adapters.proxy.api import openapi
from swapchart.adapters.proxy.api.handler import ApiHandler
from swapchart.adapters.proxy.api.route_table import ROUTES
from swapchart.adapters.proxy.api.schema.base import Body
from swapchart.adapters.proxy.context import ProxyContext
from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.request import Request
from swapchart.adapters.proxy.routing import TEXT, Content, Operation

SWAP = "/api/swaps/*"
CANCEL = "/api/inflight/*/cancel"
#: Path of each route with a JSON body -> target and body of a request that succeeds.
REQUESTS: dict[str, tuple[str, object]] = {
    "/health/readiness": ("/health/readiness", None),
    "/health/readiness/*": ("/health/readiness/b", None),
    "/v1/models": ("/v1/models", None),
    "/v1/models/*": ("/v1/models/other", None),
    "/models": ("/models", None),
    "POST /models": ("/models", {"model": "other"}),
    "/running": ("/running", None),
    "/api/version": ("/api/version", None),
    "/api/models/*/chart": ("/api/models/a/chart", None),
    "/api/models/*/history": ("/api/models/a/history", None),
    "/api/models/*/starts": ("/api/models/a/starts", None),
    "/api/models/*/kv": ("/api/models/a/kv?words=true", None),
    "DELETE /api/models/*/kv": ("/api/models/a/kv", None),
    "/api/models/*/explain": ("/api/models/b/explain", None),
    "/api/nodes": ("/api/nodes", None),
    "/api/queue": ("/api/queue", None),
    "/api/memory": ("/api/memory", None),
    "/api/timeline": ("/api/timeline", None),
    SWAP: ("", None),  # see the test
    "/api/memory/yield": ("/api/memory/yield", {"pools": []}),
    "/api/memory/learned/*": ("/api/memory/learned/a", None),
    "/api/metrics/activity": ("/api/metrics/activity", None),
    "/api/metrics/stats": ("/api/metrics/stats", None),
    "/api/captures/*": ("/api/captures/1", None),
    "/api/performance": ("/api/performance", None),
    "/api/hardware": ("/api/hardware", None),
    "/api/models/unload": ("/api/models/unload", None),
    "/api/models/pin/*": ("/api/models/pin/a", None),
    "/api/models/unpin/*": ("/api/models/unpin/a", None),
    "/models/load": ("/models/load", {"model": "b"}),
    "/models/unload": ("/models/unload", {"model": "a"}),
    "/api/nodes/free/*": ("/api/nodes/free/h1", None),
    "/api/profiles": ("/api/profiles", None),
    "/api/profiles/active": ("/api/profiles/active", {"name": "home"}),
    CANCEL: ("", None),  # see cancel_one
    "/api/config": ("/api/config", None),
    "/api/models/*/config": ("/api/models/a/config", None),
    "/api/config/plan": ("/api/config/plan", {}),
    "/api/config/reload": ("/api/config/reload", {}),
    "/ollama/api/version": ("/ollama/api/version", None),
    "/ollama/api/tags": ("/ollama/api/tags", None),
    "/ollama/api/ps": ("/ollama/api/ps", None),
    "/ollama/api/show": ("/ollama/api/show", {"model": "a"}),
    "/ollama/api/pull": ("/ollama/api/pull", {"model": "a", "stream": False}),
}
#: Sent last, since they end what the others need.
LAST = ("/models/unload", "/models/load", "/api/models/unload")


def json_routes() -> dict[str, tuple[str, list[type[Body]]]]:
    """Return path -> method and declared bodies of each route that responds with JSON of ours.

    The second route of a path has its method in front.
    """
    found = {}
    for route in ROUTES.routes:
        bodies = [kind for kind in route.operation.responses if not isinstance(kind, Content)]
        if bodies:
            assert all(issubclass(body, Body) for body in bodies)
            key = f"{route.method} {route.path}" if route.path in found else route.path
            found[key] = (route.method, bodies)
    return found  # type: ignore[return-value]


def cancel_one(proxy: SwapchartProcess) -> raw.Answer:
    """Cancel a stream, whose id is among the first hundred; return the response to that."""
    with proxy.open_stream("a"):
        answers = (proxy.call("POST", CANCEL.replace("*", str(n)), value={}) for n in range(1, 100))
        return next(answer for answer in answers if answer.status == 200)


def check(document: Any, name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(value)]
    assert errors == [], (name, value)


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    config = {
        "performance": {"every": "5s"}, "captureBuffer": 5,
        "profiles": {"home": {"description": "At home", "pins": {"chat": "a", "b": None}}},
        "selectors": {"pick": {"strategy": "pin", "targets": ["a"]}},
        "hooks": {"on_startup": {"preload": ["a"]}},
    }  # fmt: skip
    capable: dict[str, Any] = {
        "capabilities": {"in": ["text", "image"], "out": ["text"], "tools": True}
    }
    hooks: dict[str, Any] = {"afterHealthy": [{"run": "true"}], "kv": "keep"}
    options = ("--slot-save-path", "slots")
    models = {
        "a": demo_model("a", *options, aliases=["other"], **capable, **hooks),
        "b": demo_model("b"),
    }
    return serve_module(models, config=config)


@pytest.mark.slow
def test_json_responses_of_a_running_proxy_match_the_generated_schema(
    proxy: SwapchartProcess,
) -> None:
    """Each route with a JSON body sends what the document says, without an undeclared field."""
    document = proxy.get("/openapi.json")
    routes = json_routes()
    assert REQUESTS.keys() == routes.keys()
    assert proxy.chat("a").status == 200
    wait_until(lambda: proxy.get("/api/performance")["sys_stats"], what="a sample of the host")
    wait_until(lambda: proxy.get("/api/metrics/activity")["total"], what="a finished request")
    for path in (*(path for path in REQUESTS if path not in LAST), *LAST):
        method, bodies = routes[path]
        target, value = REQUESTS[path]
        if path == SWAP:
            target = SWAP.replace("*", proxy.get("/api/timeline")["swaps"][0]["id"])
        answer = cancel_one(proxy) if path == CANCEL else proxy.call(method, target, value=value)

        assert answer.status == 200, (path, answer.body)
        check(document, bodies[0].__name__, answer.json())
        if path == "/api/models/*/history":
            assert any(row["hooks"] for row in answer.json()["data"])


@pytest.mark.slow
def test_errors_of_a_running_proxy_match_the_generated_schema(proxy: SwapchartProcess) -> None:
    """Each API has one schema for its errors, for a broken configuration with its problems too."""
    document = proxy.get("/openapi.json")
    path = proxy.folder / "config.yaml"
    text = path.read_text()
    path.write_text('{"models": {"a": {"ttl": "soon"}}}')
    broken = proxy.call("POST", "/api/config/plan", value={})
    path.write_text(text)
    unknown = proxy.call("GET", "/api/models/none/chart")
    anthropic = proxy.call("POST", "/v1/messages", value={"model": "none"})
    ollama = proxy.call("POST", "/ollama/api/show", value={"model": "none"})
    root = proxy.call("POST", "/ollama", value={})

    answers = (broken, unknown, anthropic, ollama, root)
    assert [each.status for each in answers] == [400, 404, 404, 404, 405]
    assert broken.json()["error"]["problems"]
    kinds = ("Error", "Error", "AnthropicError", "OllamaError", "OllamaError")
    for answer, kind in zip(answers, kinds, strict=True):
        check(document, kind, answer.json())


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/api/nodes", "Error"), ("POST", "/v1/chat/completions", "Error"),
        ("GET", "/upstream/*", "Error"), ("POST", "/v1/messages", "AnthropicError"),
        ("POST", "/v/messages/count_tokens", "AnthropicError"),
        ("GET", "/ollama", "OllamaError"), ("POST", "/ollama/api/chat", "OllamaError"),
        ("POST", "/ollama/api/show", "OllamaError"), ("POST", "/ollama/api/push", "OllamaError"),
    ],
)  # fmt: skip
def test_errors_of_a_route_are_described_in_the_form_of_its_api(
    method: str, path: str, kind: str
) -> None:
    """Each error of the route is the one of its API, beside those of the model's server."""
    whole = openapi.document(ROUTES.routes, "1")
    operation = whole["paths"][path.replace("*", "{path}")][method.lower()]
    references = [each["$ref"] for each in operation["responses"].values() if "$ref" in each]

    assert references
    for reference in references:
        described = whole["components"]["responses"][reference.rpartition("/")[2]]
        schema = described["content"]["application/json"]["schema"]
        assert schema.get("anyOf", [schema])[0] == {"$ref": f"#/components/schemas/{kind}"}


def test_formats_of_one_response_are_media_types_of_its_description() -> None:
    """Ollama's responses are lines of JSON, or one object if the client asks for no stream."""
    paths = openapi.document(ROUTES.routes, "1")["paths"]
    for name in ("chat", "generate", "pull"):
        response = paths[f"/ollama/api/{name}"]["post"]["responses"]["200"]

        assert sorted(response["content"]) == ["application/json", "application/x-ndjson"]


def test_performance_monitor_off_has_a_body_of_its_own() -> None:
    """Without the monitor the response is 503, with the declared body."""

    async def main() -> None:
        async with proxied() as bench:
            document = (await bench.client.call("GET", "/openapi.json")).json()
            answer = await bench.client.call("GET", "/api/performance")

            assert answer.status == 503
            check(document, "PerformanceOff", answer.json())

    asyncio.run(main())


def test_model_metadata_with_any_key_is_listed() -> None:
    """Metadata of a model may have any key and integers of any size."""
    metadata = {"name": "mine", "kind": 1, "is_loaded": 2, "meta": 3, "large": 10**30}

    async def main() -> None:
        async with proxied(ModelDefinition(id="a", metadata=metadata)) as bench:
            (record,) = (await bench.client.call("GET", "/v1/models")).json()["data"]

            assert record["meta"]["llamaswap"] == {**metadata, "type": "model"}

    asyncio.run(main())


async def _untyped(proxy: ProxyContext, request: Request):  # type: ignore[no-untyped-def]
    return {}


async def _plain(proxy: ProxyContext, request: Request) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("function", [_untyped, _plain])
def test_handler_without_a_declared_body_is_refused(function: Any) -> None:
    """A handler that returns what no schema can be generated from fails at its definition."""
    with pytest.raises(TypeError, match="expected a type derived from Body, or str"):
        ApiHandler(function)


@pytest.mark.parametrize("responses", [(), (dict,)])
def test_route_without_a_declared_response_is_refused(responses: Any) -> None:
    """An operation without a type of its response, or with a free-form one, is an error."""
    with pytest.raises(TypeError, match="declares"):
        Operation(summary="Do", responses=responses)

    assert Operation(summary="Do", responses=(TEXT,)).responses == (TEXT,)
