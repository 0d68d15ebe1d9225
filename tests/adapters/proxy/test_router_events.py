"""Routes of llama-server's router: events about models, and what is neither fetched nor deleted."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from tools.asgi import Bench, Call, run_proxied
from tools.net import wait_until_async

from swapchart.adapters.proxy.api import router_events
from swapchart.adapters.proxy.models.catalog import ModelCatalog
from swapchart.adapters.proxy.models.definitions import ModelDefinition, SelectorDefinition
from swapchart.adapters.proxy.options import EVERYTHING, ApiKey, ProxyOptions
from swapchart.runtime import Hook, RunAction, ServiceSpec

RELOAD = {"model": "*", "event": "models_reload"}
SOME = ProxyOptions(
    keys=(ApiKey(key="all"), ApiKey(key="some", models=("a",))), heartbeat_s=0.02
)  # fmt: skip


def events(call: Call) -> list[Any]:
    """Return the events that came so far; each is one line, and all else is a comment."""
    found = []
    for block in call.body.split(b"\n\n")[:-1]:
        assert b"\n" not in block
        if not block.startswith(b":"):
            assert block.startswith(b"data: ")
            found.append(json.loads(block[6:]))
    return found


def statuses(call: Call) -> list[tuple[str, str]]:
    return [(each["model"], each["data"]["status"]) for each in events(call) if "data" in each]


async def begun(bench: Bench, **headers: str) -> Call:
    call = bench.client.begin("GET", "/models/sse", headers=headers)
    await call.until(lambda call: call.messages)
    return call


def test_router_events_follow_each_load_and_unload() -> None:
    """Each change of the status is one event, and a client that connects later gets no past."""

    async def main(bench: Bench) -> None:
        call = await begun(bench)
        assert dict(call.headers)["content-type"] == "text/event-stream"
        await bench.supervisor.load("a")
        await bench.supervisor.load("b")  # evicts a
        late = await begun(bench)
        await bench.supervisor.unload("b", "test")
        await call.until(lambda call: len(events(call)) >= 6)

        assert statuses(call) == [
            ("a", "loading"), ("a", "loaded"), ("a", "unloaded"),
            ("b", "loading"), ("b", "loaded"), ("b", "unloaded"),
        ]  # fmt: skip
        assert events(call)[2] == {
            "model": "a", "event": "status_change", "data": {"status": "unloaded", "exit_code": 0},
        }  # fmt: skip
        await late.until(lambda call: events(call))
        assert statuses(late) == [("b", "unloaded")]
        for each in (call, late):
            each.leave()
            await each.task
        assert len(bench.app.proxy.listeners) == 0

    run_proxied(main)


def test_router_events_of_a_key_for_some_models_are_about_these() -> None:
    """Events about other models are not sent, and heartbeats keep the stream open."""

    async def main(bench: Bench) -> None:
        call = await begun(bench, **{"x-api-key": "some"})
        assert (await bench.client.call("GET", "/models/sse")).status == 401
        await bench.supervisor.load("b")
        await bench.supervisor.load("a")
        await call.until(lambda call: len(events(call)) >= 2)
        assert statuses(call) == [("a", "loading"), ("a", "loaded")]
        await call.until(lambda call: call.messages[-1] == b": nothing new\n\n")
        assert b'"b"' not in call.body
        call.leave()
        await call.task

    run_proxied(main, options=SOME)


def test_router_list_never_says_loaded_while_a_failed_start_is_cleaned_up() -> None:
    """The status is loading until the model has stopped, and loaded while a loaded one stops."""

    def slow(spec: ServiceSpec) -> ServiceSpec:
        last = (Hook(action=RunAction(argv=("sleep", "0.3"))),)
        argv = ("/no/such/program",) if spec.name == "a" else spec.command.argv
        return replace(
            spec, hooks={"afterStop": last, "onFailure": last},
            command=replace(spec.command, argv=argv),
        )  # fmt: skip

    async def main(bench: Bench) -> None:
        async def status(name: str) -> str:
            rows = (await bench.client.call("GET", "/models")).json()["data"]
            value: str = next(row["status"]["value"] for row in rows if row["id"] == name)
            return value

        seen, hooks = [], set()
        starting = asyncio.create_task(bench.client.chat("a"))
        while not starting.done():
            seen.append(await status("a"))
            hooks.add(bench.supervisor["a"].state)
            await asyncio.sleep(0.01)
        while "stopping" in bench.supervisor["a"].configuration:
            hooks.add(bench.supervisor["a"].state)
            seen.append(await status("a"))
            await asyncio.sleep(0.01)
        assert "on_failure" in hooks
        assert {*seen} <= {"unloaded", "loading"}
        assert "loading" in seen

        await bench.supervisor.load("b")
        stopping = asyncio.create_task(bench.supervisor.unload("b"))
        await wait_until_async(lambda: bench.supervisor["b"].state == "after_stop")
        assert await status("b") == "loaded"
        await stopping

    run_proxied(main, specs=slow)


def test_router_events_report_a_reload_and_end_with_the_key() -> None:
    """Another configuration is `models_reload`; a key that loses its rights ends the stream."""

    async def main(bench: Bench) -> None:
        proxy = bench.app.proxy
        call = await begun(bench, **{"x-api-key": "some"})
        whole = await begun(bench, **{"x-api-key": "all"})
        proxy.configure(ModelCatalog([ModelDefinition(id="a")]), SOME)
        await call.until(lambda call: events(call) == [RELOAD])
        without = ProxyOptions(keys=(ApiKey(key="all"),))
        proxy.configure(ModelCatalog([ModelDefinition(id="a")]), without)
        assert (await call.answer()).status == 200
        await whole.until(lambda call: events(call) == [RELOAD, RELOAD])
        proxy.end_streams()
        assert (await whole.answer()).status == 200

    run_proxied(main, options=SOME)


def test_router_events_of_a_slow_client_end_in_a_reload() -> None:
    """A client that reads too slowly is told to read the list again, and memory stays bounded."""

    async def main(bench: Bench) -> None:
        seen = router_events._StatusEvents(bench.app.proxy, EVERYTHING)
        stop = bench.supervisor.listen(seen.on_transition)
        for _ in range(600):
            seen._put(b"data: {}\n\n")
            seen._put(b"data: {}\n\n")
        await bench.supervisor.load("a")
        stop()
        data = await seen.take(1.0)

        assert len(data) < 20_000
        first, *others = [json.loads(part[6:]) for part in data.split(b"\n\n")[:-1]]
        assert first == RELOAD
        assert [each["data"]["status"] for each in others[-2:]] == ["loading", "loaded"]
        assert await seen.take(0.001) == b""

    run_proxied(main)


def test_router_dialect_downloads_and_deletes_nothing() -> None:
    """A download of a configured model has nothing to do; any other is 501 with the reason."""
    card = ModelDefinition(id="a", aliases=("org/x:Q4",))
    selectors = [SelectorDefinition(id="pick", strategy="pin", targets=("a",))]

    async def main(bench: Bench) -> None:
        call = bench.client.call
        keys = {"x-api-key": "all"}
        for name in ("a", "org/x:Q4", "pick"):
            answer = await call("POST", "/models", value={"model": name}, headers=keys)
            assert (answer.status, answer.json()) == (200, {"success": True})
        missing = await call("POST", "/models", value={"model": "org/new"}, headers=keys)
        assert (missing.status, missing.error()["code"]) == (501, "not_supported")
        assert missing.error()["type"] == "not_supported_error"
        assert "'org/new' is not configured" in missing.error()["message"]
        for target in ("/models", "/models?model=a", "/models?model=org/new"):
            answer = await call("DELETE", target, headers=keys)
            assert (answer.status, answer.error()["code"]) == (501, "not_supported")
            assert "deletes no files" in answer.error()["message"]
        bodies: tuple[object, ...] = ({}, {"model": ""}, {"model": 1}, [])
        for bad in bodies:
            answer = await call("POST", "/models", value=bad, headers=keys)
            assert answer.status == 400
        for method in ("POST", "DELETE"):  # its scope is infer
            headers = {"x-api-key": "some"}
            assert (await call(method, "/models", value={}, headers=headers)).status == 403
        assert bench.supervisor["a"].incarnation == 0

    run_proxied(main, card, options=SOME, selectors=selectors)


def test_router_dialect_of_a_key_for_some_models_names_no_other() -> None:
    """A key that may administer one model gets 403 for another one."""
    scopes = frozenset({"infer", "admin"})
    options = ProxyOptions(keys=(ApiKey(key="k", scopes=scopes, models=("a",)),))  # type: ignore[arg-type]

    async def main(bench: Bench) -> None:
        for name, status in (("a", 200), ("b", 403), ("c", 501)):
            headers = {"x-api-key": "k"}
            answer = await bench.client.call(
                "POST", "/models", value={"model": name}, headers=headers
            )
            assert answer.status == status

    run_proxied(main, options=options)
