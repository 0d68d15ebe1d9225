"""Delay that the proxy adds to the start of a server and to a swap.

The same thing is done by hand and through swapchart, in turns: (end the server that runs,) start
one, ask for its health every millisecond, ask it once. The overhead is the difference of the
medians. Then: how long after a server became healthy its first request arrives there.

With ``--memory``, only swaps under ``memory:`` are measured: to a model whose file is not in the
page cache, with and without prefetch, and to a model while another one stops.

The servers are a small one that starts as fast as Python does and, with ``--llama``, a real
llama-server with a model of half a megabyte.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lab.against import ROUNDS, Comparison, add_against, environments
from lab.contenders import own_versions
from lab.processes import Process, bytecode_env, free_ports
from lab.report import Weather, document, median, publish, table

_INSTANT = Path(__file__).resolve().parent / "lab" / "instant.py"
_CHAT = "/v1/chat/completions"
_NAMES = ("first", "second")
_PAUSE_S = 0.001  # without one, asking takes the CPU that the server needs to start


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server to be started.

    Attributes:
        name: As the table shows it.
        argv: Its command; ``${PORT}`` stands for the port.
        env: Variables that it needs.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def instant(notes: Path, *options: str) -> Server:
    """Return the server that takes no time."""
    argv = [sys.executable, "-I", "-S", str(_INSTANT), "--port", "${PORT}", "--notes", str(notes)]
    return Server(name="instant", argv=(*argv, *options))


def llama(folder: Path) -> Server:
    """Return a real llama-server with a tiny model.

    Raises:
        SystemExit: There is none that this machine can run.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from tools.llama import find_llama
    from tools.make_tiny_gguf import write_tiny_gguf

    model = write_tiny_gguf(folder / "tiny.gguf")
    server, why_not = find_llama(model, folder)
    if server is None:
        raise SystemExit(why_not)
    argv = server.argv(model, 0)
    argv[argv.index("--port") + 1] = "${PORT}"
    return Server(name=f"llama-server ({server.name})", argv=tuple(argv), env=server.env)


def ask(port: int, method: str, target: str, value: object = None) -> bytes:
    """Make one request on a connection of its own; it must succeed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = None if value is None else json.dumps(value)
        connection.request(method, target, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{method} {target}: {answer.status} {data!r}")
        return data
    finally:
        connection.close()


def chat(port: int, model: str) -> None:
    """Ask *model* for one token."""
    messages = [{"role": "user", "content": "hello"}]
    ask(port, "POST", _CHAT, {"model": model, "messages": messages, "max_tokens": 1})


# ---- by hand
class ByHand:
    """Starts and ends the server directly; a context manager."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def start(self) -> None:
        """Start one and ask it once."""
        port = free_ports(1)
        argv = [word.replace("${PORT}", str(port)) for word in self._server.argv]
        self._running = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, **bytecode_env(), **self._server.env}, start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
                ask(port, "GET", "/health")
                break
            if time.monotonic() > end:
                raise TimeoutError("not healthy within 60 s")
            time.sleep(_PAUSE_S)
        chat(port, "any")

    def end(self) -> None:
        """Terminate the one that runs and wait for its end."""
        running, self._running = self._running, None
        if running is not None:
            running.terminate()
            running.wait()

    def swap(self) -> None:
        """End the one that runs, start another."""
        self.end()
        self.start()


# ---- through the proxy
class Proxied:
    """Starts and swaps through ``swapchart serve``; a context manager.

    Args:
        server: Server of both models, or of the first one.
        folder: Where the proxy keeps its files.
        python: Its interpreter.
        second: Server of the second model; None means the same.
        keys: Further keys of both models.
        top: Further keys of the configuration.
    """

    def __init__(
        self, server: Server, folder: Path, python: str = sys.executable, *,
        second: Server | None = None, keys: Mapping[str, object] | None = None,
        top: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        first = free_ports(8)
        self._port = first + 7
        models = {
            name: {
                "cmd": list(each.argv),
                "proxy": "http://127.0.0.1:${PORT}",
                "env": [f"{variable}={value}" for variable, value in each.env.items()],
                **(keys or {}),
            }
            for name, each in zip(_NAMES, (server, second or server), strict=True)
        }
        config = {"startPort": first, "models": models, **(top or {})}
        folder.mkdir(parents=True)
        path = folder / "config.yaml"
        path.write_text(json.dumps(config))
        self._process = Process(
            [
                python, "-m", "swapchart", "serve", "--config", str(path),
                "--listen", f"127.0.0.1:{self._port}", "--state-dir", str(folder / "state"),
            ],
            folder,
        )  # fmt: skip
        self._is_second = False
        self.swapped_at = 0.0

    def __enter__(self) -> Proxied:
        self._process.wait_answering(self._port)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.stop()

    def start(self) -> None:
        """Ask a model that is stopped, nothing else being up."""
        self._is_second = False
        chat(self._port, _NAMES[0])

    def swap(self) -> None:
        """Ask the model that is not up."""
        self._is_second = not self._is_second
        name = _NAMES[self._is_second]
        if name in self._up():
            raise RuntimeError(f"{name} is up already: nothing would be swapped")
        chat(self._port, name)

    def swap_during_a_stop(self) -> None:
        """Unload the model that is up, and ask the other one at once."""
        name = _NAMES[self._is_second]
        with ThreadPoolExecutor(1) as pool:
            unloading = pool.submit(ask, self._port, "POST", f"/api/models/unload/{name}")
            while self._state(name) == "ready":
                time.sleep(_PAUSE_S)
            self._is_second = not self._is_second
            chat(self._port, _NAMES[self._is_second])
            self.swapped_at = time.perf_counter()
            unloading.result()

    def _state(self, name: str) -> str:
        rows = json.loads(ask(self._port, "GET", "/running"))["running"]
        return next((row["state"] for row in rows if row["model"] == name), "stopped")

    def _up(self) -> list[str]:
        return [row["model"] for row in json.loads(ask(self._port, "GET", "/running"))["running"]]

    def end(self) -> None:
        """Unload everything and wait for it."""
        ask(self._port, "POST", "/api/models/unload")
        end = time.monotonic() + 60
        while self._up():
            if time.monotonic() > end:
                raise TimeoutError("still running 60 s after an unload")


def timed(action: Callable[[], None]) -> float:
    """Return how long *action* takes; milliseconds."""
    started = time.perf_counter()
    action()
    return (time.perf_counter() - started) * 1000


def compare(server: Server, folder: Path, runs: int) -> list[list[str]]:
    """Start and swap in turns; returns the rows of the table."""
    own: dict[str, list[float]] = {"start": [], "swap": []}
    proxied: dict[str, list[float]] = {"start": [], "swap": []}
    with ByHand(server) as by_hand, Proxied(server, folder) as proxy:
        for _ in range(runs):
            turns: list[tuple[ByHand | Proxied, dict[str, list[float]]]]
            turns = [(by_hand, own), (proxy, proxied)]
            random.shuffle(turns)
            for way, times in turns:
                way.end()
                times["start"].append(timed(way.start))
                times["swap"].append(timed(way.swap))
                way.end()
    rows = []
    for what in ("start", "swap"):
        difference = median(proxied[what]) - median(own[what])
        rows.append(
            [
                f"{server.name}: {what}", f"{median(own[what]):.1f}",
                f"{median(proxied[what]):.1f}", f"{difference:+.1f}", f"{max(proxied[what]):.1f}",
            ]
        )  # fmt: skip
    return rows


def compare_checkouts(checkout: Path, rounds: int) -> int:
    """Start and swap through this checkout and *checkout* in turns; returns the exit code."""
    comparison = Comparison()
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        folder = Path(name)
        server = instant(folder / "notes")
        for suffix, (own, other) in environments(checkout).items():
            place = folder / f"both{suffix}".replace(", ", "-")
            with (
                Proxied(server, place / "now", own) as now,
                Proxied(server, place / "before", other) as before,
            ):
                for _ in range(rounds):
                    names = [f"start{suffix}, ms", f"swap{suffix}, ms"]
                    comparison.measure(names, partial(_turn, now), partial(_turn, before))
    return comparison.conclude()


def _turn(proxy: Proxied) -> list[float]:
    times = [timed(proxy.start), timed(proxy.swap)]
    proxy.end()
    return times


# ---- readiness
#: How a server becomes ready -> options of ``lab/instant.py``.
_READINESS = {
    "503, then 200": (), "503, then 200, and says so": ("--tell",),
    "listens late": ("--late",), "listens late, and says so": ("--late", "--tell"),
}  # fmt: skip


def noticed(folder: Path, runs: int, starts_s: Sequence[float]) -> list[list[str]]:
    """Measure from a server's being healthy to its first request; returns the table's rows."""
    rows = []
    for start_s in starts_s:
        for how, options in _READINESS.items():
            place = folder / f"noticed-{len(rows)}"
            notes = folder / f"notes-{len(rows)}"
            server = instant(notes, "--ready-after-s", str(start_s), *options)
            with Proxied(server, place) as proxy:
                for _ in range(runs):
                    proxy.start()
                    proxy.end()
            at: dict[str, list[int]] = {"begun": [], "ready": [], "request": []}
            for line in notes.read_text().splitlines():
                what, when = line.split()
                at[what].append(int(when))
            delays = [
                (asked - ready) / 1e6
                for ready, asked in zip(at["ready"], at["request"], strict=True)
            ]
            rows.append(
                [f"{start_s:g} s, {how}", f"{median(delays):.1f}", f"{max(delays):.1f}", str(runs)]
            )
    return rows


# ---- files and stops that overlap
_STOP_S = 2.0
_BOX = "BOX"


def prefetched(folder: Path, runs: int, size_mib: int) -> list[list[str]]:
    """Swap to a model whose file is not in memory; returns the table's rows."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from tools.page_cache import drop, resident

    place = folder / "prefetch"
    place.mkdir()
    model, program = place / "model.gguf", place / "llama-server"
    with model.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(1 << 20))
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {_INSTANT} "$@"\n')
    program.chmod(0o700)
    notes = ("--notes", str(place / "notes"))
    argv = (str(program), "--port", "${PORT}", *notes, "--model", str(model))
    second = Server(name="reads a file", argv=argv)
    rows = []
    for name in ("off", "auto"):
        keys = {"prefetch": name, "memory": {_BOX: "6GiB"}, "beforeStop": f"sleep {_STOP_S:g}"}
        times = []
        server = instant(place / "notes")
        with Proxied(server, place / name, second=second, keys=keys, top=_box(10)) as proxy:
            for _ in range(runs):
                proxy.start()
                drop(str(model))
                if resident(str(model)) > 0.1:
                    raise SystemExit(f"{model} stays in memory: TMPDIR must be on a disk")
                times.append(timed(proxy.swap) - _STOP_S * 1000)
                proxy.end()
        rows.append([f"prefetch: {name}", f"{median(times):.0f}", f"{max(times):.0f}", str(runs)])
    return rows


def overlapped(folder: Path, runs: int) -> list[list[str]]:
    """Ask for a model while another stops, with and without room for both; returns the rows."""
    rows = []
    keys = {"memory": {_BOX: "4GiB"}, "beforeStop": f"sleep {_STOP_S:g}"}
    for room_gib, text in ((10, "room for both"), (6, "no room for both")):
        place = folder / f"overlap-{room_gib}"
        times = []
        with Proxied(instant(folder / "notes"), place, keys=keys, top=_box(room_gib)) as proxy:
            for _ in range(runs):
                proxy.start()
                began = time.perf_counter()
                proxy.swap_during_a_stop()
                times.append((proxy.swapped_at - began) * 1000)
                proxy.end()
        rows.append([text, f"{median(times):.0f}", f"{max(times):.0f}", str(runs)])
    return rows


def with_memory(*, is_quick: bool) -> None:
    """Measure swaps under the decision by memory, and print the report."""
    weather = Weather()
    runs, size_mib = (1, 32) if is_quick else (5, 1024)
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        read_rows = prefetched(Path(name), runs, size_mib)
        weather.note()
        stop_rows = overlapped(Path(name), runs)
        weather.note()
    columns = ["ms", "median", "longest", "runs"]
    parts = [
        f"Swap to a model whose file of {size_mib} MiB is on the disk only, less the "
        f"{_STOP_S:g} s that the old model takes to stop.",
        table(columns, read_rows),
        f"Request for a model while another one stops, which takes {_STOP_S:g} s.",
        table(columns, stop_rows),
    ]
    command = "./dev bench coldswap --memory"
    text = document("Swaps by memory", command, parts, weather, own_versions())
    publish("coldswap-memory", text, keep=not is_quick)


def _box(capacity_gib: int) -> dict[str, object]:
    return {"memory": {"pools": {_BOX: {"capacity": f"{capacity_gib}GiB"}}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs; nothing is kept")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--llama", action="store_true", help="a real llama-server, too")
    parser.add_argument("--memory", action="store_true", help="only swaps under `memory:`")
    add_against(parser)
    options = parser.parse_args()
    if options.memory:
        with_memory(is_quick=options.quick)
        return
    if options.against:
        rounds = options.runs or (3 if options.quick else 3 * ROUNDS)
        sys.exit(compare_checkouts(options.against.resolve(), rounds))
    runs = options.runs or (5 if options.quick else 30)
    weather = Weather()
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        folder = Path(name)
        servers = [instant(folder / "notes")]
        if options.llama:
            servers.append(llama(folder))
        rows = []
        for number, server in enumerate(servers):
            rows += compare(server, folder / f"swap-{number}", runs)
            weather.note()
        starts_s = (0, 0.1) if options.quick else (0, 1, 3, 10)
        late_rows = noticed(folder, min(runs, 8), starts_s)
        weather.note()
    swaps = table(["median ms", "by hand", "through swapchart", "overhead", "longest"], rows)
    delays = table(["start takes", "noticed after, ms", "longest", "runs"], late_rows)
    how = "From a server's being healthy to its first request. One that says so prints a line."
    parts = [f"From a request to its answer; {runs} runs.", swaps, how, delays]
    text = document("Starts and swaps", "./dev bench coldswap", parts, weather, own_versions())
    publish("coldswap", text, keep=not options.quick)


if __name__ == "__main__":
    main()
