"""From ``swapchart serve`` to its first answer, and where that time goes.

"Listening" is when a connection is accepted, which is early: the address is bound before anything
else is done. "Answering" is when ``GET /health`` is answered. CPU time holds up on a busy machine;
the clock does not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from lab.against import ROUNDS, Comparison, add_against, environments
from lab.contenders import own_versions
from lab.processes import Process, bytecode_env, cores, cpu_ns, free_ports, pinned
from lab.report import Weather, document, median, publish, table

_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)")
_MODELS = 10


def write_config(folder: Path) -> tuple[Path, int]:
    """Write a configuration of ten models; returns it, and a port to listen at."""
    first = free_ports(_MODELS + 2)
    folder.mkdir(exist_ok=True)
    models = {
        f"model-{number}": {
            "cmd": f"llama-server --model /models/{number}.gguf --port ${{PORT}}",
            "ttl": 600,
            "aliases": [f"alias-{number}"],
        }
        for number in range(_MODELS)
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps({"startPort": first, "models": models}))
    return path, first + _MODELS + 1


def start_once(
    folder: Path, options: Sequence[str], python: str = sys.executable
) -> tuple[float, float, float]:
    """Start and stop it; returns seconds to listening and to an answer, and CPU seconds."""
    config, port = write_config(folder)
    argv = [
        python, "-m", "swapchart", "serve", "--config", str(config),
        "--listen", f"127.0.0.1:{port}", "--state-dir", str(folder / "state"), *options,
    ]  # fmt: skip
    with Process(argv, folder, core=cores()[1]) as process:
        listening = process.wait_port(port)
        answering = process.wait_answering(port)
        return listening, answering, cpu_ns(process.pids()) / 1e9


def bare_python(folder: Path) -> tuple[float, float]:
    """Start Python and end it; returns seconds on the clock and of CPU time."""
    started = time.monotonic()
    code = "import time; print(time.process_time())"
    told = subprocess.run(
        pinned(cores()[1], [sys.executable, "-c", code]), cwd=folder, capture_output=True,
        text=True, check=True, env={**os.environ, **bytecode_env()},
    )  # fmt: skip
    return time.monotonic() - started, float(told.stdout)


def imports(folder: Path, options: Sequence[str], least_ms: float) -> list[tuple[float, str]]:
    """Return what is imported while it starts, and the milliseconds with all that it imports."""
    config, port = write_config(folder)
    argv = [
        sys.executable, "-X", "importtime", "-m", "swapchart", "serve", "--config", str(config),
        "--listen", f"127.0.0.1:{port}", "--state-dir", str(folder / "state"), *options,
    ]  # fmt: skip
    with Process(argv, folder, core=cores()[1]) as process:
        process.wait_answering(port)
        found = _IMPORT.findall(process.output())
    rows = [(int(total) / 1000, indent + name) for _, total, indent, name in found]
    return [(total, name) for total, name in rows if total >= least_ms]


def compare(checkout: Path, rounds: int, variants: Mapping[str, Sequence[str]]) -> int:
    """Start this checkout and *checkout* in turns; returns the exit code."""
    comparison = Comparison()
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        for suffix, pythons in environments(checkout).items():
            for server, arguments in variants.items():
                both = []
                for number, python in enumerate(pythons):
                    folder = Path(name) / f"{server}{suffix}-{number}".replace(", ", "-")
                    start_once(folder, arguments, python)  # leaves the bytecode
                    both.append(partial(start_once, folder, arguments, python))
                what = [
                    f"{server}{suffix}: {figure}"
                    for figure in ("listening, s", "answering, s", "CPU until then, s")
                ]
                for _ in range(rounds):
                    comparison.measure(what, *both)
    return comparison.conclude()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three runs; nothing is kept")
    parser.add_argument("--imports", action="store_true", help="list what the imports cost")
    add_against(parser)
    options = parser.parse_args()
    runs = 3 if options.quick else options.runs
    weather = Weather()
    variants = {"hypercorn": ["--server", "hypercorn"], "uvicorn": ["--server", "uvicorn"]}
    if options.against:
        rounds = runs if options.quick else max(runs, ROUNDS)
        sys.exit(compare(options.against.resolve(), rounds, variants))
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        folder = Path(name)
        if options.imports:
            for total, module in imports(folder, variants["hypercorn"], 5.0):
                print(f"{total:8.1f} ms  {module}")
            return
        for arguments in variants.values():
            start_once(folder, arguments)  # leaves the bytecode
        python = [bare_python(folder) for _ in range(runs)]
        found = {
            server: [start_once(folder, arguments) for _ in range(runs)]
            for server, arguments in variants.items()
        }
        weather.note()
    rows = [
        ["python -c pass", "-", *(f"{median(t) * 1000:.0f}" for t in zip(*python, strict=True))]
    ]
    for server, times in found.items():
        middle = [f"{median(column) * 1000:.0f}" for column in zip(*times, strict=True)]
        rows.append([f"swapchart serve, {server}", *middle])
    columns = ["ten models", "listening, ms", "answering, ms", "CPU ms until then"]
    text = document(
        "Start", "./dev bench startup", [f"Medians of {runs}.", table(columns, rows)], weather,
        own_versions(),
    )  # fmt: skip
    publish("startup", text, keep=not options.quick)


if __name__ == "__main__":
    main()
