"""``swapchart serve`` as a process of its own, and proof that it leaves nothing behind.

Everything that a proxy starts inherits a marker from it, so nothing can hide by leaving its group
or session. What has cleared its environment is found by its working directory; the guard has
neither and is noted while it runs.
"""

from __future__ import annotations

import json
import re
import secrets
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psutil

from . import raw
from .children import Child
from .net import LONG_S, port_block, wait_until

CHAT = "/v1/chat/completions"
_MARKER = "SWAPCHART_TEST"
_URL = re.compile(r"(?:listens|[Rr]unning) on http://127\.0\.0\.1:(\d+)")
_TROUBLE = re.compile(  # an open circuit breaker is an error of the model that a test breaks
    r"Traceback|never retrieved|was never awaited|does not handle|ERROR(?!.*event=tripped)"
)


class SwapchartProcess(Child):
    """A running proxy; a context manager that kills it and whatever is left of it.

    Args:
        config: The configuration, or its text.
        cwd: An empty folder; the configuration is written into it.
        server: ``hypercorn`` or ``uvicorn``; with `` --stock`` behind it, by its own HTTP layer.
        options: Further options of ``serve``.
        argv: The whole command instead; gets the configuration by SWAPCHART_CONFIG.
        env: Further variables.
        sock: Listening socket that it gets as systemd passes one.

    Attributes:
        marker: In the environment of every process that it starts.
        folder: Its working directory.
        may_log: What may stand in its log without being trouble.
        headers: Fields of requests that name none of their own, such as a key.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str,
        *,
        cwd: Path,
        server: str = "hypercorn",
        options: Sequence[str] = (),
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        self.folder = cwd
        self.marker = secrets.token_hex(8)
        self.may_log = ""
        self.headers: Mapping[str, str] = {}
        self._guards: set[psutil.Process] = set()
        path = cwd / "config.yaml"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        if argv is None:
            argv = [
                sys.executable, "-m", "swapchart", "serve", "--config", str(path),
                "--listen", "127.0.0.1:0", "--server", *server.split(), *options,
            ]  # fmt: skip
        variables = {
            _MARKER: self.marker, "SWAPCHART_CONFIG": str(path),
            "SWAPCHART_STATE_DIR": str(cwd / "state"), **(env or {}),
        }  # fmt: skip
        fds = [] if sock is None else [sock.fileno()]
        if sock is not None:
            script = f'exec 3<&{sock.fileno()}; export LISTEN_PID=$$; exec "$@"'
            argv = ["bash", "-c", script, "-", *argv]
            variables |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "swapchart.socket"}
        super().__init__(argv, cwd=cwd, env=variables, pass_fds=fds)

    # ---- beginning and end
    def wait_listening(self, timeout_s: float = LONG_S) -> SwapchartProcess:
        """Wait until it answers.

        Raises:
            TimeoutError: It does not, or it has ended.
        """
        wait_until(self._is_listening, timeout_s, what="listening or ended")
        if self.process.poll() is not None:
            raise TimeoutError(f"ended with {self.process.returncode}:\n{self.output()}")
        return self

    def _is_listening(self) -> bool:
        if self.process.poll() is not None:
            return True
        if not self.port:
            found = _URL.search(self.output())
            self.port = int(found[1]) if found else 0
        return bool(self.port) and raw.status(self.port) == 200

    def wait_said(self, text: str, timeout_s: float = LONG_S) -> int:
        """Wait until *text* stands in its output; returns how often it does.

        Its log is written by a thread, so a response may come before the line about it.
        """
        return wait_until(lambda: self.output().count(text), timeout_s, what=f"{text!r} in the log")

    def stop(self, timeout_s: float = LONG_S) -> int:
        """Ask it to end and wait for that; returns the exit code."""
        self.note_guard()
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def note_guard(self) -> None:
        """Note its guard process, which carries no marker, for `leftovers`."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                if any(item.endswith("guard_process.py") for item in child.cmdline()):
                    self._guards.add(child)

    def leftovers(self) -> list[psutil.Process]:
        """Find what it started and what still lives; itself and zombies left out."""
        found = [process for process in self._guards if _is_alive(process)]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != self.pid and self._has_started(process):
                    found += [process] if _is_alive(process) else []
        return found

    def _has_started(self, process: psutil.Process) -> bool:
        environment = process.environ()
        if environment.get(_MARKER) == self.marker:
            return True
        return not environment and Path(process.cwd()).is_relative_to(self.folder)

    def find(self, text: str) -> list[psutil.Process]:
        """Find what it started, by a part of the command line."""
        found = []
        for process in self.leftovers():
            with suppress(psutil.Error):
                found += [process] if text in " ".join(process.cmdline()) else []
        return found

    def assert_clean(self, timeout_s: float = LONG_S) -> None:
        """Check that it has ended, left no process behind, and logged no trouble."""
        assert self.process.poll() is not None, "it still runs"
        wait_until(
            lambda: not self.leftovers(), timeout_s, what=lambda: f"none of {self.leftovers()}"
        )
        trouble = [
            line for line in self.output().splitlines()
            if _TROUBLE.search(line) and not (self.may_log and re.search(self.may_log, line))
        ]  # fmt: skip
        assert not trouble, self.output()

    def close(self) -> None:
        """Kill it and whatever is left of it."""
        self.process.kill()
        self.process.wait()
        for process in self.leftovers():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        super().close()

    # ---- requests
    def call(self, method: str, target: str, **more: Any) -> raw.Answer:
        """Make one request; see ``raw.call``."""
        given = {"timeout_s": LONG_S, "headers": self.headers, **more}
        return raw.call(self.port, method, target, **given)

    def get(self, target: str) -> Any:
        """Return the JSON value of a GET that must succeed."""
        answer = self.call("GET", target)
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()

    def chat(self, model: str, limit: int = 2, **more: object) -> raw.Answer:
        """Ask *model* for *limit* tokens."""
        return self.call("POST", CHAT, value=chat_body(model, limit, **more))

    def open_chat(self, model: str, limit: int = 2, **more: object) -> raw.Connection:
        """Ask *model*, and return the connection without waiting for anything."""
        connection = raw.Connection(self.port, timeout_s=LONG_S)
        connection.request("POST", CHAT, value=chat_body(model, limit, **more))
        return connection

    def open_stream(self, model: str, limit: int = 100_000) -> raw.Connection:
        """Open a stream that goes on until *limit* tokens; returns after its first piece."""
        connection = self.open_chat(model, limit, stream=True, ignore_eos=True)
        head = connection.read_head()
        assert head.status == 200, head
        assert connection.read_chunk()
        return connection

    def unload(self, model: str = "") -> raw.Answer:
        """Unload *model*, or all."""
        return self.call("POST", f"/api/models/unload{'/' if model else ''}{model}")

    # ---- facts
    def running(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``/running`` by model."""
        return {row["model"]: row for row in self.get("/running")["running"]}

    def state(self, model: str) -> str:
        """Return the innermost state of *model*; ``stopped`` when it is not running."""
        row = self.running().get(model)
        return row["configuration"][-1] if row else "stopped"

    def wait_state(self, model: str, *states: str, timeout_s: float = LONG_S) -> None:
        """Wait until *model* is in one of *states*."""
        wait_until(
            lambda: self.state(model) in states,
            timeout_s,
            what=lambda: f"{model} in {' or '.join(states)}, not in {self.state(model)}",
        )

    def wait_idle(self, model: str, timeout_s: float = LONG_S) -> None:
        """Wait until no request is in flight at *model*, and none waits for it."""
        wait_until(
            lambda: self._busy(model) == (0, 0),
            timeout_s,
            what=lambda: f"{model} idle: {self._busy(model)}",
        )

    def wait_busy(self, model: str, *, in_flight: int = 0, waiting: int = 0) -> None:
        """Wait until so many requests are in flight at *model* and wait for it."""
        wanted = (in_flight, waiting)
        wait_until(
            lambda: self._busy(model) == wanted,
            LONG_S,
            what=lambda: f"{model} has {wanted}, not {self._busy(model)}",
        )

    def _busy(self, model: str) -> tuple[int, int]:
        row = self.running().get(model)
        return (row["in_flight"], row["waiting"]) if row else (0, 0)

    def log_of(self, model: str, query: str = "") -> LogReader:
        """Open the log stream of *model*, history first unless *query* says otherwise."""
        return LogReader(self.port, f"/logs/stream/{quote(model)}{query}")


class Serve(Protocol):
    """Starts a proxy and waits until it answers."""

    def __call__(
        self, models: Mapping[str, Any] | None = None, /, *, wait: bool = True, **more: Any
    ) -> SwapchartProcess: ...


class Proxies:
    """All proxies of one test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.all: list[SwapchartProcess] = []

    def serve(
        self, models: Mapping[str, Any] | None = None, /, *, wait: bool = True,
        config: Mapping[str, Any] | str | None = None, **more: Any,
    ) -> SwapchartProcess:  # fmt: skip
        """Start a proxy for *models*; *config* holds further keys, or is the whole text."""
        folder = self._folder / f"proxy{len(self.all)}"
        folder.mkdir()
        if not isinstance(config, str):
            config = {"startPort": port_block(), "models": models or {}, **(config or {})}
        proxy = SwapchartProcess(config, cwd=folder, **more)
        self.all.append(proxy)
        return proxy.wait_listening() if wait else proxy

    def end(self) -> None:
        """Stop those that still run; each must end with code 0 and leave nothing behind."""
        for proxy in self.all:
            if proxy.process.poll() is None:
                code = proxy.stop()
                assert code == 0, proxy.output()
            proxy.assert_clean()

    def close(self) -> None:
        """Kill what is left, whatever happened."""
        for proxy in self.all:
            proxy.close()


class Edited:
    """A proxy whose configuration is edited."""

    def __init__(self, serve: Serve, models: dict[str, Any], *options: str, **keys: Any) -> None:
        self.value = {"startPort": port_block(32), "models": models, **keys}
        self.proxy: SwapchartProcess = serve(config=self.value, options=options)
        self.path = self.proxy.folder / "config.yaml"

    def write(self) -> None:
        """Save what `value` holds now, as an editor does: at once."""
        new = self.path.with_name("new")
        new.write_text(json.dumps(self.value))
        new.replace(self.path)

    def reload(self) -> dict[str, Any]:
        """Save and reload; returns the report, which must be good."""
        self.write()
        answer = self.proxy.call("POST", "/api/config/reload")
        assert answer.status == 200, answer.body
        report: dict[str, Any] = answer.json()
        return report

    def changes(self) -> dict[str, str]:
        """Reload as `reload` does; return id -> change of each model that changed."""
        return {row["id"]: row["change"] for row in self.reload()["plan"]["models"]}

    def reloads(self) -> int:
        """Return how many reloads there were."""
        return int(self.proxy.get("/api/config")["reloads"])

    def pid(self, model: str) -> int:
        """Return the process id of *model*."""
        return int(self.proxy.running()[model]["pid"])


class LogReader:
    """The log of one model as it streams; a context manager."""

    def __init__(self, port: int, target: str) -> None:
        self._connection = raw.Connection(port, timeout_s=LONG_S)
        self._connection.request("GET", target)
        self.head = self._connection.read_head()
        self.text = ""

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def read_until(self, pattern: str) -> re.Match[str]:
        """Read on until *pattern* was seen.

        Raises:
            TimeoutError: Nothing came for too long.
        """
        while not (found := re.search(pattern, self.text)):
            self.read_more()
        return found

    def read_more(self) -> None:
        """Read the next piece."""
        self.text += self._connection.read_chunk().decode("utf-8", "replace")


def chat_body(model: str, limit: int = 2, **more: object) -> dict[str, object]:
    """Return the body of a chat request."""
    messages = [{"role": "user", "content": "hello"}]
    return {"model": model, "messages": messages, "max_tokens": limit, "temperature": 0, **more}


def demo_model(label: str, /, *options: str, rate: float = 0, **keys: Any) -> dict[str, Any]:
    """Return a model served by a demo server.

    Args:
        label: What replies call it.
        options: Further options of the demo server.
        rate: Tokens a second; 0 is as fast as they are read.
        keys: Further keys of the model.
    """
    command = [
        sys.executable, "-m", "swapchart.adapters.demo", "--model", label,
        "--port", "${PORT}", "--prefill-tokens-per-second", "0",
        "--tokens-per-second", str(rate), *options,
    ]  # fmt: skip
    return {"cmd": command, "proxy": "http://127.0.0.1:${PORT}", **keys}


class Journal:
    """File that witnesses and hooks write to; see ``witness``.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[tuple[float, str]]:
        """Return (seconds on the machine's clock, words) of each line; 0 where none were given."""
        found = []
        for line in self.path.read_text().splitlines():
            first, _, rest = line.partition(" ")
            is_timed = first.replace(".", "").isdigit()
            found.append((float(first), rest) if is_timed else (0.0, line))
        return found

    def words(self, pattern: str = "") -> list[str]:
        """Return the lines that *pattern* matches, without their time."""
        return [words for _, words in self.lines() if re.search(pattern, words)]

    def wait(self, pattern: str, timeout_s: float = LONG_S, *, count: int = 1) -> list[str]:
        """Wait until *count* lines match *pattern*; returns them."""
        return wait_until(
            lambda: found if len(found := self.words(pattern)) >= count else [],
            timeout_s, what=lambda: f"{count} of {pattern!r} in {self.words()}",
        )  # fmt: skip

    def model(self, label: str, /, *options: str, **keys: Any) -> dict[str, Any]:
        """Return a model served by a witness of that name; hooks find the file in $JOURNAL."""
        script = str(Path(__file__).with_name("witness.py"))
        command = [
            sys.executable, "-S", script, "--port", "${PORT}", "--journal", str(self.path),
            "--name", label, *options,
        ]  # fmt: skip
        env = [f"JOURNAL={self.path}", *keys.pop("env", ())]
        return {"cmd": command, "proxy": "http://127.0.0.1:${PORT}", "env": env, **keys}


def shell(script: str, **keys: Any) -> dict[str, Any]:
    """Return a hook that runs *script* in a shell."""
    return {"run": script, "shell": True, **keys}


def error_of(answer: raw.Answer) -> dict[str, Any]:
    """Return the error object of an answer, which must have OpenAI's shape."""
    assert answer.status >= 400, answer
    assert answer.header("content-type") == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert error["message"]
    assert error["type"]
    assert {"param", "code"} <= error.keys()
    return error


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
