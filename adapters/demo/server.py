"""Demo inference server: a process that behaves like llama-server and needs no model.

It takes as long to load as configured, responds like llama-server, keeps a prefix cache in its
slots, and ends like it too: a SIGTERM while it loads kills it at once; with requests in flight it
stops sending, and the process stays until their clients have disconnected; a second SIGTERM ends
it. It uses the standard library only and imports nothing of the proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .app import App
from .engine import Engine
from .http import HttpConnection, KeepAlive
from .slots import Slots

_BACKLOG = 512
_LARGEST_PORT = 65535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options; llama-server's names are accepted where they mean the same."""
    add = parser.add_argument
    add("-m", "--model", required=True, metavar="NAME", help="name that replies mention")
    add("-a", "--alias", metavar="NAME", help="that name, if --model is a path")
    add("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    add("--port", type=_port, required=True, help="port; 0 takes a free one and logs it")
    add("-np", "--parallel", "--slots", dest="slots", type=_positive, default=1, metavar="N",
        help="generations at the same time (1)")  # fmt: skip
    add("-c", "--ctx-size", "--ctx", dest="ctx", type=_positive, default=8192, metavar="N",
        help="tokens that fit into all slots together (8192)")  # fmt: skip
    add("--slot-save-path", type=Path, metavar="DIR", help="directory for saved slots")
    add("--robust", action="store_true", help="reject a truncated slot file instead of aborting")
    add("--forgetful", action="store_true",
        help="restore slots in name only, as models with a sliding window do")  # fmt: skip
    rates = parser.add_argument_group("speed")
    add = rates.add_argument
    add("--load-seconds", type=float, default=0.0, metavar="S", help="time to load (0)")
    add("--prefill-tokens-per-second", type=float, default=5000.0, metavar="R",
        help="prompt tokens a second; 0 is at once (5000)")  # fmt: skip
    add("--tokens-per-second", type=float, default=100.0, metavar="R",
        help="generated tokens a second; 0 is as fast as they are read (100)")  # fmt: skip
    add("--keep-alive-seconds", type=float, default=5.0, metavar="S",
        help="how long an idle connection is kept (5)")  # fmt: skip
    add("--keep-alive-requests", type=_positive, default=100, metavar="N",
        help="requests on one connection (100)")  # fmt: skip
    add("--embedding-dimensions", type=_positive, default=64, metavar="N",
        help="length of embeddings (64)")  # fmt: skip
    add("--allocate-mib", type=_positive, metavar="N", help="memory to hold once loaded, in MiB")
    faults = parser.add_argument_group("faults")
    add = faults.add_argument
    add("--fail-load", action="store_true", help="exit with code 1 at the end of loading")
    add("--crash-after-seconds", type=float, metavar="S", help="end S seconds after the start")
    add("--crash-after-tokens", type=_positive, metavar="N", help="end after N generated tokens")
    add("--hang-after-seconds", type=float, metavar="S", help="stop responding after S seconds")
    add("--ignore-term", action="store_true", help="ignore SIGTERM")
    add("--exit-code", type=int, metavar="N",
        help="code of a crash (1), or with none asked of a stop (0); -N is signal N")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="do not log requests")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to {_LARGEST_PORT}, got {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives and return the exit code."""
    parser = argparse.ArgumentParser(prog="swapchart demo-server", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(options: argparse.Namespace) -> int:
    """Serve with the *options* of ``add_arguments`` and return the exit code."""
    path: Path | None = options.slot_save_path
    if path is not None and not path.is_dir():
        _log(f"error: invalid argument: --slot-save-path: not a directory: {path}")
        return 1
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # crashes are intended: no core files
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # while loading it ends the process, as in llama.cpp
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.ignore_term else signal.SIG_DFL)
    try:
        asyncio.run(_Server(options).run())
    except OSError as error:
        place = f"hostname: {options.host}, port: {options.port}"
        _log(f"E srv  start: couldn't bind HTTP server socket, {place}: {error.strerror}")
        return 1
    _log("srv  operator(): cleaning up before exit...")
    if options.crash_after_seconds is None and options.crash_after_tokens is None:
        return _end(options.exit_code or 0)
    return 0


class _Server:
    """One run: listen, load, serve, stop."""

    def __init__(self, options: argparse.Namespace) -> None:
        name = options.alias or options.model
        self._options = options
        self._slots = Slots(
            count=options.slots,
            n_ctx=max(options.ctx // options.slots, 1),
            model=name,
            directory=options.slot_save_path,
            is_robust=options.robust,
            is_forgetful=options.forgetful,
        )
        self._engine = Engine(
            model=name,
            slots=self._slots,
            prefill_rate=options.prefill_tokens_per_second,
            rate=options.tokens_per_second,
            crash_after=options.crash_after_tokens,
            crash=self._crash,
        )
        self._app = App(
            engine=self._engine,
            model_path=options.model,
            dimensions=options.embedding_dimensions,
            log=(lambda line: None) if options.quiet else _log,
        )
        self._connections: set[HttpConnection] = set()
        self._weights = bytearray()
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Serve until the requests that SIGTERM leaves have ended."""
        options, loop = self._options, asyncio.get_running_loop()
        keep = KeepAlive(idle_s=options.keep_alive_seconds, limit=options.keep_alive_requests)
        server = await loop.create_server(
            lambda: HttpConnection(self._app.serve, keep, self._connections),
            options.host,
            options.port,
            backlog=_BACKLOG,
        )
        host, port = server.sockets[0].getsockname()[:2]
        _log(f"srv  load_model: loading model '{options.model}'")
        if options.crash_after_seconds is not None:
            loop.call_later(options.crash_after_seconds, self._crash)
        if options.hang_after_seconds is not None:
            loop.call_later(options.hang_after_seconds, self._hang)
        await self._load()
        _log(f"srv  llama_server: listening on http://{host}:{port}")
        await self._engine.stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.close_if_idle()
        self._app.idle = self._done.set
        if self._app.in_flight:
            await self._done.wait()

    async def _load(self) -> None:
        if self._options.load_seconds:
            await asyncio.sleep(self._options.load_seconds)
        if self._options.fail_load:
            _log(f"E srv  load_model: failed to load model, '{self._options.model}'")
            _log("srv  llama_server: exiting due to model loading error")
            os._exit(1)
        if self._options.allocate_mib:  # written to, so that it is resident
            self._weights = bytearray(b"w") * (self._options.allocate_mib << 20)
        self._app.is_loading = False
        _log("srv  llama_server: model loaded")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._interrupt, number)

    def _interrupt(self, number: int) -> None:
        if number == signal.SIGTERM and self._options.ignore_term:
            _log("srv  signal: SIGTERM ignored")
        elif self._engine.stopping.is_set():
            _log("Received second interrupt, terminating immediately.")
            os._exit(1)
        else:
            self._engine.stopping.set()

    def _crash(self) -> None:
        _log("srv  crash: as requested")
        code = self._options.exit_code
        os._exit(_end(1 if code is None else code))

    def _hang(self) -> None:
        _log("srv  hang: as requested")
        self._app.is_hung = True


def _end(code: int) -> int:
    """Return *code*, or end this process by signal -*code*."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _log(line: str) -> None:
    print(f"{time.monotonic():.3f} {line}", file=sys.stderr, flush=True)
