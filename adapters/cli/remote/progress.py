"""Events of a running proxy, and lines about a model that a command waits for."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from http.client import HTTPException, HTTPResponse
from time import monotonic
from typing import Any

from .client import ApiError, Proxy

_FIRST_S = 2.0  # time for the first events; a command does not wait longer for its own display
_SILENCE_S = 60.0  # the proxy sends a comment every few seconds


def open_events(proxy: Proxy) -> HTTPResponse:
    """Return the stream of events of *proxy*.

    Raises:
        ApiError: There is none.
    """
    return proxy.open("GET", "/api/events", limit_s=_SILENCE_S)


def events(response: HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Yield kind and value of each event in *response*, without the lines of logs.

    Raises:
        ApiError: The connection was lost.
    """
    try:
        while line := response.readline():
            if line.startswith(b"data:") and b'"logData"' not in line[:24]:
                event = json.loads(line[5:])
                yield event["type"], json.loads(event["data"])
    except (OSError, HTTPException, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ApiError(f"the stream of events was lost: {error}") from error


class Progress:
    """Prints to standard error what a model does while a command waits for it.

    A context manager; the lines end with the block, and are left out if the key may not see events.

    Args:
        proxy: The proxy.
        model: Name of the model, or an alias.
        is_quiet: Print nothing.

    Attributes:
        ready_at: When the model became ready, monotonic seconds; None if it was before.
        is_over: Print no further lines.
    """

    def __init__(self, proxy: Proxy, model: str, *, is_quiet: bool = False) -> None:
        self.ready_at: float | None = None
        self._proxy, self._model, self._is_quiet = proxy, model, is_quiet
        self._has_state = threading.Event()
        self.is_over = False
        self._is_ready = False
        self._last = ""

    def __enter__(self) -> Progress:
        """Wait until the state of the model is known, so that no change is missed."""
        threading.Thread(target=self._follow, daemon=True).start()
        self._has_state.wait(_FIRST_S)
        return self

    def __exit__(self, *error: object) -> None:
        """Print no further lines."""
        self.is_over = True

    def _follow(self) -> None:
        try:
            with open_events(self._proxy) as response:
                for kind, value in events(response):
                    if self.is_over:
                        return
                    self._take(kind, value)
        except ApiError:
            pass  # the command itself reports why the proxy does not respond
        finally:
            self._has_state.set()

    def _take(self, kind: str, value: Any) -> None:
        if kind == "modelStatus":
            for row in value:
                if self._model == row["id"] or self._model in row.get("aliases", ()):
                    self._model = row["id"]
                    self._see(row["state"], row.get("configuration", ()), row.get("cause", ""))
            self._has_state.set()
        elif kind == "transition" and value["model"] == self._model:  # comes at once
            if self._has_state.is_set() and "ready" in value["configuration"]:
                self._see("ready", (), "")
        elif kind == "queue":
            for row in value["queue"]:
                if row["model"] == self._model:
                    self._say(f"waits in the queue: {row['why']}")

    def _see(self, state: str, configuration: Sequence[str], cause: str) -> None:
        was_known = self._has_state.is_set()
        if state == "ready" and not self._is_ready and was_known:
            self.ready_at = monotonic()
        self._is_ready = state == "ready"
        if was_known and state not in ("ready", "stopped"):
            inner = configuration[-1] if configuration else state
            self._say(inner.replace("_", " ") + (f" ({cause})" if cause else ""))

    def _say(self, text: str) -> None:
        if text != self._last and not (self._is_quiet or self.is_over):
            self._last = text
            print(f"{self._model}: {text}", file=sys.stderr, flush=True)
