"""The timeline of a real proxy: lanes, what a request waited for, and what a swap ran."""

from __future__ import annotations

import json
from pathlib import Path
from time import sleep, time
from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

ALL = "sk-all-0123456789"
ONLY_B = "sk-b-0123456789"


def last_minutes(count: int) -> str:
    """Return the path of a timeline that is fine enough for starts of a second."""
    return f"/api/timeline?from={round((time() - 60 * count) * 1000)}"


def keyed(proxy: SwapchartProcess, key: str) -> SwapchartProcess:
    proxy.headers = {"Authorization": f"Bearer {key}"}
    return proxy


_SEEN_S = 0.3  # shorter states are no part of the lanes of two minutes


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    """A proxy that has loaded a, and swapped to b for a request."""
    saving = {"run": ["sh", "-c", f"echo saved; echo the key is {ALL}"]}
    models: dict[str, Any] = {
        "a": demo_model("a", beforeStop=[saving]),
        "b": demo_model("b", beforeStart=[{"run": ["sh", "-c", "sleep 0.3; echo go"]}]),
        "fails": demo_model("fails") | {"cmd": "false ${PORT}"},
    }
    keys = [
        {"key": ALL, "scopes": ["infer", "admin"]},
        {"key": ONLY_B, "scopes": ["infer", "admin"], "models": ["b"]},
    ]
    found = keyed(serve_module(models, config={"apiKeys": keys}), ALL)
    assert found.call("POST", "/api/models/load/a", value={}).status == 200
    sleep(_SEEN_S)
    found.headers = {**found.headers, "X-Request-ID": "for-b"}
    assert found.chat("b").status == 200
    sleep(_SEEN_S)
    found.headers = {**found.headers, "X-Request-ID": "for-nothing"}
    assert found.chat("fails").status == 502
    keyed(found, ALL)
    wait_until(lambda: found.get("/api/metrics/activity")["total"] == 2, what="both requests")
    return found


def test_timeline_shows_which_model_was_resident_when(proxy: SwapchartProcess) -> None:
    """B starts after a has stopped; a failed start is a failure in its lane."""
    found = keyed(proxy, ALL).get(last_minutes(2))
    lanes = {lane["model"]: lane for lane in found["lanes"]}
    states = {name: [each["state"] for each in lane["states"]] for name, lane in lanes.items()}

    assert states["a"] == ["starting", "resident", "stopping"]
    assert states["b"][:2] == ["starting", "resident"]
    assert "failed" in states["fails"]
    assert lanes["a"]["states"][2]["until"] <= lanes["b"]["states"][0]["at"] + 1
    (answer,) = lanes["b"]["answering"]
    assert lanes["b"]["states"][1]["at"] <= answer["at"] + 100
    assert found["total_requests"] == 2


def test_request_says_in_one_record_what_it_waited_for(proxy: SwapchartProcess) -> None:
    """Resident and evicted models, the reason of the wait, and the time of each part."""
    keyed(proxy, ALL)
    (row,) = proxy.get("/api/metrics/activity?model=b")["data"]
    wait = row["wait"]

    assert (wait["resident"], wait["evicted"]) == (["a"], ["a"])
    assert [reason["why"] for reason in wait["reasons"]] == ["evicting a"]
    assert wait["hooks_ms"] >= 300
    parts = sum(wait[part] for part in ("queue_ms", "evict_ms", "start_ms", "hooks_ms"))
    assert abs(parts - row["wait_ms"]) < 0.2 * row["wait_ms"]
    (shown,) = [each for each in proxy.get("/api/timeline")["requests"] if each["model"] == "b"]
    assert (shown["hooks_ms"], shown["swap_id"]) == (wait["hooks_ms"], row["swap_id"])


def test_failed_start_keeps_its_wait(proxy: SwapchartProcess) -> None:
    """The request has no response of a model, but it did wait for its start."""
    keyed(proxy, ALL)
    (row,) = proxy.get("/api/metrics/activity?model=fails")["data"]

    assert row["wait"]["evicted"] == ["b"]
    assert row["wait"]["evict_ms"] + row["wait"]["start_ms"] > 0
    assert row["swap_id"]


def test_swap_names_its_cause_its_request_and_what_it_ran(proxy: SwapchartProcess) -> None:
    """One id from the request over the eviction and its hook to the start; no key is shown."""
    swaps = keyed(proxy, ALL).get("/api/timeline")["swaps"]
    assert [(each["cause"], each["request_id"], each["stopped"], each["started"], each["failed"])
            for each in swaps[:3]] == [
        ("load", "", [], ["a"], False),
        ("request", "for-b", ["a"], ["b"], False),
        ("request", "for-nothing", ["b"], ["fails"], True),
    ]  # fmt: skip
    details = proxy.get(f"/api/swaps/{swaps[1]['id']}")
    hooks = [hook for row in details["transitions"] for hook in row["hooks"]]

    assert {row["swap_id"] for row in details["transitions"]} == {swaps[1]["id"]}
    assert {row["service"] for row in details["transitions"]} == {"a", "b"}
    assert [(hook["point"], hook["output"]) for hook in hooks] == [
        ("beforeStop", "saved\n[REDACTED]"), ("beforeStart", "go"),
    ]  # fmt: skip
    assert [row["request_id"] for row in details["requests"]] == ["for-b"]
    assert ALL not in json.dumps(proxy.get("/api/models/a/history"))


def test_key_for_one_model_sees_its_part_of_the_timeline(proxy: SwapchartProcess) -> None:
    """Neither lanes nor swaps, hooks or reasons name a model of others."""
    swaps = keyed(proxy, ALL).get("/api/timeline")["swaps"]
    found = keyed(proxy, ONLY_B).get("/api/timeline")
    details = proxy.get(f"/api/swaps/{swaps[1]['id']}")

    assert [lane["model"] for lane in found["lanes"]] == ["b"]
    assert {row["service"] for row in details["transitions"]} == {"b"}
    wait = details["requests"][0]["wait"]
    assert (wait["resident"], wait["evicted"]) == ([], [])
    assert wait["reasons"][0]["why"] == "evicting (another model)"
    assert proxy.call("GET", f"/api/swaps/{swaps[0]['id']}").status == 404


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("from=soon", 400, "from: expected milliseconds since 1970 or a time"),
        ("from=2000&to=1000", 400, "expected `from` before `to`"),
        ("from=1&to=9999999999999", 400, "expected at most 31 days"),
        ("from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z", 200, ""),
    ],
)
def test_timeline_span_is_checked(
    proxy: SwapchartProcess, query: str, status: int, text: str
) -> None:
    answer = keyed(proxy, ALL).call("GET", f"/api/timeline?{query}")

    assert answer.status == status
    assert text in answer.body.decode()


def test_timeline_goes_on_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    """Rows of an earlier run are shown beside those of the new one, with other ids."""
    models, options = {"a": demo_model("a")}, ("--state-dir", str(tmp_path / "state"))
    since = round(time() * 1000)  # short, so that no interval is too short
    first = serve(models, options=options)
    assert first.chat("a").status == 200
    first.stop()
    again = serve(models, options=options)
    assert again.chat("a").status == 200
    found = again.get(f"/api/timeline?from={since}")

    (lane,) = found["lanes"]
    assert [each["state"] for each in lane["states"]].count("resident") == 2
    assert len({swap["id"] for swap in found["swaps"]}) == len(found["swaps"]) >= 3
    assert "shutdown" in {swap["cause"] for swap in found["swaps"]}
