"""Delay that the proxy adds to the start of a server and to a swap.

The same thing is done by hand and through the proxies, in turns: (end the server that runs,) start
one, ask for its health every millisecond, ask it once. The overhead is the difference of the
medians. Then: how long after a server became healthy its first request arrives there. llama-swap
takes part in the first if LLAMA_SWAP names its program.

With ``--memory``, only swaps under ``memory:`` are measured: to a model whose file is not in the
page cache, with and without prefetch, and to a model while another one stops.

The servers are a small one that starts as fast as Python does, the same with a start of half a
second and of three seconds and, with ``--llama``, a real llama-server with a model of half a
megabyte.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab.against import ROUNDS, Comparison, add_against, environments
from lab.contenders import MissingError, find_llama_swap, llama_swap_argv, versions
from lab.report import Weather, document, median, publish, put_table, table
from lab.swaps import INSTANT, ByHand, Proxied, Server, instant, llama, swapchart_argv, timed

#: What is compared with a start by hand: name -> the command that serves a configuration.
Proxies = Mapping[str, Callable[[Path, int], list[str]]]


def proxies(only: Sequence[str]) -> Proxies:
    """Return the proxies that are wanted and that this machine has."""
    found: dict[str, Callable[[Path, int], list[str]]]
    found = {"swapchart": partial(swapchart_argv, sys.executable), "llama-swap": llama_swap_argv}
    try:
        find_llama_swap()
    except MissingError as error:
        print(f"without llama-swap: {error}", file=sys.stderr)
        del found["llama-swap"]
    if only:
        found = {name: found[name] for name in found if any(word in name for word in only)}
    return found


def compare(server: Server, folder: Path, runs: int, wanted: Proxies) -> list[list[str]]:
    """Start and swap in turns; returns the rows of the table."""
    times: dict[str, dict[str, list[float]]] = {"start": {}, "swap": {}}
    with contextlib.ExitStack() as stack:
        ways: dict[str, ByHand | Proxied] = {"by hand": stack.enter_context(ByHand(server))}
        for name, command in wanted.items():
            ways[name] = stack.enter_context(Proxied(server, folder / name, command))
        for number in range(runs):
            print(f"{server.name}: run {number + 1} of {runs}", file=sys.stderr)
            for name, way in random.sample(list(ways.items()), len(ways)):
                way.end()
                times["start"].setdefault(name, []).append(timed(way.start))
                times["swap"].setdefault(name, []).append(timed(way.swap))
                way.end()
    rows = []
    for what, of in times.items():
        own = median(of["by hand"])
        rows.append(
            [
                f"{server.name}: {what}", f"{own:.1f}",
                *(f"{median(of[name]):.1f}" for name in wanted),
                *(f"{median(of[name]) - own:+.1f}" for name in wanted),
                *(f"{max(of[name]):.1f}" for name in wanted), str(runs),
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
                Proxied(server, place / "now", partial(swapchart_argv, own)) as now,
                Proxied(server, place / "before", partial(swapchart_argv, other)) as before,
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
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {INSTANT} "$@"\n')
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
    text = document("Swaps by memory", command, parts, weather, versions())
    publish("coldswap-memory", text, keep=not is_quick)


def _box(capacity_gib: int) -> dict[str, object]:
    return {"memory": {"pools": {_BOX: {"capacity": f"{capacity_gib}GiB"}}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs; nothing is kept")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--llama", action="store_true", help="a real llama-server, too")
    parser.add_argument("--memory", action="store_true", help="only swaps under `memory:`")
    parser.add_argument("--swaps", action="store_true", help="only starts and swaps; not kept")
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD",
        help="only proxies with this in their name; may be given several times",
    )  # fmt: skip
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
    wanted = proxies(options.only)
    parts = []
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        folder = Path(name)
        servers = [(instant(folder / "notes"), runs)]
        for start_s, most in ((0.5, 10), (3.0, 5))[: 1 if options.quick else 2]:
            slow = instant(folder / "notes", "--ready-after-s", str(start_s))
            servers.append((replace(slow, name=f"{start_s:g} s"), min(runs, most)))
        if options.llama:
            servers.append((llama(folder), runs))
        rows = []
        for number, (server, times) in enumerate(servers):
            rows += compare(server, folder / f"swap-{number}", times, wanted)
            weather.note()
        columns = ["median ms", "by hand", *wanted]
        columns += [f"{name}: {what}" for what in ("overhead", "longest") for name in wanted]
        how = "From a request to its response. The server is healthy at once, or after that time."
        parts += [how, table([*columns, "runs"], rows)]
        if not options.swaps:
            starts_s = (0, 0.1) if options.quick else (0, 1, 3)
            late_rows = noticed(folder, min(runs, 8), starts_s)
            weather.note()
            how = (
                "From a server's being healthy to its first request. "
                "One that says so prints a line."
            )
            columns = ["start takes", "noticed after, ms", "longest", "runs"]
            parts += [how, table(columns, late_rows)]
    text = document("Starts and swaps", "./dev bench coldswap", parts, weather, versions(wanted))
    is_kept = not (options.quick or options.only or options.swaps)
    publish("coldswap", text, keep=is_kept)
    if is_kept and "llama-swap" in wanted:
        shown = ["median ms", "by hand", *wanted]
        swaps = [row[: len(shown)] for row in rows if row[0].endswith(": swap")]
        put_table("## Swaps", table(shown, swaps))


if __name__ == "__main__":
    main()
