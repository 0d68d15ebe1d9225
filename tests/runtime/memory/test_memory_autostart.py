"""Starts at the beginning with memory: in the order of the services, as far as there is room."""

from __future__ import annotations

import logging

import anyio
import pytest

from swapchart.runtime import MemoryLedger, Supervisor
from swapchart.runtime.autostart import reason_against
from swapchart.runtime.eviction import no_evictions
from swapchart.runtime.memory import MemoryNeed, Pool
from swapchart.runtime.testing import ScriptedLauncher, ServerScript, run_virtual, service

from .cases import GIB


def test_autostart_with_memory_starts_in_order_what_fits_and_says_the_sum_of_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    needs = {"a": 12, "b": 14, "c": 9, "d": 30}
    launcher = ScriptedLauncher({name: ServerScript(healthy_s=3.0) for name in needs})
    specs = [
        service(
            name, endpoint=f"http://127.0.0.1:{5800 + ord(name)}", autostart=True,
            memory=MemoryNeed(options=({"GPU0": gib * GIB},)),
        )
        for name, gib in needs.items()
    ]  # fmt: skip
    ledger = MemoryLedger([Pool(name="GPU0", capacity=24 * GIB, reserve=GIB)])

    async def main() -> None:
        async with Supervisor(launcher, specs, policy=no_evictions, memory=ledger) as supervisor:
            await anyio.sleep(10.0)
            states = {life.spec.name: life.state for life in supervisor.lifecycles()}
            assert states == {"a": "ready", "b": "stopped", "c": "ready", "d": "stopped"}
            now = anyio.current_time()
            assert reason_against(supervisor.scheduler, "a", now) == ""
            assert reason_against(supervisor.scheduler, "b", now).endswith("a (12.0 GiB) must go")
        launcher.assert_ended()

    with caplog.at_level(logging.WARNING):
        run_virtual(main)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("b does not start at the beginning: GPU0: 24.0 GiB - 1.0 GiB reserve")
    assert "11.0 GiB free, 14.0 GiB needed" in said[0]
    assert said[1].startswith("d failed to start at the beginning: d does not fit: ")
    assert len(said) == 2
