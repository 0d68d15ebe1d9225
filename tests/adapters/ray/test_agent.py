"""The agent of a node, without Ray: starts that are given up at any moment."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tools.net import LONG_S, wait_until_async

from swapchart.adapters.ray.node import agent as module
from swapchart.adapters.ray.node import tree_guard
from swapchart.adapters.ray.node.agent import Agent
from swapchart.adapters.ray.node.child import GuardServer

pytestmark = [
    pytest.mark.anyio, pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: needs Linux"),
]  # fmt: skip
OWNER = {"id": "first"}


class Reservations:
    """Reservations of Ray.

    Attributes:
        is_waiting: One is asked for.
        decided: Whether they are granted, once that is set.
        granted: The result.
        freed: Those that were given back.
    """

    def __init__(self) -> None:
        self.is_waiting, self.decided = threading.Event(), threading.Event()
        self.granted = True
        self.freed: list[object] = []

    def reserve(self, node_id: str, amounts: object, wait_s: float) -> tuple[object, str]:
        self.is_waiting.set()
        assert self.decided.wait(LONG_S)
        return ("group" if self.granted else None), "others hold it"

    async def waits(self) -> None:
        await wait_until_async(self.is_waiting.is_set)


@pytest.fixture
def reservations(monkeypatch: pytest.MonkeyPatch) -> Reservations:
    found = Reservations()
    monkeypatch.setattr(module, "reserve", found.reserve)
    monkeypatch.setattr(module, "free", found.freed.append)
    return found


@pytest.fixture
async def agent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Agent]:
    """An agent that belongs to `OWNER`, and that does not end this process."""
    monkeypatch.setattr(module, "exit_with", lambda _: None)
    source = inspect.getsource(tree_guard)
    found = Agent("tests", "box1", "n", "127.0.0.1", source)
    found._has_swept = True
    await found.hello(OWNER, "")
    yield found
    for task in found._tasks:
        task.cancel()
    found._server.close()


def facts(folder: Path, **more: Any) -> dict[str, Any]:
    """Return a command that leaves a file behind."""
    return {
        "id": "m#1@x", "label": "m", "incarnation": 1, "env": {}, "cwd": str(folder), "gpus": [],
        "argv": ["sh", "-c", "touch started; exec sleep 600"], "reserve": {"VRAM_0": 1.0},
        "wait_s": 0.0, "grace_s": 0.0, "lease_s": 0.0, "is_hook": False, **more,
    }  # fmt: skip


async def test_start_that_is_given_up_while_it_reserves_leaves_nothing(
    agent: Agent, reservations: Reservations, tmp_path: Path
) -> None:
    """Ray grants the reservation afterwards: it is given back, and nothing is started."""
    start = asyncio.create_task(agent.start("first", facts(tmp_path)))
    await reservations.waits()
    await agent.forget("m#1@x")
    reservations.decided.set()
    answer = await asyncio.wait_for(start, LONG_S)

    assert answer["error"] == "engine"
    assert reservations.freed == ["group"]
    assert not (tmp_path / "started").exists()
    assert agent._children == {}


@pytest.mark.parametrize("is_granted", [True, False])
async def test_proxy_that_ends_while_a_start_reserves_does_not_keep_the_next_one_waiting(
    agent: Agent, reservations: Reservations, tmp_path: Path, is_granted: bool
) -> None:
    """The next proxy waits for processes that end, and there is none."""
    start = asyncio.create_task(agent.start("first", facts(tmp_path)))
    await reservations.waits()
    await agent.release("first")
    reservations.granted = is_granted
    reservations.decided.set()
    answer = await asyncio.wait_for(start, LONG_S)
    next_one = await asyncio.wait_for(agent.hello({"id": "second"}, ""), LONG_S)

    assert answer["error"] == ("engine" if is_granted else "placement")
    assert next_one["processes"] == []
    assert not (tmp_path / "started").exists()


async def test_start_that_is_given_up_before_its_guard_responds_ends(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent serves a limited number of calls at a time, so none may wait for ever."""
    asked = asyncio.Event()
    monkeypatch.setattr(GuardServer, "spawn", lambda *_: asked.set())
    start = asyncio.create_task(agent.start("first", facts(tmp_path, reserve={})))
    await asked.wait()
    await agent.forget("m#1@x")

    assert (await asyncio.wait_for(start, LONG_S))["error"] == "engine"
