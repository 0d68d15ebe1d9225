"""`swapchart top`: models, requests and memory of a running proxy, live in a terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..remote.client import ApiError, Proxy, asking, model_path, proxy_of
from ..remote.signals import exit_on_signals
from ..remote.table import table
from .snapshot import HEADER, Swaps, row, take, title_lines

if TYPE_CHECKING:
    from rich.console import Console

    from .frame import Selection
    from .reader import Reader


@asking
def top(options: Namespace) -> int:
    """Show the models of a running proxy until a key ends it, or once."""
    proxy, swaps = proxy_of(options), Swaps()
    is_live = not (options.once or options.json) and sys.stdin.isatty() and sys.stdout.isatty()
    if is_live and os.environ.get("TERM") != "dumb":
        from rich.console import Console

        return _Live(proxy, options.interval, Console(), swaps).run()
    found = take(proxy, swaps)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(title_lines(found)))
        now = time.time()
        print(table(HEADER, [row(model, now) for model in found["models"]]))
    return 0


class _Live:
    """The live view."""

    def __init__(self, proxy: Proxy, interval_s: float, console: Console, swaps: Swaps) -> None:
        from .frame import Selection
        from .reader import Reader

        self._proxy, self._interval_s, self._console = proxy, interval_s, console
        self._selection: Selection = Selection()
        self._reader: Reader = Reader(proxy, interval_s, take(proxy, swaps), swaps)
        self._message = ""
        self._is_suspending = False

    def run(self) -> int:
        """Draw until the user ends it, and return the exit code."""
        exit_on_signals()
        signal.signal(signal.SIGTSTP, self._suspend)
        with self._reader:
            while True:
                self._draw_until_left()
                if not self._is_suspending:
                    return 0
                self._is_suspending = False
                os.kill(os.getpid(), signal.SIGSTOP)  # goes on here by `fg`

    def _draw_until_left(self) -> None:
        """Draw until the user ends or suspends it; the terminal is as before then."""
        from rich.live import Live

        from .frame import draw
        from .keyboard import Keyboard

        with ExitStack() as stack:
            keyboard = stack.enter_context(Keyboard())
            live = stack.enter_context(Live(console=self._console, screen=True, auto_refresh=False))
            while not self._is_suspending:
                frame = draw(
                    self._reader.latest, self._selection, problem=self._reader.problem,
                    message=self._message, size=(self._console.width, self._console.height),
                )  # fmt: skip
                live.update(frame, refresh=True)
                keyboard.wait(self._reader.wake_fd, self._interval_s)
                self._reader.clear()
                for key in keyboard.typed():
                    if key == "q":
                        return
                    self._press(key)

    def _press(self, key: str) -> None:
        models = self._reader.latest["models"]
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "home": -len(models), "end": len(models)}
        if key in steps:
            self._selection.move(models, steps[key])
        elif key in ("l", "u") and models:
            name = models[self._selection.index(models)]["model"]
            self._selection.name = name
            threading.Thread(target=self._change, args=(key, name), daemon=True).start()

    def _change(self, key: str, name: str) -> None:
        """Load or unload a model, and say what became of it."""
        verb = "load" if key == "l" else "unload"
        self._say(f"{name}: {verb}ing")
        began = time.monotonic()
        try:
            self._proxy.change(model_path(name, f"/api/models/{verb}/"))
        except ApiError as error:
            self._say(f"{name}: {error}")
        else:
            result = "ready" if key == "l" else "unloaded"
            self._say(f"{name}: {result} after {time.monotonic() - began:.1f} s")
        self._reader.read_now()

    def _say(self, text: str) -> None:
        self._message = text
        self._reader.wake()

    def _suspend(self, number: int, frame: Any) -> None:
        self._is_suspending = True
        self._reader.wake()
