"""Starts and swaps of small servers: by hand, and through a proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .processes import Process, bytecode_env, free_ports

INSTANT = Path(__file__).resolve().parent / "instant.py"
_CHAT = "/v1/chat/completions"
_NAMES = ("first", "second")
#: Between two requests for a state, seconds; without a pause, asking takes the CPU of a start.
PAUSE_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to be started.

    Attributes:
        name: As the table shows it.
        argv: Its command; ``${PORT}`` stands for the port.
        env: Variables that it needs.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def instant(notes: Path, *options: str) -> Server:
    """Return the server that takes no time."""
    argv = [sys.executable, "-I", "-S", str(INSTANT), "--port", "${PORT}", "--notes", str(notes)]
    return Server(name="instant", argv=(*argv, *options))


def llama(folder: Path) -> Server:
    """Return a real llama-server with a tiny model.

    Raises:
        SystemExit: There is none that this machine can run.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from tools.llama import find_llama
    from tools.make_tiny_gguf import write_tiny_gguf

    model = write_tiny_gguf(folder / "tiny.gguf")
    server, why_not = find_llama(model, folder)
    if server is None:
        raise SystemExit(why_not)
    argv = server.argv(model, 0)
    argv[argv.index("--port") + 1] = "${PORT}"
    return Server(name=f"llama-server ({server.name})", argv=tuple(argv), env=server.env)


def ask(port: int, method: str, target: str, value: object = None) -> bytes:
    """Make one request on a connection of its own; it must succeed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, target, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {target}: {answer.status} {data!r}")
        return data
    finally:
        connection.close()


def chat(port: int, model: str) -> None:
    """Ask *model* for one token."""
    messages = [{"role": "user", "content": "hello"}]
    ask(port, "POST", _CHAT, {"model": model, "messages": messages, "max_tokens": 1})


# ---- by hand
class ByHand:
    """Starts and ends the server directly; a context manager."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def start(self) -> None:
        """Start one and ask it once."""
        port = free_ports(1)
        argv = [word.replace("${PORT}", str(port)) for word in self._server.argv]
        self._running = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **bytecode_env(), **self._server.env}, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
                ask(port, "GET", "/health")
                break
            if time.monotonic() > end:
                raise TimeoutError("not healthy within 60 s")
            time.sleep(PAUSE_S)
        chat(port, "any")

    def end(self) -> None:
        """Terminate the one that runs and wait for its end."""
        running, self._running = self._running, None
        if running is not None:
            running.terminate()
            running.wait()

    def swap(self) -> None:
        """End the one that runs, start another."""
        self.end()
        self.start()


# ---- through a proxy
def swapchart_argv(python: str, config: Path, port: int) -> list[str]:
    """Return the command that serves *config* by swapchart, which keeps its state beside it."""
    return [
        python, "-m", "swapchart", "serve", "--config", str(config),
        "--listen", f"127.0.0.1:{port}", "--state-dir", str(config.parent / "state"),
    ]  # fmt: skip


class Proxied:
    """Starts and swaps through a proxy; a context manager.

    Args:
        server: Server of both models, or of the first one.
        folder: Where the proxy keeps its files.
        command: The command that serves a configuration at a port.
        second: Server of the second model; None means the same.
        keys: Further keys of both models.
        top: Further keys of the configuration.
    """

    def __init__(
        self, server: Server, folder: Path,
        command: Callable[[Path, int], list[str]] | None = None, *,
        second: Server | None = None, keys: Mapping[str, object] | None = None,
        top: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        first = free_ports(8)
        self._port = first + 7
        models = {
            name: {
                "cmd": shlex.join(each.argv),
                "proxy": "http://127.0.0.1:${PORT}",
                "env": [f"{variable}={value}" for variable, value in each.env.items()],
                **(keys or {}),
            }
            for name, each in zip(_NAMES, (server, second or server), strict=True)
        }
        config = {"startPort": first, "models": models, **(top or {})}
        folder.mkdir(parents=True)
        path = folder / "config.yaml"
        path.write_text(json.dumps(config))
        argv = (command or partial(swapchart_argv, sys.executable))(path, self._port)
        self._process = Process(argv, folder)
        self._is_second = False
        self.swapped_at = 0.0

    def __enter__(self) -> Proxied:
        self._process.wait_answering(self._port)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stop()

    def start(self) -> None:
        """Ask a model that is stopped, nothing else being up."""
        self._is_second = False
        chat(self._port, _NAMES[0])

    def swap(self) -> None:
        """Ask the model that is not up."""
        self._is_second = not self._is_second
        name = _NAMES[self._is_second]
        if name in self._up():
            raise RuntimeError(f"{name} is up already: nothing would be swapped")
        chat(self._port, name)

    def swap_during_a_stop(self) -> None:
        """Unload the model that is up, and ask the other one at once."""
        name = _NAMES[self._is_second]
        with ThreadPoolExecutor(1) as pool:
            unloading = pool.submit(ask, self._port, "POST", f"/api/models/unload/{name}")
            while self._state(name) == "ready":
                time.sleep(PAUSE_S)
            self._is_second = not self._is_second
            chat(self._port, _NAMES[self._is_second])
            self.swapped_at = time.perf_counter()
            unloading.result()

    def _state(self, name: str) -> str:
        rows = json.loads(ask(self._port, "GET", "/running"))["running"]
        return next((row["state"] for row in rows if row["model"] == name), "stopped")

    def _up(self) -> list[str]:
        return [row["model"] for row in json.loads(ask(self._port, "GET", "/running"))["running"]]

    def end(self) -> None:
        """Unload everything and wait for it."""
        ask(self._port, "POST", "/api/models/unload")
        end = time.monotonic() + 60
        while self._up():
            if time.monotonic() > end:
                raise TimeoutError("still running 60 s after an unload")


def timed(action: Callable[[], None]) -> float:
    """Return how long *action* takes; milliseconds."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000
