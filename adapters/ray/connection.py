"""Connection of the proxy with its sidecar, which is started again when it has died."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import ByteReceiveStream, Process

from ...runtime.errors import EngineError, LostError
from ...runtime.fence import kept
from .messages import LineBuffer, Message, encode

_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0  # between two starts of the sidecar
_STABLE_S = 60.0  # a sidecar that ran longer is started again at once
_END_S = 4.0  # for a sidecar to tell the agents that the proxy ends

_log = logging.getLogger(__name__)


class Pending:
    """A request without a response yet."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.response: Message = {}


class Connection:
    """The sidecar, its requests and its events.

    Args:
        settings: The ``open`` request: ``address``, ``cluster`` and ``owner``.
        on_event: Called with each event of the sidecar, and with the events ``engine`` of this
            class; must not wait.

    Attributes:
        is_open: The sidecar is connected to the cluster.
        problem: Why it is not, in words.
        nodes: Ids of the nodes that were alive when it connected.
    """

    def __init__(self, settings: Message, on_event: Callable[[Message], None]) -> None:
        self._settings, self._on_event = settings, on_event
        self._process: Process | None = None
        self._pending: dict[int, Pending] = {}
        self._last = 0
        self._sending = anyio.Lock()
        self._stderr: deque[str] = deque(maxlen=30)
        self._is_closing = False
        self.is_open = False
        self.problem = ""
        self.nodes: list[str] = []
        self.tried = anyio.Event()

    async def run(self) -> None:
        """Run the sidecar until canceled."""
        pause_s = _PAUSE_S
        while True:
            began = anyio.current_time()
            await kept(self._run_once)
            self._fail_pending()
            if anyio.current_time() - began > _STABLE_S:
                pause_s = _PAUSE_S
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    async def _run_once(self) -> None:
        command = [sys.executable, "-m", f"{__package__}.sidecar"]
        environment = {
            **os.environ, "RAY_USAGE_STATS_ENABLED": "0", "SWAPCHART_RUN": "sidecar",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        try:
            process = await anyio.open_process(command, env=environment, start_new_session=True)
        except OSError as error:
            self._set_closed(f"the sidecar cannot be started: {error.strerror}")
            return
        self._process = process
        assert process.stdout is not None, "a pipe"
        assert process.stderr is not None, "a pipe"
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read_stderr, process.stderr)
                tasks.start_soon(self._open)
                await self._read(process.stdout)
                tasks.cancel_scope.cancel()
        finally:
            self._process = None
            with anyio.CancelScope(shield=True):
                await self._end(process)
        if not self._is_closing:
            last = next((line for line in reversed(self._stderr) if line.strip()), "")
            self._set_closed(f"the driver of Ray ended{': ' if last else ''}{last}")

    async def _end(self, process: Process) -> None:
        """Close the input of *process* and wait for its end."""
        with suppress(OSError, anyio.BrokenResourceError):
            assert process.stdin is not None, "a pipe"
            await process.stdin.aclose()
        with anyio.move_on_after(_END_S):
            await process.wait()
        with suppress(ProcessLookupError):
            process.kill()
        await process.aclose()

    async def _open(self) -> None:
        try:
            result = await self.request("open", self._settings)
        except EngineError as error:
            if self._process is not None and not self._is_closing:
                self._set_closed(str(error))
                with suppress(ProcessLookupError):
                    self._process.kill()
            return
        self.nodes = result["nodes"]
        self.is_open, self.problem = True, ""
        self._on_event({"event": "engine", "state": "up"})
        self.tried.set()

    def _set_closed(self, problem: str) -> None:
        """Note that there is no engine; the first reason of each failure counts."""
        was_open, self.is_open = self.is_open, False
        is_new = was_open or not self.problem
        if is_new:
            self.problem = problem
            self._on_event({"event": "engine", "state": "down", "why": problem})
        self._fail_pending()
        self.tried.set()

    def _fail_pending(self) -> None:
        for pending in self._pending.values():
            pending.response = {"error": "lost", "text": self.problem or "the sidecar ended"}
            pending.done.set()
        self._pending.clear()

    async def _read(self, stream: ByteReceiveStream) -> None:
        buffer = LineBuffer()
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                for message in buffer.feed(await stream.receive(1 << 18)):
                    self._take(message)

    def _take(self, message: Message) -> None:
        if "n" in message:
            pending = self._pending.pop(message["n"], None)
            if pending is not None:
                pending.response = message
                pending.done.set()
            return
        try:
            self._on_event(message)
        except Exception:  # noqa: BLE001  (a later event may be understood)
            _log.exception("an event of the cluster was not understood: %.200s", message)

    async def _read_stderr(self, stream: ByteReceiveStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in stream:
                lines = data.decode("utf-8", "replace").splitlines()
                self._stderr.extend(lines)
                for line in lines:
                    _log.debug("ray: %s", line)

    async def request(self, do: str, values: Mapping[str, Any] | None = None) -> Any:
        """Have the sidecar do something and return the result.

        Raises:
            EngineError: The sidecar, the engine or the node does not respond; a `LostError` if
                it may have been done.
        """
        process = self._process
        if process is None or process.stdin is None or (do != "open" and not self.is_open):
            raise EngineError(self.problem or "the cluster is not connected yet")
        self._last += 1
        number, pending = self._last, Pending()
        self._pending[number] = pending
        try:
            async with self._sending:
                with anyio.CancelScope(shield=True):  # half a line would spoil the next one
                    await process.stdin.send(encode({"n": number, "do": do, **(values or {})}))
            await pending.done.wait()
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise LostError(f"the sidecar has ended: {error}") from error
        finally:
            self._pending.pop(number, None)
        response = pending.response
        if "error" in response:
            kind = LostError if response["error"] == "lost" else EngineError
            raise kind(response["text"])
        return response["result"]

    def close(self) -> None:
        """Note that the end of the sidecar is no failure from now on."""
        self._is_closing = True
