"""Models that outlive the proxy: `keepModels`, with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest
from tools.net import LONG_S, free_port, port_block, wait_until
from tools.swapchart_process import Journal, SwapchartProcess, demo_model, shell

pytestmark = pytest.mark.slow

HOOKS = {
    point: shell(f'echo {point} $SWAPCHART_INCARNATION >> "$JOURNAL"')
    for point in ("beforeStart", "afterHealthy", "beforeStop", "afterStop", "onFailure")
}


class Start(Protocol):
    """Starts a proxy in the folder of the one before."""

    def __call__(
        self, models: Mapping[str, Any], keep: object = True, *, wait: bool = True, **more: Any
    ) -> SwapchartProcess: ...


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Proxies one after another, with one configuration file and one state directory."""
    folder, port = tmp_path / "proxy", port_block(32)
    folder.mkdir()
    proxies: list[SwapchartProcess] = []

    def begin(
        models: Mapping[str, Any], keep: object = True, *, wait: bool = True,
        config: Mapping[str, Any] | None = None, **more: Any,
    ) -> SwapchartProcess:  # fmt: skip
        value = {"startPort": port, "keepModels": keep, "models": models, **(config or {})}
        proxies.append(SwapchartProcess(value, cwd=folder, **more))
        return proxies[-1].wait_listening() if wait else proxies[-1]

    try:
        yield begin
        for proxy in proxies:
            if proxy.process.poll() is None:
                proxy.note_guard()
                proxy.signal(signal.SIGINT)
                assert proxy.wait() == 0, proxy.output()
        for proxy in proxies:
            proxy.assert_clean()
    finally:
        for proxy in proxies:
            proxy.close()


def pid_of(proxy: SwapchartProcess, model: str = "a") -> int:
    return int(proxy.running()[model]["pid"])


def ended(proxy: SwapchartProcess, number: int = signal.SIGTERM) -> None:
    """Send a signal, and wait for the end of the proxy."""
    proxy.note_guard()
    proxy.signal(number)
    code = proxy.wait()
    assert code == (-number if number == signal.SIGKILL else 0), proxy.output()


def guard_of(proxy: SwapchartProcess) -> psutil.Process:
    (guard,) = [
        child
        for child in psutil.Process(proxy.pid).children()
        if any(item.endswith("guard_process.py") for item in child.cmdline())
    ]
    return guard


def log_of(proxy: SwapchartProcess, model: str = "a") -> str:
    return proxy.call("GET", f"/logs/stream/{model}?no-follow").body.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_model_outlives_the_proxy_and_is_adopted(
    start: Start, server: str, journal: Journal, number: int
) -> None:
    """The same process serves at once, its log goes on, and no hook of a start is run again."""
    models = {"a": journal.model("a", **HOOKS), "b": journal.model("b")}
    first = start(models, server=server)
    assert first.chat("a").status == 200
    pid = pid_of(first)
    ended(first, number)
    assert psutil.pid_exists(pid)
    second = start(models, server=server)
    began = time.monotonic()
    assert second.chat("a").status == 200
    took_s = time.monotonic() - began

    assert pid_of(second) == pid
    assert took_s < 1.0 + LONG_S * (psutil.getloadavg()[0] > 4)
    assert second.running()["a"]["incarnation"] == 1
    assert log_of(second).count("a says: started") == 1
    assert journal.words("^a started") == [f"a started {pid}"]
    assert second.chat("b").status == 200  # evicts it
    assert second.state("a") == "stopped"
    words = journal.words("^(before|after|on)[A-Z]")
    assert words == ["beforeStart 1", "afterHealthy 1", "beforeStop 1", "afterStop 1"]
    assert second.chat("a").status == 200
