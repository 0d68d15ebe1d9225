"""Requests of programs that no test can run, made to a real proxy, in the order they come in.

Each file of `recorded` has the requests of one program, with the places of its source that they
were read from, and what the program reads of each response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tools import raw
from tools.client_drivers import KEY
from tools.client_programs import PAGE
from tools.net import LONG_S, wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

FILES = sorted((Path(__file__).parent / "recorded").glob("*.json"))
TYPES: dict[str, Any] = {"text": str, "list": list, "object": dict, "number": (int, float)}


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    """A proxy with two models that swap, and one that never starts."""
    models = {
        "chat": demo_model("chat"),
        "titles": demo_model("titles"),
        "broken": demo_model("broken", "--fail-load"),
    }
    proxy = serve_module(models, config={"apiKeys": [KEY]})
    proxy.headers = {"Authorization": f"Bearer {KEY}"}
    proxy.may_log = "broken"
    return proxy


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Yield what *path* leads to: names and numbers with dots, ``*`` for each of a list."""
    first, _, rest = path.partition(".")
    if first == "*":
        assert value, "the list is empty"
        inner = value
    else:
        inner = [value[int(first) if first.isdigit() else first]]
    for each in inner:
        if rest:
            yield from values_at(each, rest)
        else:
            yield each


def check_values(answer: raw.Answer, wanted: dict[str, Any]) -> None:
    """Check values of a JSON response: they are of a type, or equal."""
    assert (answer.header("content-type") or "").startswith("application/json")
    for path, expected in wanted.items():
        for found in values_at(answer.json(), path):
            if isinstance(expected, str) and expected in TYPES:
                assert isinstance(found, TYPES[expected]), (path, found)
            else:
                assert found == expected, path


def check_stream(answer: raw.Answer, wanted: dict[str, Any]) -> str:
    """Check a stream of chunks, and return the id of the tool call in it."""
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    chunks = answer.events()
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert all(choice["index"] == 0 for choice in choices)
    calls = [call for each in choices for call in each["delta"].get("tool_calls", [])]
    found = {
        "text": "".join(choice["delta"].get("content") or "" for choice in choices),
        "finish": choices[-1]["finish_reason"],
        "usage": bool(chunks[-1].get("usage", {}).get("total_tokens")),
        "done": answer.body.rstrip().endswith(b"data: [DONE]"),
    }
    if calls:
        text = "".join(call["function"]["arguments"] for call in calls)
        found["call"] = {"name": calls[0]["function"]["name"], "arguments": json.loads(text)}
    assert {name: found.get(name) for name in wanted} == wanted
    return str(calls[0]["id"]) if calls else ""


def check_lines(answer: raw.Answer, wanted: dict[str, Any]) -> None:
    """Check a stream of Ollama's: one JSON object a line, and totals in the last one."""
    assert (answer.header("content-type") or "").startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    calls = [call for line in lines for call in line["message"].get("tool_calls") or []]
    found = {
        "text": "".join(line["message"]["content"] for line in lines),
        "done_reason": lines[-1].get("done_reason"),
        "usage": lines[-1]["eval_count"] > 0 and lines[-1]["total_duration"] > 0,
    }
    if calls:
        function = calls[0]["function"]
        found["call"] = {"name": function["name"], "arguments": function["arguments"]}
    assert {name: found.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_recorded_requests_get_what_the_program_reads(path: Path, proxy: SwapchartProcess) -> None:
    """Each response has the status and the values that the program reads, and starts no more."""
    recording = json.loads(path.read_text("utf-8"))
    assert recording["version"]
    assert recording["sources"]
    assert proxy.unload().status == 200
    call = ""
    for request in recording["requests"]:
        text = json.dumps(request).replace("${key}", KEY).replace("${call}", call)
        made = json.loads(text)
        body = {"value": made["body"]} if "body" in made else {}
        answer = proxy.call(made["method"], made["path"], headers=made["headers"], **body)
        reads, when = made["reads"], f"when {made['when']}"
        assert answer.status == reads["status"], (when, answer.body)
        if "values" in reads:
            check_values(answer, reads["values"])
        if "lines" in reads:
            check_lines(answer, reads["lines"])
        if "stream" in reads:
            call = check_stream(answer, reads["stream"]) or call
        kinds = [event["type"] for event in answer.events()] if "events" in reads else []
        assert [kind for kind in reads.get("events", []) if kind not in kinds] == [], when
        if "until" in made:
            wait_until(lambda: list(proxy.running()) == made["until"], LONG_S, what=when)  # noqa: B023
        if "running" in made:
            assert list(proxy.running()) == made["running"], when


def test_docs_table_names_each_recording_with_its_version() -> None:
    """The page lists the programs whose requests are recorded, and no others."""
    recordings = [json.loads(path.read_text("utf-8")) for path in FILES]
    listed = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE.rpartition("| program ")[2], re.M)

    assert sorted(listed[1:]) == sorted((each["client"], each["version"]) for each in recordings)
