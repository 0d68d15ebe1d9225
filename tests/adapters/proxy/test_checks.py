"""The list of checks that a request passes is the order in which they decide."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tools.asgi import Bench, proxied

import swapchart.adapters
from swapchart.adapters.http1.server.connection import ServerConnection
from swapchart.adapters.http1.server.connections import ConnectionManager
from swapchart.adapters.http1.server.hypercorn_protocol import H1Limits
from swapchart.adapters.proxy.forwarding.checks import CHECKS
from swapchart.adapters.proxy.models.definitions import BodyFilters, ModelDefinition
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions

#: A request that passes all checks: the path, headers, and members of the body.
_PASSES: Mapping[str, Any] = {
    "/": "/v1/chat/completions", "Host": "localhost", "Authorization": "Bearer sk-all",
    "model": "a",
}  # fmt: skip

#: Name of a check -> how a request that fails it, and no check before, differs; and what its
#: response says. None takes something away.
_FAILS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "HTTP syntax and limits": ({"Bad Name": "1"}, ""),
    "loop of peers": ({"Via": "1.1 swapchart-me"}, "peer_loop"),
    "Host": ({"Host": "evil.example"}, "host_not_allowed"),
    # A browser adds the user's name and password, so they do not tell that the page has a key.
    "Origin": (
        {"Origin": "https://evil.example", "Authorization": "Basic eDpzay1hbGw="},
        "origin_not_allowed",
    ),
    "API key": ({"Authorization": None}, "missing API key"),
    "route": ({"/": "/running"}, "is not allowed here"),
    "scope of the key": (
        {"Authorization": "Bearer sk-admin"},
        "scopes: [infer, admin] at the key in `apiKeys` (docs",
    ),
    "keep-alive of the model": ({"X-Keep-Alive": "soon"}, "X-Keep-Alive is 'soon'; expected"),
    "size of the body": ({"pad": "x" * 1000}, "larger than"),
    "model name in the body": ({"model": 7}, "`model`"),
    "model": ({"model": "unknown"}, "model_not_found"),
    "models of the key": (
        {"Authorization": "Bearer sk-other"},
        "add the name to `models` at the key in `apiKeys` (docs",
    ),
    "filters of the model": ({"model": "filtered", "x": []}, "the filters of"),
}
#: Whose origins and scopes count depends on the route.
_NEEDS_ROUTE = frozenset({"Origin", "scope of the key"})


def _bytes(request: Mapping[str, Any]) -> bytes:
    """Return *request* as it goes over the wire; names in lower case are members of the body."""
    members = {name: value for name, value in request.items() if name.islower()}
    body = json.dumps(members).encode()
    lines = [f"POST {request['/']} HTTP/1.1", f"Content-Length: {len(body)}"]
    lines += [
        f"{name}: {value}" for name, value in request.items()
        if name[0].isupper() and value is not None
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _response(port: int, request: Mapping[str, Any]) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(_bytes({**request, "Connection": "close"}))
        text = (await reader.read()).decode()
    finally:
        writer.close()
    return int(text.split(" ")[1]), text


def _pairs() -> list[tuple[str, str]]:
    """Return the checks, each with each that comes later, where one request can fail both."""
    names = [check.name for check in CHECKS]
    return [
        (one, other) for one, other in itertools.combinations(names, 2)
        if not (one in _NEEDS_ROUTE and other == "route")
        and not (_FAILS[one][0].keys() & _FAILS[other][0].keys())
    ]  # fmt: skip


async def _serve(bench: Bench) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    hub = ConnectionManager(loop, H1Limits(), lambda: False)
    return await loop.create_server(lambda: ServerConnection(hub, bench.app, loop), "127.0.0.1", 0)


def test_checks_that_a_request_fails_first_of_the_list_decides() -> None:
    """Of two checks that a request fails, the response comes from the one that is listed first."""
    options = ProxyOptions(
        instance_id="me", check_host=True, json_limit_bytes=500,
        keys=(
            ApiKey(key="sk-all"), ApiKey(key="sk-other", models=("other",)),
            ApiKey(key="sk-admin", scopes=frozenset({"admin"})),
        ),
    )  # fmt: skip
    filters = BodyFilters(set_params={"x.y": 1})
    models = [ModelDefinition(id="a"), ModelDefinition(id="filtered", filters=filters)]
    statuses = {check.name: check.statuses for check in CHECKS}

    async def main() -> None:
        async with proxied(*models, options=options) as bench, await _serve(bench) as server:
            port = server.sockets[0].getsockname()[1]
            assert (await _response(port, _PASSES))[0] == 200
            for one in CHECKS:
                changes, text = _FAILS[one.name]
                status, response = await _response(port, {**_PASSES, **changes})
                assert (status in one.statuses, text in response) == (True, True), response
            for first, second in _pairs():
                (changes, text), (more, _) = _FAILS[first], _FAILS[second]
                status, response = await _response(port, {**_PASSES, **changes, **more})
                found = (status in statuses[first], text in response)
                assert found == (True, True), (first, second, response)

    asyncio.run(asyncio.wait_for(main(), 30))

    assert len(_pairs()) > 40


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_checks_module_exists(check: Any) -> None:
    """The list names modules that are there."""
    (adapters,) = swapchart.adapters.__path__

    assert check.module.endswith(".py")
    assert (Path(adapters) / check.module).is_file()


def test_checks_table_in_the_documentation_matches() -> None:
    """docs/architecture.md shows the list as it is."""
    text = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [
        f"| {check.name} | {', '.join(map(str, check.statuses))} | `{check.module}` |"
        for check in CHECKS
    ]

    assert "\n".join(["| --- | --- | --- |", *rows, ""]) in text
