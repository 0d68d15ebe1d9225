"""Proxies one after another, with one configuration and one state directory."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from . import raw
from .net import port_block
from .swapchart_process import SwapchartProcess, shell

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


def ended(
    proxy: SwapchartProcess, number: int = signal.SIGTERM, waiting: raw.Connection | None = None
) -> None:
    """Send a signal, and wait for the end of the proxy.

    Args:
        proxy: The proxy.
        number: The signal.
        waiting: Connection with a request that SIGTERM refuses; closed, since the server waits 2 s
            for an idle client.
    """
    proxy.note_guard()
    proxy.signal(number)
    if waiting is not None:
        assert number == signal.SIGKILL or waiting.read_answer().status == 503
        waiting.close()
    code = proxy.wait()
    assert code == (-number if number == signal.SIGKILL else 0), proxy.output()


def is_alive(pid: int) -> bool:
    """Return True if the process runs; nothing may reap it here."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def guard_of(proxy: SwapchartProcess) -> psutil.Process:
    (guard,) = [
        child
        for child in psutil.Process(proxy.pid).children()
        if any(item.endswith("guard_process.py") for item in child.cmdline())
    ]
    return guard


def log_of(proxy: SwapchartProcess, model: str = "a") -> str:
    return proxy.call("GET", f"/logs/stream/{model}?no-follow").body.decode()
