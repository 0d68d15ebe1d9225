"""Our OpenAPI document says what the proxy does: each route is in it, and answers fit it.

Schemathesis makes requests of it, right ones and wrong ones, and sends them to a running proxy.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tools.swapchart_process import Serve, demo_model

from swapchart.adapters.proxy.api.openapi import METHODS, document
from swapchart.adapters.proxy.api.route_table import ROUTES

#: Answered for as long as the client listens.
ENDLESS = ("/api/events", "/logs/stream", "/logs/stream/{name}", "/models/sse")
#: Answered by a model's server, not by us.
OTHERS = ("/upstream/{path}", "/comfyui/{path}")
#: 501: swapchart neither downloads nor deletes models. 503: `?autoload=false` on a cold model.
EXPECTED = """\
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501", "503"]
"""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance",
)  # fmt: skip
#: Random requests of each operation, beside those of each keyword; ./dev test-all sends more.
EXAMPLES = 6 if os.environ.get("SWAPCHART_LONG") == "1" else 2


def test_openapi_document_lists_exactly_the_routes() -> None:
    """A route that is added and not described, or described and not there, fails here."""
    routes = {
        (method.lower(), route.path)
        for route in ROUTES.routes
        for method in ([m.upper() for m in METHODS] if route.method == "*" else [route.method])
    }
    described = set()
    for path, operations in document(ROUTES.routes, "1")["paths"].items():
        before, brace, rest = path.partition("{")
        plain = before + "*" + rest.partition("}")[2] if brace else path
        described |= {(method, plain) for method in operations}

    assert described == routes


def test_openapi_references_and_schemas_are_valid() -> None:
    """Answers and schemas that are named exist, and paths name their parameters."""
    whole = document(ROUTES.routes, "1")

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found = whole
                for step in value["$ref"].removeprefix("#/").split("/"):
                    found = found[step]
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(whole)
    for schema in whole["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, operations in whole["paths"].items():
        for operation in operations.values():
            given = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert given == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


@pytest.mark.slow
def test_openapi_document_describes_the_responses(serve: Serve, tmp_path: Path) -> None:
    """Requests made from the document: no 5xx but those that mean so, every answer is described."""
    (tmp_path / "schemathesis.toml").write_text(EXPECTED)
    config = {"performance": {"every": "5s"}}
    proxy = serve({"a": demo_model("a"), "b": demo_model("b")}, config=config)
    argv = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run",
        f"http://127.0.0.1:{proxy.port}/openapi.json", "--checks", ",".join(CHECKS),
        "--max-examples", str(EXAMPLES), "--phases", "coverage,fuzzing",
        "--generation-deterministic", "--no-color", "--request-timeout", "20",
    ]  # fmt: skip
    for path in (*ENDLESS, *OTHERS):
        argv += ["--exclude-path", path]
    run = subprocess.run(
        argv, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert proxy.chat("a").status == 200
