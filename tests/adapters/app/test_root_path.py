"""The root path: forms of the option, and requests with and without the prefix."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis.strategies import from_regex, sampled_from
from starlette.applications import Starlette
from starlette.routing import Mount
from tools.asgi import Client

from swapchart.adapters.app.root_path import parse_root_path, without_root_path
from swapchart.adapters.asgi import create_app
from swapchart.adapters.proxy.api.route_table import ROUTES

PATHS = ROUTES.paths
#: Paths without a root path, as a client sends them.
TARGETS = (
    "/v1/models",
    "/",
    "/upstream/a%2Fb/x%20y",
    "/upstream/llm/llm",
    "/llmodel",
    "/%E2%82%AC",
)


@pytest.mark.parametrize(
    ("text", "root"),
    [("", ""), ("/", ""), ("/llm", "/llm"), ("/llm/", "/llm"), ("/a/b-c_d.e~f", "/a/b-c_d.e~f"),
     ("/...", "/..."), ("/v1/llm", "/v1/llm"), ("/upstreams", "/upstreams")],
)  # fmt: skip
def test_root_path_that_is_valid_has_no_slash_at_its_end(text: str, root: str) -> None:
    """A path with or without a slash at its end is accepted; "/" means none."""
    assert parse_root_path(text, PATHS) == root


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "expected a path such as /llm") for text in (
            "llm", "//", "//llm", "/a//b", "/..", "/a/../b", "/./x", "/a b", "/a%20b", "/a?b", "/ä",
            "http://host/llm", "/a\nb",
        )),
        *((text, "is taken by the route") for text in (
            "/v1", "/v1/models", "/ui", "/ui/x", "/upstream", "/upstream/a", "/logs/stream/a",
        )),
    ],
)  # fmt: skip
def test_root_path_that_is_invalid_or_a_route_is_refused(text: str, why: str) -> None:
    """The error has the value, and what is expected."""
    with pytest.raises(ValueError, match=why) as caught:
        parse_root_path(text, PATHS)
    assert repr(text) in str(caught.value)


def scope_of(raw_path: str) -> dict[str, Any]:
    return {"type": "http", "path": unquote(raw_path), "raw_path": raw_path.encode()}


@given(from_regex(r"(/[a-z0-9._~-]{1,8}){1,3}", fullmatch=True), sampled_from(TARGETS))
def test_root_path_prefix_is_taken_off_once(root: str, target: str) -> None:
    """Both forms of a request lead to the same paths, unless the target looks like the prefix."""
    plain = scope_of(target)
    stripped = without_root_path(plain, root)
    full = without_root_path(scope_of(root + target), root)

    assert full == {**plain, "root_path": root}
    if not f"{target}/".startswith(f"{root}/"):
        assert stripped == full


def test_root_path_alone_is_the_path_of_the_root() -> None:
    """``/llm`` is ``/`` of the proxy, also with a query in ``raw_path`` as some servers have it."""
    for query in (b"", b"?x=1"):
        found = without_root_path({"path": "/llm", "raw_path": b"/llm" + query}, "/llm")
        assert (found["path"], found["raw_path"]) == ("/", b"/" + query)


def test_root_path_of_an_application_may_need_encoding() -> None:
    """A mount may have any name; a server may leave out ``raw_path``."""
    raw = quote("/lläm/v1/models")
    found = without_root_path({"path": "/lläm/v1/models", "raw_path": raw.encode()}, "/lläm")
    assert (found["path"], found["raw_path"]) == ("/v1/models", b"/v1/models")
    found = without_root_path({"path": "/lläm/v1/models"}, "/lläm")
    assert (found["path"], found.get("raw_path")) == ("/v1/models", None)
    odd = {"path": "/llm/v1/models", "raw_path": b"/%6clm/v1/models"}
    assert without_root_path(odd, "/llm") == {**odd, "root_path": "/llm"}
    assert without_root_path(odd, "") is odd


CONFIG = """
models:
  a: {cmd: sleep 60, proxy: "http://127.0.0.1:9"}
"""


async def _ask(mount: str, root_path: str) -> list[tuple[str, int, str]]:
    """Ask the application through a mount of Starlette; return target, status and location."""
    found = []
    inner = create_app(Path("config.yaml"))
    app: Any = Starlette(routes=[Mount(mount, app=inner)]) if mount else inner

    async def call(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": root_path}, receive, send)

    async with inner.running():
        client = Client(call)
        for target in ("/", "/ui", "/upstream/a?x=1", "//v1//models", "/v1/models", "/nothing"):
            answer = await client.call("GET", f"{mount}{target}")
            found.append((target, answer.status, answer.header("location") or ""))
        document = (await client.call("GET", f"{mount}/openapi.json")).json()
        assert document["servers"] == [{"url": f"{root_path}{mount}"}]
    return found


@pytest.mark.parametrize(("mount", "root_path"), [("/llm", ""), ("", "/llm")])
def test_application_below_a_root_path_redirects_below_it(
    mount: str, root_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted in an application, or below the root path of a server, all routes are found."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)

    assert asyncio.run(_ask(mount, root_path)) == [
        ("/", 302, "/llm/ui"), ("/ui", 301, "/llm/ui/"),
        ("/upstream/a?x=1", 301, "/llm/upstream/a/?x=1"), ("//v1//models", 301, "/llm/v1/models"),
        ("/v1/models", 200, ""), ("/nothing", 404, ""),
    ]  # fmt: skip
