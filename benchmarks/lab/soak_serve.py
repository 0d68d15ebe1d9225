"""``swapchart`` as it is, with a thread beside it that writes down how many tasks there are.

On SIGUSR1 it prints where each of them is.

python soak_serve.py STATUS_FILE serve --config ...
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import uvloop

from swapchart.adapters.cli import main

_loops: list[asyncio.AbstractEventLoop] = []
_new_event_loop = uvloop.new_event_loop


def _noted_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = _new_event_loop()
    _loops.append(loop)
    return loop


def _report(path: Path) -> None:
    while True:
        tasks = sum(len(asyncio.all_tasks(loop)) for loop in _loops)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"tasks": tasks, "threads": threading.active_count()}))
        fresh.replace(path)
        time.sleep(0.25)


def _print_tasks(*_: object) -> None:
    for loop in _loops:
        for task in asyncio.all_tasks(loop):
            task.print_stack(file=sys.stderr)


if __name__ == "__main__":
    vars(uvloop)["new_event_loop"] = _noted_loop
    status = Path(sys.argv[1])
    threading.Thread(target=_report, args=(status,), daemon=True).start()
    signal.signal(signal.SIGUSR1, _print_tasks)
    code = main(sys.argv[2:])
    sys.stderr.flush()
    os._exit(code)
