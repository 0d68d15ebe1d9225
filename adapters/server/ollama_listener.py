"""Second listening socket, for clients of Ollama: opened, moved and closed by the configuration.

Each address has a server of its own, which ends as the main one does: it finishes the requests in
flight. An address that is not available is a warning, and the main server goes on.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeAlias

from ..config import Config
from ..system.addresses import is_loopback, parse_address
from .listen import BindError, bind, url_of
from .ollama_entry import OllamaEntry
from .options import ServeOptions

log = logging.getLogger(__name__)

_BIND_LIMIT_S = 5.0  # until an earlier server of this process has left its address
_RETRY_S = 0.05
#: Runs a server on a socket until the event is set.
Serve: TypeAlias = Callable[
    [OllamaEntry, socket.socket, asyncio.Event, ServeOptions], Awaitable[None]
]


class OllamaListener:
    """Serves *entry* where the configuration says.

    Args:
        entry: The application.
        serve: Runs a server.
        options: Options of the main server; on a loopback address TLS is not used.
    """

    def __init__(self, entry: OllamaEntry, serve: Serve, options: ServeOptions) -> None:
        self._entry, self._serve, self._options = entry, serve, options
        self._address: str | None = None
        self._wanted: str | None = None
        self._ending: asyncio.Event | None = None
        self._servers: set[asyncio.Task[None]] = set()
        self._changing: asyncio.Task[None] | None = None
        self._is_closed = False

    def open(self, config: Config) -> None:
        """Listen where *config* says, before anything else does."""
        self._wanted = _address_in(config)
        if self._wanted is not None:
            try:
                self._begin(self._wanted, bind(self._wanted))
            except BindError as error:
                _warn(self._wanted, error)

    def apply(self, config: Config) -> None:
        """Listen where *config*, a later configuration, says; in the background."""
        self._wanted = _address_in(config)
        if self._wanted == self._address or self._is_closed:
            return
        if self._changing is None or self._changing.done():
            self._changing = asyncio.get_running_loop().create_task(self._change())

    def close(self) -> None:
        """Accept no more connections; requests in flight go on."""
        self._is_closed = True
        if self._changing is not None:
            self._changing.cancel()
        self._end()

    async def wait_ended(self, main: asyncio.Task[None], limit_s: float) -> None:
        """Wait until all servers and *main* have ended, at most *limit_s* seconds.

        Those of this listener that have not are aborted.
        """
        await asyncio.wait({main, *self._servers}, timeout=limit_s)
        for server in self._servers:
            server.cancel()

    async def _change(self) -> None:
        while self._wanted != self._address:
            wanted = self._wanted
            self._end()
            if wanted is None:
                return
            try:
                self._begin(wanted, await _bind_freed(wanted))
            except BindError as error:
                _warn(wanted, error)
                if wanted == self._wanted:
                    return

    def _begin(self, address: str, sock: socket.socket) -> None:
        host, _ = parse_address(address)
        options = replace(self._options, certificate=None) if is_loopback(host) else self._options
        url = url_of(sock, "http" if options.certificate is None else "https")
        self._address, self._ending = address, asyncio.Event()
        work = self._serve(self._entry, sock, self._ending, options)
        server = asyncio.get_running_loop().create_task(_awaited(work))
        self._servers.add(server)
        server.add_done_callback(self._ended)
        log.info("clients of Ollama are served at %s", url)

    def _ended(self, server: asyncio.Task[None]) -> None:
        self._servers.discard(server)
        if not server.cancelled() and (error := server.exception()) is not None:
            log.error("the server for clients of Ollama failed: %r", error)

    def _end(self) -> None:
        self._address = None
        if self._ending is not None:
            self._ending.set()
            self._ending = None


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _bind_freed(address: str) -> socket.socket:
    """Bind *address*, which an earlier server of this process may be about to leave.

    Raises:
        BindError: It is not available.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + _BIND_LIMIT_S
    while True:
        try:
            return bind(address)
        except BindError:
            if loop.time() >= end:
                raise
        await asyncio.sleep(_RETRY_S)


def _address_in(config: Config) -> str | None:
    return None if config.ollama is None else config.ollama.listen


def _warn(address: str, error: BindError) -> None:
    reason = getattr(error.__cause__, "strerror", None) or str(error.__cause__)
    log.warning(
        "clients of Ollama are not served at %s: %s; stop the program that listens there, which "
        "may be Ollama itself, or set another `ollama.listen`; everything else is served",
        address, reason,
    )  # fmt: skip
