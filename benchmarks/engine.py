"""Steps and memory of our charts, beside plain python-statemachine, transitions, sismic and XState.

The same small chart in all of them, held to the same actions in the same order first; then the
chart that is shipped, by our table and by python-statemachine. Each figure comes from a process of
its own, and times are CPU time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.against import ROUNDS, Comparison, add_against, environments
from lab.processes import cache_folder, cores, pinned
from lab.report import Weather, document, median, publish, table

_SCRIPT = Path(__file__).resolve().parent / "lab" / "engines.py"
_DRIVEN = _SCRIPT.with_name("driven.py")
_XSTATE = "5.33.3"
_FEW = 1_000  # of what takes milliseconds and 50 kB each
_COUNTS = (1, 1_000, 10_000)
_IDLE = 10_000
#: (engine, as the table shows it, the most instances that fit into memory and patience)
_ROWS = (
    ("table", "swapchart", 10_000),
    ("transitions", "transitions, hierarchical", 10_000),
    ("sismic", "sismic", 10_000),
    ("library", "python-statemachine", 10_000),
    ("shipped-table", "swapchart, the shipped lifecycle", 10_000),
    ("shipped-library", "python-statemachine, the shipped lifecycle", 1_000),
)


def others() -> Path:
    """Return the folder of the engines to compare with, installing them at first."""
    folder = cache_folder() / "engines"
    if not (folder / "sismic").exists() or not (folder / "transitions").exists():
        print(f"installing transitions and sismic into {folder}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--target", str(folder), "transitions", "sismic"], check=True)
    return folder


def ask(*arguments: object, python: str = sys.executable, script: Path = _SCRIPT) -> Any:
    """Run one measurement in a process of its own."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(others())]))
    argv = pinned(cores()[1], [python, "-W", "ignore", str(script), *map(str, arguments)])
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as folder:
        told = subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
    if told.returncode:
        raise SystemExit(f"{arguments}: {told.stderr}")
    return json.loads(told.stdout)


def check_traces() -> None:
    """Hold all engines to the same actions, event by event."""
    for first, *more in (
        ("table", "library", "transitions", "sismic"), ("shipped-table", "shipped-library"),
    ):  # fmt: skip
        expected = ask("trace", first)
        for engine in more:
            if ask("trace", engine) != expected:
                raise SystemExit(f"{engine} does not do what {first} does")


def measured(counts: Sequence[int], rounds: int, seconds: float, *, quick: bool = False) -> str:
    """Return the table of all engines; *quick* leaves out what takes long to make."""
    rows = []
    for engine, name, limit in _ROWS:
        most = 1 if quick and "library" in engine else limit
        speeds: list[str] = []
        sizes: list[str] = []
        makes: list[float] = []
        for count in counts:
            if count > most:
                speeds.append("-")
                sizes.append("-")
                continue
            print(f"{name}: {count}", file=sys.stderr)
            times = 1 if "library" in engine and count > 1 else rounds  # minutes to make
            found = [ask("speed", engine, count, seconds) for _ in range(times)]
            speeds.append(f"{median(one['events_per_s'] for one in found):,.0f}")
            makes.append(median(one["make_us"] for one in found))
            sizes.append(f"{ask('memory', engine, count)['bytes_each']:,.0f}")
        rows.append([name, *speeds, *sizes, f"{makes[-1]:,.1f}"])
    columns = [
        "engine", *(f"events/s, {count:,}" for count in counts),
        *(f"bytes each, {count:,}" for count in counts), "us to make one",
    ]  # fmt: skip
    return table(columns, rows)


def xstate() -> Path | None:
    """Return a folder with npm's xstate, installing it at first; None without Node."""
    if not (shutil.which("node") and shutil.which("npm")):
        print("no node and npm: XState is left out", file=sys.stderr)
        return None
    folder = cache_folder() / "xstate"
    if not (folder / "node_modules" / "xstate").exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"installing xstate into {folder}", file=sys.stderr)
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", f"xstate@{_XSTATE}"]
        subprocess.run(npm, cwd=folder, check=True)
    return folder


def driven(*, quick: bool) -> str:
    """Return the table of 10,000 driven orders: a host, python-statemachine, XState."""
    count = _IDLE // 10 if quick else _IDLE
    few = min(count, _FEW)
    rows = [
        ("swapchart, `Host`", count, ask("host", count, script=_DRIVEN)),
        ("python-statemachine, no timers", few, ask("library", few, script=_DRIVEN)),
    ]
    folder = xstate()
    if folder is not None:
        machine = folder / "order.json"
        machine.write_text(json.dumps(ask("xstate", 1, script=_DRIVEN)))
        argv = ["node", "--expose-gc", str(_DRIVEN.with_suffix(".mjs")), str(machine), str(count)]
        told = subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True)
        rows.append((f"xstate {_XSTATE}", count, json.loads(told.stdout)))
    columns = ["driven orders", "instances", "us to make one", "us an event", "bytes each"]
    keys = (("make_us", ".1f"), ("event_us", ".1f"), ("bytes_each", ".0f"))
    return table(
        columns,
        [
            [name, f"{number:,}", *(format(found[key], f",{form}") for key, form in keys)]
            for name, number, found in rows
        ],
    )


def compare(checkout: Path, rounds: int, seconds: float) -> int:
    """Measure our engine in this checkout and in *checkout* in turns; returns the exit code."""
    comparison = Comparison()
    theirs = checkout / "benchmarks" / "lab" / "engines.py"

    def figures(python: str, script: Path, engine: str, count: int) -> list[float]:
        found = ask("speed", engine, count, seconds, python=python, script=script)
        each = ask("memory", engine, count, python=python, script=script)
        return [1e9 / found["events_per_s"], found["make_us"], each["bytes_each"]]

    for suffix, (own, other) in environments(checkout).items():
        for engine, count in itertools.product(("table", "shipped-table"), (1, 10_000)):
            name = f"{engine}{suffix}, {count:,} instances"
            for _ in range(rounds):
                comparison.measure(
                    [f"{name}: {figure}" for figure in ("ns a step", "us to make", "bytes each")],
                    partial(figures, own, _SCRIPT, engine, count),
                    partial(figures, other, theirs, engine, count),
                )
    return comparison.conclude()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half a minute; nothing is kept")
    add_against(parser)
    options = parser.parse_args()
    if options.against:
        rounds, seconds = (2, 0.2) if options.quick else (ROUNDS, 0.5)
        sys.exit(compare(options.against.resolve(), rounds, seconds))
    counts = _COUNTS[:2] if options.quick else _COUNTS
    weather = Weather()
    check_traces()
    text = measured(counts, 1, 0.3, quick=True) if options.quick else measured(counts, 3, 2.0)
    found = ask("idle", _IDLE, 2 if options.quick else 10)
    weather.note()
    orders = driven(quick=options.quick)
    rows = [[f"{_IDLE:,}", f"{found['bytes_each']:,.0f}", f"{found['cpu_ms_per_s']:.2f}"]]
    services = table(["idle services under a supervisor", "bytes each", "CPU ms a second"], rows)
    kept = {"Python": sys.version.split()[0], "python-statemachine": version("python-statemachine")}
    for path in sorted(others().glob("*.dist-info")):
        name, _, number = path.name.removesuffix(".dist-info").partition("-")
        if name in ("transitions", "sismic"):
            kept[name] = number
    publish(
        "engine",
        document("The engine", "./dev bench engine", [text, orders, services], weather, kept),
        keep=not options.quick,
    )


if __name__ == "__main__":
    main()
