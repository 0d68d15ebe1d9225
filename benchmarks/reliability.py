"""Figures of docs/reliability.md that are measured, not asserted: kills, a herd, a queue, leavers.

    ./dev bench reliability --kills 50 --herd 1000 --queued 10000 --leavers 50

The proxy is killed with SIGKILL while models run, and what is alive two seconds later is counted.
A thousand clients ask at once for a model that is stopped. And clients leave, in each state that a
request can be in, until the upstream (or the queue) has heard of it. The memory of the proxy is
read while many requests wait for a model that loads.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from lab.processes import pss_bytes
from lab.report import table
from tools import raw
from tools.net import wait_until
from tools.swapchart_process import CHAT, LONG_S, Journal, SwapchartProcess, port_block

_GONE_LIMIT_S = 2.0
_SETTLE_S = 2.0
_WAITING = Path(__file__).resolve().parent / "lab" / "waiting_clients.py"
Row = list[str]


@contextmanager
def proxy_for(folder: Path, models: dict[str, Any], **more: Any) -> Any:
    """Run a proxy in *folder*."""
    folder.mkdir()
    config = {"startPort": port_block(), "models": models, **more}
    with SwapchartProcess(config, cwd=folder) as proxy:
        yield proxy.wait_listening()


def kills(folder: Path, count: int) -> list[Row]:
    """Kill the proxy *count* times; returns what was left, and how long the longest took."""
    left, longest, trees = 0, 0.0, 0
    for number in range(count):
        journal = Journal(folder / f"journal{number}")
        options = ("--daemon",) if number % 2 else ()
        models = {"a": journal.model("a", *options)}
        with proxy_for(folder / f"kill{number}", models) as proxy:
            answer = proxy.chat("a")
            assert answer.status == 200, answer
            proxy.note_guard()
            trees += len(proxy.leftovers())
            proxy.process.kill()
            proxy.process.wait()
            began = time.monotonic()
            while (found := proxy.leftovers()) and time.monotonic() < began + _GONE_LIMIT_S:
                time.sleep(0.01)
            longest = max(longest, time.monotonic() - began)
            left += len(found)
    return [
        [f"SIGKILLs of the proxy ({trees} processes under it)", f"{count}"],
        [f"processes left {_GONE_LIMIT_S:.0f} s later", f"{left}"],
        ["longest until all were gone", f"{longest * 1000:.0f} ms"],
    ]


def herd(folder: Path, count: int) -> list[Row]:
    """Let *count* clients ask at once for a stopped model."""
    journal = Journal(folder / "herd-journal")
    model = journal.model("a", "--load-s", "2")
    with proxy_for(folder / "herd", {"a": model}, queue={"limit": count}) as proxy:
        began = time.monotonic()
        clients = []
        for _ in range(count):
            client = raw.Connection(proxy.port, timeout_s=LONG_S)
            client.request("POST", CHAT, value={"model": "a"})
            clients.append(client)
        asked = time.monotonic() - began
        with ThreadPoolExecutor(32) as pool:
            ends = list(pool.map(_status_and_time, clients))
        statuses = sorted({status for status, _ in ends})
        served = [at for status, at in ends if status == 200]
        starts = len(journal.words("started"))
    spread = f"{(max(served) - min(served)):.2f} s" if served else "-"
    return [
        [f"clients at once for a stopped model (asked within {asked:.2f} s)", f"{count}"],
        ["starts", f"{starts}"],
        ["answered 200", f"{len(served)} (statuses seen: {', '.join(map(str, statuses))})"],
        ["from the first answer to the last", spread],
    ]


def _status_and_time(client: raw.Connection) -> tuple[int, float]:
    with client:
        status = client.read_answer().status
        return status, time.monotonic()


def queued(folder: Path, count: int) -> list[Row]:
    """Let *count* requests wait for a model that loads; returns the memory for each of them."""
    journal = Journal(folder / "queued-journal")
    model = {**journal.model("a", "--load-s", "3600"), "concurrencyLimit": count}
    more = {"queue": {"limit": count}, "healthCheckTimeout": 3600}
    with proxy_for(folder / "queued", {"a": model}, **more) as proxy:
        time.sleep(_SETTLE_S)
        before = pss_bytes(proxy.process.pid)
        argv = [sys.executable, str(_WAITING), "--port", str(proxy.port), "--model", "a"]
        with subprocess.Popen(
            [*argv, "--count", str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            assert client.stdout.readline() == "sent\n"
            proxy.wait_busy("a", waiting=count)
            time.sleep(_SETTLE_S)
            after = pss_bytes(proxy.process.pid)
            client.stdin.close()
            answered = client.stdout.read()
    if answered:
        raise RuntimeError(answered)
    return [
        ["requests that wait for a model", f"{count}"],
        ["memory before and then, MB", f"{before / 1e6:.1f}, {after / 1e6:.1f}"],
        ["memory of each, kB", f"{(after - before) / count / 1e3:.1f}"],
    ]


def leavers(folder: Path, count: int) -> list[Row]:
    """Let clients leave; returns how long it took until that was heard of, by state."""
    journal = Journal(folder / "leavers-journal")
    models = {"a": journal.model("a"), "slow": journal.model("slow", "--load-s", "1000")}
    with proxy_for(folder / "leavers", models, healthCheckTimeout=1200) as proxy:
        assert proxy.chat("a").status == 200
        rows = [
            _row("streaming", [_leave_stream(proxy, journal) for _ in range(count)]),
            _row(
                "waiting for the head of the answer",
                [_leave_silence(proxy, journal) for _ in range(count)],
            ),
        ]
        proxy.unload("a")
        rows.append(
            _row("waiting for a model to load", [_leave_loading(proxy) for _ in range(count)])
        )
        proxy.unload("slow")
    return rows


def _leave_stream(proxy: SwapchartProcess, journal: Journal) -> float:
    client = raw.Connection(proxy.port, timeout_s=LONG_S)
    client.request("POST", CHAT, value={"model": "a", "events": 100_000, "every_s": 0.02})
    client.read_head()
    client.read_chunk()
    return _until_gone(client, journal)


def _leave_silence(proxy: SwapchartProcess, journal: Journal) -> float:
    asked = len(journal.words("request"))
    client = raw.Connection(proxy.port, timeout_s=LONG_S)
    client.request("POST", CHAT, value={"model": "a", "hang": True})
    wait_until(lambda: len(journal.words("request")) > asked)
    return _until_gone(client, journal)


def _until_gone(client: raw.Connection, journal: Journal) -> float:
    heard = len(journal.words("gone"))
    left_at = time.monotonic()
    client.close()
    wait_until(lambda: len(journal.words("gone")) > heard)
    return [at for at, words in journal.lines() if "gone" in words][-1] - left_at


def _leave_loading(proxy: SwapchartProcess) -> float:
    client = raw.Connection(proxy.port, timeout_s=LONG_S)
    client.request("POST", CHAT, value={"model": "slow"})
    proxy.wait_busy("slow", waiting=1)
    left_at = time.monotonic()
    client.close()
    proxy.wait_busy("slow")
    return time.monotonic() - left_at


def _row(state: str, seconds: list[float]) -> Row:
    ordered = sorted(value * 1000 for value in seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    median = statistics.median(ordered)
    return [state, f"{len(ordered)}", f"{median:.1f}", f"{p99:.1f}", f"{ordered[-1]:.1f}"]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--herd", type=int, default=1000)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--leavers", type=int, default=50)
    options = parser.parse_args()
    parts: list[tuple[Callable[[Path, int], list[Row]], int, list[str]]] = [
        (kills, options.kills, ["kills", "number"]),
        (herd, options.herd, ["herd", "number"]),
        (queued, options.queued, ["queue", "number"]),
        (leavers, options.leavers, ["client leaves while", "times", "p50 ms", "p99 ms", "max ms"]),
    ]
    with tempfile.TemporaryDirectory(prefix="swapchart-reliability-") as name:
        for measure, count, heads in parts:
            if not count:
                continue
            print(table(heads, measure(Path(name), count)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
