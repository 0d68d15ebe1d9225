"""GET /health/readiness: the state of models, without loading one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from tools.asgi import Bench, Received, run_proxied

from swapchart.adapters.proxy.models.definitions import ModelDefinition
from swapchart.adapters.proxy.options import ApiKey, ProxyOptions
from swapchart.runtime import Command

READINESS = "/health/readiness"


async def ask(bench: Bench, model: str = "", **headers: str) -> tuple[int, Any]:
    """Return status and body of the readiness of *model*, by default of all."""
    target = f"{READINESS}/{model}" if model else READINESS
    answer = await bench.client.call("GET", target, headers=headers)
    return answer.status, answer.json()


def test_readiness_of_models_loads_none() -> None:
    """A stopped model accepts requests, a loaded one is loaded, and asking starts nothing."""

    async def main(bench: Bench) -> None:
        stopped = {
            "model": "a", "state": "stopped", "accepts": True, "loaded": False, "why": "",
            "cause": "",
        }  # fmt: skip
        for _ in range(3):
            assert await ask(bench, "a2") == (200, stopped)
            assert await ask(bench, "a") == (200, stopped)
        assert bench.supervisor["a"].incarnation == 0
        assert bench.server.received == []
        await bench.client.chat("a")
        ready = {**stopped, "state": "ready", "loaded": True, "cause": "no check configured"}
        assert await ask(bench, "a") == (200, ready)
        assert await ask(bench) == (
            200,
            {"status": "ready", "models": [ready, {**stopped, "model": "b"}]},
        )
        status, body = await ask(bench, "x")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert bench.supervisor["b"].incarnation == 0

    run_proxied(main, ModelDefinition(id="a", aliases=("a2",)), "b")


def test_readiness_of_a_model_whose_requests_are_refused_is_503() -> None:
    """A tripped circuit breaker, and a pinned model in the way, are not ready; why says so."""

    async def main(bench: Bench) -> None:
        assert (await bench.client.chat("broken")).status == 502
        status, body = await ask(bench, "broken")
        refused = await bench.client.call("POST", "/v1/completions", value={"model": "broken"})
        assert (status, body["state"], body["accepts"], body["loaded"]) == (
            503, "failed", False, False,
        )  # fmt: skip
        assert refused.error()["message"].startswith(body["why"])
        assert body["why"]
        await bench.client.chat("a")
        bench.supervisor.scheduler.services["a"].is_pinned = True
        status, body = await ask(bench, "b")
        assert (status, body["state"]) == (503, "stopped")
        assert body["why"] == "b cannot run beside a, which is pinned"
        status, body = await ask(bench)
        assert (status, body["status"]) == (200, "ready")
        assert [row["accepts"] for row in body["models"]] == [True, False, False]

    run_proxied(
        main, "a", "b", "broken",
        specs=lambda spec: spec if spec.name != "broken" else replace(
            spec, command=Command(argv=("/does/not/exist",), label="a"), intensity=1
        ),
    )  # fmt: skip


def test_readiness_of_a_model_at_its_limit_is_200() -> None:
    """A request that is refused only because others run is no sign of a failure."""

    async def hold(received: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await asyncio.Event().wait()

    async def main(bench: Bench) -> None:
        bench.server.respond = hold
        held = bench.client.begin("POST", "/v1/completions", value={"model": "a"})
        await held.until(lambda c: c.messages)
        bench.supervisor.scheduler.services["a"].limit = 1
        status, body = await ask(bench, "a")
        explained = await bench.client.call("GET", "/api/models/a/explain")
        assert explained.json()["outcome"] == "reject"
        assert (status, body["state"], body["accepts"], body["why"]) == (200, "ready", True, "")
        held.leave()
        await held.task

    run_proxied(main, "a")


def test_readiness_is_about_the_models_of_the_key() -> None:
    """Without a key it is 401; a key for some models sees these only, also in the reasons."""

    async def main(bench: Bench) -> None:
        own, every = {"authorization": "Bearer own"}, {"authorization": "Bearer every"}
        for model in ("", "b"):
            assert (await ask(bench, model))[0] == 401
        assert (await bench.client.call("GET", "/health")).status == 200
        await bench.client.chat("a", headers=every)
        bench.supervisor.scheduler.services["a"].is_pinned = True
        status, body = await ask(bench, **own)
        assert (status, [row["model"] for row in body["models"]]) == (200, ["b"])
        assert body["models"][0]["why"] == "b cannot run beside (another model), which is pinned"
        assert (await ask(bench, "a", **own))[0] == 403
        assert (await ask(bench, "b", **own))[0] == 503
        assert [row["model"] for row in (await ask(bench, **every))[1]["models"]] == ["a", "b"]

    keys = (ApiKey(key="own", models=("b",)), ApiKey(key="every"))
    run_proxied(main, options=ProxyOptions(keys=keys))
