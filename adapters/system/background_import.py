"""Import of modules that few processes need, while the event loop goes on."""

from __future__ import annotations

from importlib import import_module

from . import threads

_done: set[str] = set()


async def import_in_thread(name: str, package: str) -> None:
    """Import the module *name*, relative to *package*, in a worker thread.

    An ``import`` statement behind it finds the module loaded. The first request that needs a
    module waits for it, and the event loop serves the others meanwhile.
    """
    key = f"{package}:{name}"
    if key not in _done:
        await threads.run(import_module, name, package)
        _done.add(key)
