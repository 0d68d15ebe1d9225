"""Blocks of docs/recipes.md, and the programs that they are for."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from . import raw
from .children import Child
from .net import wait_until
from .swapchart_process import CHAT, chat_body, demo_model

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text("utf-8")
KEY = {"Authorization": "Bearer sk-example"}
_ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_ECHO = str(Path(__file__).with_name("websocket_model.py"))
_RATE = 20.0  # tokens a second: a buffer of a reverse proxy would fill after minutes
_MARKER = "SWAPCHART_RECIPE"


def blocks(heading: str, language: str) -> list[str]:
    """Return the blocks of *language* in the section *heading* of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, f"docs/recipes.md has no block of {language} below {heading}"
    return found


def configuration() -> dict[str, Any]:
    """Return the configuration of the page, with demo servers, and a model that echoes."""
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(text)
    for name in config["models"]:
        config["models"][name] = demo_model(name, rate=_RATE)
    config["models"]["echo"] = {"cmd": [sys.executable, _ECHO, "${PORT}"]}
    for model in config["models"].values():
        model["proxy"] = "http://127.0.0.1:${PORT}"
    return config


def program(name: str, *places: str) -> str:
    """Return the path of the program *name*; skip the test where it is not installed.

    Args:
        name: Name on the path.
        places: Where .ci/recipes or .ci/clients install it, from the root of the project.
    """
    own = (str(_ROOT / place) for place in places)
    found = next(filter(None, map(shutil.which, (name, *own))), None)
    if found is None:
        pytest.skip(f"{name} is not installed; .ci/recipes and ./dev clients install programs")
    return found


def replaced(text: str, **changes: str) -> str:
    """Return *text* with other values for what a test cannot use as it is printed.

    Args:
        text: A block.
        changes: Name -> new value; the old ones are those of the page.
    """
    old = {
        "listens": "127.0.0.1:8000", "proxy": "127.0.0.1:8080", "config": "/etc/swapchart.yaml",
        "command": "/usr/local/bin/swapchart", "state": "/var/lib/swapchart",
        "log": "/var/log/swapchart.log",
    }  # fmt: skip
    for name, value in changes.items():
        assert old[name] in text, f"{old[name]} is not in the block"
        text = text.replace(old[name], value)
    return text


def check_stream(port: int, prefix: str = "", key: Mapping[str, str] = KEY) -> None:
    """Check that tokens of an endless stream come through one by one."""
    with raw.Connection(port) as connection:
        body = chat_body("chat", 100_000, stream=True, ignore_eos=True)
        connection.request("POST", prefix + CHAT, value=body, headers=key)
        head = connection.read_head()
        assert head.status == 200, head
        for _ in range(5):
            assert connection.read_chunk().count(b"data:") < 10


def check_websocket(port: int, prefix: str = "") -> None:
    """Check that a websocket to a model echoes a message."""
    from websockets.sync.client import connect

    address = f"ws://127.0.0.1:{port}{prefix}/upstream/echo/x"
    with connect(address, proxy=None, additional_headers=KEY) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"


def check_body(port: int, prefix: str = "") -> None:
    """Check that a request of 8 MiB comes through."""
    body = chat_body("chat", 1, padding="x" * (8 << 20))
    assert raw.call(port, "POST", prefix + CHAT, value=body, headers=KEY).status == 200


@contextmanager
def running(argv: Sequence[str], folder: Path, port: int, **env: str) -> Iterator[Child]:
    """Run a program in the foreground while the block lasts; it listens at *port*."""
    with Child(argv, cwd=folder, port=port, env=env) as child:
        wait_until(
            lambda: child.process.poll() is not None or _is_open(port),
            what=lambda: f"{argv[0]} listens: {child.output()}",
        )
        assert child.process.poll() is None, child.output()
        yield child


def _is_open(port: int) -> bool:
    with suppress(OSError), raw.Connection(port):
        return True
    return False


class Managed:
    """What a process manager has started, found by a variable that all of it inherits."""

    def __init__(self) -> None:
        self.env = {_MARKER: secrets.token_hex(8)}
        self._guards: list[psutil.Process] = []

    def processes(self, text: str = "") -> list[psutil.Process]:
        """Return the processes that live, by a part of their command line."""
        found = [guard for guard in self._guards if guard.is_running()]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARKER) == self.env[_MARKER]:
                    found.append(process)
        return [process for process in found if _is_alive(process, text)]

    def note_guard(self) -> None:
        """Note the guard process of swapchart, whose environment is empty."""
        for process in self.processes("swapchart"):
            for child in process.children():
                if _is_alive(child, "guard_process.py"):
                    self._guards.append(child)
        assert self._guards

    def kill(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


def _is_alive(process: psutil.Process, text: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        command = " ".join(process.cmdline())
        return text in command.replace(str(_ROOT), "")  # which may be named like what is sought
    except psutil.Error:
        return False


def run(*argv: str, **env: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        argv, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
