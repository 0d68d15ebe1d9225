"""Import of hypercorn without the protocols that it speaks by itself.

This package serves HTTP/1.1 in hypercorn's place, so that most processes never use h11, h2 and
wsproto, which hypercorn imports at once, together with some modules that only its annotations and
its own command need: 3 MB of memory and 40 ms of CPU time. Here hypercorn is imported with
placeholders for them, and `load` imports the protocols for the first connection that needs them,
such as a websocket. Where another part of the program has imported hypercorn before, it is complete
already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

_PROTOCOL = "hypercorn.protocol"
#: Modules with nothing that hypercorn uses before it speaks a protocol.
_UNUSED = (
    "h11", "h2", "h2.events", _PROTOCOL, "logging.config", "multiprocessing",
    "multiprocessing.synchronize", "tomllib", "wsgiref", "wsgiref.handlers",
)  # fmt: skip

_waiting: list[Callable[[], None]] = []
_is_partial = False


class _Placeholder(ModuleType):
    """A module that has each name; annotations and unions of types can be made of its values."""

    __path__: list[str] = []  # noqa: RUF012  (as a package has it)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def import_partly() -> None:
    """Import hypercorn's server without its protocols, unless it has been imported."""
    global _is_partial
    if "hypercorn" in sys.modules:
        return
    missing = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update({name: _Placeholder(name) for name in missing})
    try:
        import_module("hypercorn.asyncio")
        _is_partial = True
    finally:
        for name in missing:
            del sys.modules[name]


def is_partial() -> bool:
    """Return True if the protocols have not been imported."""
    return _is_partial


def load() -> None:
    """Import the protocols if they are missing. Idempotent; takes 40 ms of CPU time."""
    global _is_partial
    if not _is_partial:
        return
    protocol = import_module(_PROTOCOL)
    tcp: Any = import_module("hypercorn.asyncio.tcp_server")
    tcp.ProtocolWrapper = protocol.ProtocolWrapper
    log: Any = import_module("hypercorn.logging")
    config: Any = import_module("hypercorn.config")
    logging_config, dates = import_module("logging.config"), import_module("wsgiref.handlers")
    log.dictConfig, log.fileConfig = logging_config.dictConfig, logging_config.fileConfig
    log.tomllib = config.tomllib = import_module("tomllib")
    config.format_date_time = dates.format_date_time
    _is_partial = False
    while _waiting:
        _waiting.pop(0)()


def when_loaded(function: Callable[[], None]) -> None:
    """Call *function* as soon as the protocols are imported; at once if they are."""
    if _is_partial:
        _waiting.append(function)
    else:
        function()
