"""Serves the application: binds first, ends in bounded time, leaves nothing behind.

The server in front is hypercorn or uvicorn, run by its API in our own event loop. Our end does
not depend on its end: models are stopped by us, and a server that hangs on a stalled reader is
left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

from ...runtime.fence import kept
from ..app.application import Application
from ..process import rlimits
from ..system import name_lookup
from .backends import _SERVERS
from .listen import url_of
from .options import ServeOptions
from .systemd import Notifier

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

_SERVER_LIMIT_S = 3.0  # after the models are gone, the server gets so long to end
_EXIT_LIMIT_S = 5.0


def run(app: Application, sock: socket.socket, options: ServeOptions) -> int:
    """Serve until a signal comes; returns the exit code.

    Our limit of open files is raised to what the system allows; models get the old one.
    """
    rlimits.raise_nofile_limit()
    with asyncio.Runner(loop_factory=name_lookup.loop_factory()) as runner:
        code = runner.run(_serve(app, sock, options))
        _leave_soon(code)
    return code


def _leave_soon(code: int) -> None:
    """Exit even if something of the server's hangs: the models are gone by now."""

    def leave() -> None:
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(_EXIT_LIMIT_S, leave)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread can be made
        timer.start()


def _hush(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Take what a server complains about that is left behind: we have said why already."""
    log.debug("left behind: %s", context.get("message"), exc_info=context.get("exception"))


async def _serve(app: Application, sock: socket.socket, options: ServeOptions) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    hurry = asyncio.Event()
    notifier = Notifier()

    async with app.running() as supervisor:

        def on_signal() -> None:
            if not stopping.is_set():
                notifier.tell("STOPPING=1")
                log.info("stopping: requests in flight are finished, models are stopped")
                stopping.set()
            elif not hurry.is_set():
                log.warning("asked again: killing what is left")
                hurry.set()

        async def kill_when_hurried() -> None:
            await hurry.wait()
            supervisor.kill()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        loop.add_signal_handler(signal.SIGHUP, app.ask_reload, "SIGHUP")
        start = _SERVERS[options.server]
        server = loop.create_task(start(app, sock, stopping, options))
        options.on_listening(url_of(sock, "http" if options.certificate is None else "https"))
        notifier.tell("READY=1")
        living = loop.create_task(kept(notifier.live))
        asked = loop.create_task(kept(stopping.wait))
        killer = loop.create_task(kept(kill_when_hurried))
        await asyncio.wait({server, asked}, return_when=asyncio.FIRST_COMPLETED)
        failed = server.done() and not stopping.is_set()
        stopping.set()
        app.end_streams()
        await supervisor.shutdown(supervisor.stop_limit_s)
        await asyncio.wait({server}, timeout=0.5 if hurry.is_set() else _SERVER_LIMIT_S)
        if not server.done():
            log.warning("clients are left that neither read nor leave: cutting them off")
            loop.set_exception_handler(_hush)
            server.cancel()
        elif (error := server.exception()) is not None:
            log.error("the server failed: %r", error)
            failed = True
        for task in (asked, killer, living):
            task.cancel()
    return 1 if failed else 0
