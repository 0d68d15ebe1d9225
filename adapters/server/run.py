"""Server process: binds first, shuts down in bounded time, leaves no process behind.

hypercorn or uvicorn runs in our own event loop, by its API. The shutdown of the models does not
depend on the end of the server: a server that hangs on a stalled reader is abandoned.
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
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...runtime import Supervisor
from ...runtime.fence import kept
from ..app.application import Application
from ..http1 import hypercorn_import
from ..http1.freed_memory import use_one_arena
from ..process import rlimits
from ..system import name_lookup
from .backends import _BESIDE, _SERVERS
from .listen import url_of
from .ollama_entry import OllamaEntry
from .ollama_listener import OllamaListener
from .options import ServeOptions
from .systemd import Notifier

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

_SERVER_LIMIT_S = 3.0  # time for the server to end once the models have stopped
_EXIT_LIMIT_S = 2.0  # of threads that hang, such as in a driver; nothing is left to do by then


def run(app: Application, sock: socket.socket, options: ServeOptions) -> int:
    """Serve until a signal arrives and return the exit code.

    Raises the limit of open files of this process to the hard limit; models get the old limit.

    Raises:
        ModuleNotFoundError: The server is not installed.
    """
    if options.server == "hypercorn" and not options.is_stock:
        hypercorn_import.import_partly()
    import_module(options.server)  # before anything starts or says that it listens
    rlimits.raise_nofile_limit()
    use_one_arena()
    app.server = options.server
    with asyncio.Runner(loop_factory=name_lookup.loop_factory()) as runner:
        code = runner.run(_serve(app, sock, options))
        _leave_soon(code)
    return code


def _leave_soon(code: int) -> None:
    """Exit even if a part of the server hangs; the models have stopped by now."""

    def leave() -> None:
        sys.stderr.flush()
        os._exit(code)

    timer = threading.Timer(_EXIT_LIMIT_S, leave)
    timer.daemon = True
    with contextlib.suppress(RuntimeError):  # no thread can be started
        timer.start()


def _hush(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log errors of an abandoned server at debug level: the reason was logged before."""
    log.debug("abandoned server: %s", context.get("message"), exc_info=context.get("exception"))


async def _leave(supervisor: Supervisor, server: asyncio.Task[None], ending: asyncio.Event) -> None:
    """Let requests in flight finish, and leave the models running unless *ending* is set."""
    supervisor.begin_leave()
    asked = asyncio.get_running_loop().create_task(kept(ending.wait))
    limit_s = supervisor.stop_limit_s
    await asyncio.wait(
        {server, asked}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
    )  # fmt: skip
    asked.cancel()
    if ending.is_set():
        await supervisor.shutdown(limit_s)
    else:
        await supervisor.leave(limit_s)


def _open_for_ollama(app: Application, options: ServeOptions) -> OllamaListener:
    """Return the listener for clients of Ollama, which follows the configuration of *app*."""
    listener = OllamaListener(OllamaEntry(app), _BESIDE[options.server], options)
    app.listen_to_config(listener.apply)
    listener.open(app.config)
    return listener


async def _serve(app: Application, sock: socket.socket, options: ServeOptions) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    hurry = asyncio.Event()
    notifier = Notifier()

    async with app.running() as supervisor:
        is_leaving = app.keeps_models
        ending = asyncio.Event()  # the models end too

        def on_signal(number: int) -> None:
            if not stopping.is_set():
                notifier.tell("STOPPING=1")
                if not is_leaving or number == signal.SIGINT:
                    ending.set()
                then = "stopping the models" if ending.is_set() else "leaving the models running"
                log.info("shutting down: finishing in-flight requests, then %s", then)
                stopping.set()
            elif not ending.is_set():
                log.warning("second signal: stopping the models too")
                ending.set()
            elif not hurry.is_set():
                log.warning("second signal: killing the remaining processes")
                hurry.set()

        async def kill_when_hurried() -> None:
            await hurry.wait()
            supervisor.kill()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, app.ask_reload, "SIGHUP")
        start = _SERVERS[options.server]
        server = loop.create_task(start(app, sock, stopping, options))
        options.on_listening(url_of(sock, "http" if options.certificate is None else "https"))
        ollama = _open_for_ollama(app, options)
        notifier.tell("READY=1")
        living = loop.create_task(kept(notifier.live))
        asked = loop.create_task(kept(stopping.wait))
        killer = loop.create_task(kept(kill_when_hurried))
        await asyncio.wait({server, asked}, return_when=asyncio.FIRST_COMPLETED)
        failed = server.done() and not stopping.is_set()
        stopping.set()
        ollama.close()
        app.end_streams()
        if is_leaving and not ending.is_set():
            await _leave(supervisor, server, ending)
        else:
            await supervisor.shutdown(supervisor.stop_limit_s)
        await ollama.wait_ended(server, 0.5 if hurry.is_set() else _SERVER_LIMIT_S)
        if not server.done():
            log.warning("aborting connections of clients that neither read nor disconnect")
            loop.set_exception_handler(_hush)
            server.cancel()
        elif (error := server.exception()) is not None:
            log.error("the server failed: %r", error)
            failed = True
        for task in (asked, killer, living):
            task.cancel()
    return 1 if failed else 0
