"""Canaries are put into each input, and each output is searched for them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tools import raw
from tools.net import free_port
from tools.rows import row
from tools.swapchart_process import CHAT, Journal, Serve, SwapchartProcess, shell

pytestmark = pytest.mark.slow

KEY = "canary-client-key-0001"
CANARIES = {
    "apiKeys": KEY,
    "another of apiKeys": "canary-other-key-0002",
    "env of a model": "canary-model-env-0003",
    "variable in an argument": "canary-argument-0004",
    "macro from a variable": "canary-macro-0005",
    "command of a hook": "canary-hook-0006",
    "field of a call": "canary-hook-field-0007",
    "key of a peer": "canary-peer-key-0008",
    "user of a URL": "canary-peer-url-0009",
    "Authorization of a stranger": "canary-stranger-0010",
    "X-Api-Key of a stranger": "canary-x-api-key-0011",
    "Basic": "canary-basic-0012",
    "Cookie": "canary-cookie-0013",
    "body": "canary-body-0014",
    "query": "canary-query-0015",
    "netrc": "canary-netrc-0016",
}


def forms(canary: str) -> set[bytes]:
    """Return the forms in which a secret could slip out."""
    text = canary.encode()
    return {text, base64.b64encode(b"user:" + text), quote(canary).encode()}


def configuration(journal: Journal) -> dict[str, Any]:
    given = CANARIES
    model = journal.model("a", env=[f"SECRET={given['env of a model']}"])
    model["cmd"] = " ".join([*model["cmd"], "--copy", "${secret}", "--copy", "${env.ARGUMENT}"])
    field = {"Authorization": f"Bearer {given['field of a call']}"}
    model["afterHealthy"] = [
        {"http": {"url": "http://127.0.0.1:${PORT}/hook", "headers": field, "expect": [418]}},
        shell(f"T={given['command of a hook']}; exit 3"),
        {"run": ["no-such-command", given["command of a hook"]]},
    ]
    broken = {"cmd": "no-such-command --key ${env.ARGUMENT} ${PORT}", "proxy": model["proxy"]}
    peer = {
        "proxy": f"http://user:{given['user of a URL']}@127.0.0.1:{free_port()}",
        "apiKey": given["key of a peer"],
        "models": ["remote"],
    }
    return {
        "logLevel": "debug",
        "macros": {"secret": "${env.MACRO}"},
        "apiKeys": [KEY, given["another of apiKeys"]],
        "models": {"a": model, "broken": broken},
        "peers": {"p": peer},
        "startPort": 0,
    }


def provoke(proxy: SwapchartProcess) -> list[raw.Answer]:
    """Make requests that work and that fail in every way, with secrets wherever one may stand."""
    given = CANARIES
    mine = {"Authorization": f"Bearer {KEY}", "Cookie": f"session={given['Cookie']}"}
    strangers: list[dict[str, str]] = [
        {"Authorization": f"Bearer {given['Authorization of a stranger']}"},
        {"X-Api-Key": given["X-Api-Key of a stranger"]},
        {"Authorization": "Basic " + base64.b64encode(b"user:" + given["Basic"].encode()).decode()},
        {},
    ]
    answers = []
    for model in ("a", "broken", "p/remote", "remote", "nobody", "a"):
        value = {"model": model, "messages": [{"role": "user", "content": given["body"]}]}
        for fields in (mine, *strangers):
            with suppress(EOFError):
                answers.append(
                    proxy.call("POST", f"{CHAT}?key={given['query']}", value=value, headers=fields)
                )
    broken_body = f'{{"model": "a", "pad": "{given["body"]}'.encode()
    answers.append(proxy.call("POST", CHAT, body=broken_body, headers=mine))
    bad_field = {**mine, "Content-Type": f"multipart/form-data; boundary={given['body']}"}
    answers.append(proxy.call("POST", CHAT, body=b"x", headers=bad_field))
    with raw.Connection(proxy.port) as connection:
        connection.send(f"GET /{given['query']} HTTP/1.1\r\nCookie {KEY}\r\n\r\n".encode())
        answers.append(connection.read_answer())
    return answers


def told(proxy: SwapchartProcess) -> dict[str, bytes]:
    """Collect what the proxy tells about itself, by the place where it does."""
    fields = {"Authorization": f"Bearer {KEY}"}
    places = [
        "/running", "/v1/models", "/models", "/api/version", "/logs", "/api/queue", "/api/config",
        "/api/models/a/history", "/api/models/a/chart", "/api/models/a/explain", "/api/profiles",
        "/api/metrics/activity", "/api/metrics/stats", "/api/captures/1", "/api/performance",
        "/openapi.json", "/metrics",
    ]  # fmt: skip
    found = {place: proxy.call("GET", place, headers=fields).body for place in places}
    found["plan"] = proxy.call("POST", "/api/config/plan", value={}, headers=fields).body
    for place in ("/api/events", "/logs/stream", "/logs/stream/a", "/logs/stream/proxy"):
        with raw.Connection(proxy.port, timeout_s=0.7) as connection:
            connection.request("GET", place, headers=fields)
            data = b""
            with suppress(TimeoutError):
                connection.read_head()
                while True:
                    data += connection.read_chunk()
        found[place] = data
    return found


def commands(config: Path, env: dict[str, str]) -> dict[str, bytes]:
    found = {}
    for words in (["config", "check", str(config)], ["config", "plan", str(config), str(config)]):
        argv = [sys.executable, "-m", "swapchart", *words]
        run = subprocess.run(
            argv, capture_output=True, cwd=config.parent, env={**os.environ, **env}, check=False
        )
        found[" ".join(words[:2])] = run.stdout + run.stderr
    return found


@pytest.fixture(scope="module")
def outputs(serve_module: Serve, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("secrets")
    netrc = folder / ".netrc"
    netrc.write_text(f"default login user password {CANARIES['netrc']}\n")
    netrc.chmod(0o600)
    env = {
        "ARGUMENT": CANARIES["variable in an argument"], "MACRO": CANARIES["macro from a variable"],
        "HOME": str(folder), "NETRC": str(netrc),
    }  # fmt: skip
    config = configuration(Journal(folder / "journal"))
    config["startPort"] = free_port()
    proxy = serve_module(None, config=config, env=env)
    proxy.may_log = r"hook|no-such-command|ERROR"
    answers = provoke(proxy)
    assert {answer.status for answer in answers} >= {200, 400, 401, 404, 502}
    found = told(proxy)
    found["its own log"] = proxy.output().encode()
    found["errors"] = b"\n".join(a.body for a in answers if a.status >= 400)
    found["headers"] = repr([answer.headers for answer in answers]).encode()
    found |= commands(proxy.folder / "config.yaml", env)
    proxy.stop()
    found["its own log"] = proxy.output().encode()
    found["files"] = b"".join(
        path.read_bytes() for path in (proxy.folder / "state").rglob("*") if path.is_file()
    )
    return found


@pytest.mark.parametrize("given", CANARIES)
@row("C36", "E13")
def test_secrets_appear_in_no_output(outputs: dict[str, bytes], given: str) -> None:
    """16 kinds of secrets are in none of 25 outputs."""
    leaks = {
        place: data[max(0, data.find(form) - 200) :][:300]
        for place, data in outputs.items()
        for form in forms(CANARIES[given])
        if form in data
    }

    assert leaks == {}


@row("C36")
def test_secrets_check_covers_each_output(outputs: dict[str, bytes]) -> None:
    """The places that were searched tell of the models, or the search would prove nothing."""
    empty = {place for place, data in outputs.items() if len(data) < 2}

    assert empty <= {"config check", "config plan", "/api/queue"}
    assert b"${env.ARGUMENT}" in outputs["/running"]
    assert len(outputs) >= 24
