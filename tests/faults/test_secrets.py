"""Rows C36 and E13: canaries put into every input, and every output searched for them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import quote

import pytest
from tools import raw
from tools.net import wait_until
from tools.swapchart_process import CHAT, Journal, Serve, SwapchartProcess, shell

pytestmark = pytest.mark.slow

KEY = "canary-key-of-a-client-0001"
CANARIES = {
    "apiKeys": KEY,
    "another of apiKeys": "canary-key-of-nobody-0002",
    "env of a model": "canary-env-of-model-0003",
    "variable in an argument": "canary-argument-0004",
    "macro from a variable": "canary-macro-0005",
    "env of a hook": "canary-env-of-hook-0006",
    "field of a hook's call": "canary-hook-field-0007",
    "key of a peer": "canary-peer-key-0008",
    "user of a peer's URL": "canary-peer-url-0009",
    "Authorization of a stranger": "canary-stranger-0010",
    "X-Api-Key of a stranger": "canary-x-api-key-0011",
    "Basic": base64.b64encode(b"user:canary-basic-0012").decode(),
    "Cookie": "canary-cookie-0013",
    "body": "canary-body-0014",
    "query": "canary-query-0015",
    "netrc": "canary-netrc-0016",
}


def encodings(canary: str) -> set[bytes]:
    """Return the forms in which a secret could slip out."""
    text = canary.encode()
    return {text, base64.b64encode(text).rstrip(b"="), quote(canary).encode(), text[::-1]}


def config(journal: Journal) -> dict[str, object]:
    given = CANARIES
    model = journal.model("a", env=[f"SECRET={given['env of a model']}"])
    model["cmd"] = [*model["cmd"][:-2], "--name", "${secret}a", "--label", "${env.ARGUMENT}"]
    model["afterHealthy"] = [
        {
            "http": {
                "url": "http://127.0.0.1:${PORT}/hook",
                "headers": {"Authorization": f"Bearer {given[chr(102) + 'ield of a hook' + chr(39) + 's call']}"},
            }
        },
        shell(f"T={given['env of a hook']}; exit 3"),
    ]
    return model


def ask(proxy: SwapchartProcess, **fields: str) -> raw.Answer:
    value = {"model": "a", "messages": [{"role": "user", "content": CANARIES["body"]}]}
    return proxy.call("POST", f"{CHAT}?token={CANARIES['query']}", value=value, headers=fields)
