"""Everything at once, for a long time, on real processes: and then nothing may be missing or left.

Clients chat, stream, upload, stall and leave; models swap all the time; servers are killed and
frozen, crash by themselves, never come up; hooks fail and hang; models are unloaded under load;
and strange bytes arrive. Every request must end in one of four ways (see ``lab.soak_client``).
Twice the storm is stopped, and what the proxy holds then is compared. Exits with 1 if anything was
lost, wrong or left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from lab.bad_inputs import BAD, try_one
from lab.contenders import own_versions
from lab.processes import Process, free_ports
from lab.report import Weather, document, publish, table
from lab.soak_client import Client, Ledger, read_answer

_SERVE = Path(__file__).resolve().parent / "lab" / "soak_serve.py"
_MARKER = "SWAPCHART_SOAK"
_TROUBLE = re.compile(r"Traceback|never retrieved|was never awaited|does not handle")
_LINES_OF_TROUBLE = 60  # what a traceback needs
_MODELS = ("tortoise", "hare", "hedgehog", "crashy", "hooked", "never-up", "missing")
_WEIGHTS = (6, 6, 6, 2, 4, 1, 1)  # of the models
_USERS = 24
_OUTPUT_KEPT = 1 << 20
#: More of them after the storm than before it is a leak.
_SLACK = {"fds": 6, "tasks": 2, "threads": 3, "processes": 0}
_SLOPE_KB_PER_MIN = 2048  # of memory; counts in runs of ten minutes and more


def config(folder: Path) -> dict[str, Any]:
    """Return a configuration in which a lot goes wrong."""

    def demo(name: str, *options: str, **keys: Any) -> dict[str, Any]:
        command = [
            sys.executable, "-m", "swapchart.adapters.demo", "--model", name, "--port",
            "${PORT}", "--slots", "4", "--tokens-per-second", "200", "--quiet",
            "--prefill-tokens-per-second", "0", *options,
        ]  # fmt: skip
        return {
            "cmd": command,
            "unloadTimeout": 3,
            "restart": {"backoff": 0.2, "cooldown": 2},
            **keys,
        }

    coin = f'{sys.executable} -S -c "import os; raise SystemExit(os.urandom(1)[0] % 3 == 0)"'
    hooks = {
        "afterHealthy": [{"run": coin, "timeout": 5, "onError": "fail"}],
        "beforeStop": [{"run": "sleep 60", "timeout": 0.3}],
        "afterStop": [{"run": "/nowhere/at-all"}],
    }
    return {
        "startPort": free_ports(64),
        "logLevel": "warn",
        "models": {
            "tortoise": demo("tortoise", "--load-seconds", "0.3"),
            "hare": demo("hare", concurrencyLimit=3),
            "hedgehog": demo("hedgehog", "--ignore-term", unloadTimeout=1),
            "crashy": demo("crashy", "--crash-after-tokens", "400"),
            "hooked": demo("hooked", **hooks),
            "never-up": demo("never-up", "--fail-load", "--load-seconds", "0.1"),
            "missing": {"cmd": f"{folder}/no-such-program --port ${{PORT}}"},
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Resources that the proxy holds at one moment."""

    fds: int
    tasks: int
    threads: int
    processes: int
    rss_kb: int


def _connections(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):  # it has ended meanwhile: there is a storm
        return [
            f"{process.pid}: {end.laddr.port} to {end.raddr.port} {end.status}"
            for end in process.net_connections("tcp") if end.raddr
        ]  # fmt: skip
    return []


class Soak:
    """One run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.ledger = Ledger()
        self.rng = random.Random(seed)
        self.marker = secrets.token_hex(8)
        self.port = free_ports(1)
        self.samples: list[tuple[float, int]] = []
        self._status = folder / "status.json"
        path = folder / "config.yaml"
        path.write_text(json.dumps(config(folder)))
        argv = [
            sys.executable, str(_SERVE), str(self._status), "serve", "--config", str(path),
            "--listen", f"127.0.0.1:{self.port}", "--state-dir", str(folder / "state"),
        ]  # fmt: skip
        self.process = Process(argv, folder, env={_MARKER: self.marker})
        self._storm = asyncio.Event()
        self._is_over = False

    # ---- the storm
    async def user(self, number: int) -> None:
        """Make one request after the other for as long as there is a storm."""
        client = Client(self.port, self.ledger, random.Random(self.rng.random()), self.why)
        rng = random.Random(number)
        while not self._is_over:
            await self._storm.wait()
            await client.one(rng.choices(_MODELS, _WEIGHTS))
            await asyncio.sleep(rng.random() * 0.3)

    async def stranger(self) -> None:
        """Send strange bytes."""
        while not self._is_over:
            await self._storm.wait()
            await try_one(self.port, self.ledger, self.rng)
            await asyncio.sleep(0.05)

    async def saboteur(self) -> None:
        """Kill, freeze and unload."""
        while not self._is_over:
            await self._storm.wait()
            await asyncio.sleep(self.rng.uniform(0.3, 2.0))
            what = self.rng.choices(("kill", "freeze", "unload one", "unload all"), (5, 4, 3, 1))[0]
            if what.startswith("unload"):
                name = f"/{self.rng.choice(_MODELS)}" if what == "unload one" else ""
                await self._ask("POST", f"/api/models/unload{name}")
                self.ledger.faults[what] += 1
                continue
            victims = [row for row in await self.running() if row["pid"]]
            if not victims:
                continue
            pid = self.rng.choice(victims)["pid"]
            with contextlib.suppress(ProcessLookupError):
                if what == "kill":
                    os.kill(pid, signal.SIGKILL)
                else:
                    os.kill(pid, signal.SIGSTOP)
                    await asyncio.sleep(self.rng.uniform(0.2, 1.0))
                    os.kill(pid, signal.SIGCONT)
                self.ledger.faults[what] += 1

    async def _ask(self, method: str, target: str) -> Any:
        """Make a request of our own, which must be answered with 200."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
        try:
            length = "Content-Length: 0\r\n" if method == "POST" else ""
            writer.write(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n".encode())
            async with asyncio.timeout(60):
                answer = await read_answer(reader)
        finally:
            writer.transport.abort()
        if answer.status != 200:
            raise RuntimeError(f"{method} {target}: {answer.status} {answer.body!r}")
        return answer.body

    async def running(self) -> list[dict[str, Any]]:
        """Return the rows of ``/running``."""
        rows: list[dict[str, Any]] = json.loads(await self._ask("GET", "/running"))["running"]
        return rows

    async def why(self) -> str:
        """Return what the proxy says of its queue and its models, and all its connections."""
        queue = await self._ask("GET", "/api/queue")
        me = psutil.Process(self.process.pid)
        ends = [end for each in (me, *me.children(recursive=True)) for end in _connections(each)]
        me.send_signal(signal.SIGUSR1)  # see soak_serve
        return f"{queue.decode()}\n{json.dumps(await self.running())}\n{'; '.join(ends)}"

    # ---- quiet
    async def held(self) -> Held:
        """Let everything settle, and see what the proxy holds."""
        await self._ask("POST", "/api/models/unload")
        end = time.monotonic() + 60
        while await self.running():
            if time.monotonic() > end:
                raise TimeoutError(f"still running: {await self.running()}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(6)  # keep-alive connections and lingering hooks have their limits
        return self.now()

    def now(self) -> Held:
        """See what the proxy holds."""
        me = psutil.Process(self.process.pid)
        told = json.loads(self._status.read_text())
        return Held(
            fds=me.num_fds(), tasks=told["tasks"], threads=told["threads"],
            processes=len(me.children(recursive=True)), rss_kb=me.memory_info().rss // 1024,
        )  # fmt: skip

    async def storm(self, seconds: float) -> None:
        """Let it rage for so long, then wait until every user is done with its request."""
        self._storm.set()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(1)
            self.process.check()
            self.samples.append((time.monotonic(), self.now().rss_kb))
        self._storm.clear()
        end = time.monotonic() + 120
        while self.ledger.balance():
            if time.monotonic() > end:
                return  # the report says that they are lost
            await asyncio.sleep(0.1)

    async def run(self, seconds: float) -> tuple[Held, Held]:
        """Storm, quiet, storm, quiet; returns what was held in the quiet times."""
        await asyncio.to_thread(self.process.wait_answering, self.port)
        tasks = [asyncio.create_task(self.user(number)) for number in range(_USERS)]
        tasks += [asyncio.create_task(self.stranger()), asyncio.create_task(self.saboteur())]
        try:
            await self.storm(seconds * 0.3)
            before = await self.held()
            self.samples.clear()
            await self.storm(seconds * 0.7)
            after = await self.held()
        finally:
            self._is_over = True
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
        for error in done:
            if isinstance(error, Exception):
                raise error
        return before, after

    # ---- the end
    def end(self) -> tuple[int, list[str], list[str]]:
        """Stop the proxy; returns its code, what it left behind, and what it logged of trouble."""
        self.process.process.terminate()
        code = self.process.process.wait(60)
        time.sleep(0.5)
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_ours = process.environ().get(_MARKER) == self.marker
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    left.append(" ".join(process.cmdline()))
        output = self.process.output()
        lines = output.splitlines()
        trouble = [
            "\n    ".join(lines[place : place + _LINES_OF_TROUBLE])
            for place, line in enumerate(lines) if _TROUBLE.search(line)
        ]  # fmt: skip
        return code, left, trouble

    def slope(self) -> float:
        """Return how memory grew over the second storm; KB a minute."""
        if len(self.samples) < 10:
            return 0.0
        times = [at / 60 for at, _ in self.samples]
        return statistics.linear_regression(times, [size for _, size in self.samples]).slope


def verdicts(
    soak: Soak, before: Held, after: Held, end: tuple[int, list[str], list[str]], seconds: float
) -> list[str]:
    """Return everything that should not be."""
    code, left, trouble = end
    found = [f"wrong: {text}" for text in soak.ledger.wrongs]
    if soak.ledger.balance():
        found.append(f"{soak.ledger.balance()} requests were lost")
    for name, slack in _SLACK.items():
        grown = getattr(after, name) - getattr(before, name)
        if grown > slack:
            found.append(f"{grown} more {name} than before the second storm")
    if seconds >= 600 and soak.slope() > _SLOPE_KB_PER_MIN:
        found.append(f"memory grew by {soak.slope():.0f} KB a minute")
    if code:
        found.append(f"the proxy ended with {code}")
    found += [f"left behind: {line}" for line in left]
    found += [f"logged: {line}" for line in trouble]
    return found


def report(soak: Soak, before: Held, after: Held, seconds: float, wrong: list[str]) -> list[str]:
    """Return the parts of the report."""
    ledger = soak.ledger
    ends = [[name, f"{ledger.ended[name]:,}"] for name in
            ("completed", "truncated", "refused", "left", "wrong")]  # fmt: skip
    rows = [["sent", f"{ledger.sent:,}"], *ends, ["lost", f"{ledger.balance():,}"]]
    refusals = [[reason, f"{count:,}"] for reason, count in ledger.refusals.most_common()]
    faults = [[what, f"{count:,}"] for what, count in sorted(ledger.faults.items())]
    kinds = sum(1 for name in ledger.bad_inputs if name in BAD)
    faults.append([f"bad inputs, of {kinds} kinds and random", f"{ledger.bad_inputs.total():,}"])
    held = [
        [field.name, f"{getattr(before, field.name):,}", f"{getattr(after, field.name):,}"]
        for field in fields(Held)
    ]
    return [
        f"{seconds:.0f} s of storm; memory grew by {soak.slope():.0f} KB a minute in its second "
        "part.",
        table(["requests", "number"], rows), table(["refused with", "number"], refusals),
        table(["faults injected", "number"], faults),
        table(["held by the proxy", "after the first storm", "after the second"], held),
        "\n".join(f"- {line}" for line in wrong) or "Nothing was lost, wrong or left behind.",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    weather = Weather()
    with tempfile.TemporaryDirectory(prefix="swapchart-soak-") as name:
        soak = Soak(Path(name), options.seed)
        try:
            before, after = asyncio.run(soak.run(options.seconds))
            end = soak.end()
            output = soak.process.output()[-_OUTPUT_KEPT:]
        except BaseException:
            print(soak.process.output()[-5000:], file=sys.stderr)
            raise
        finally:
            soak.process.stop()
    weather.note()
    wrong = verdicts(soak, before, after, end, options.seconds)
    parts = report(soak, before, after, options.seconds, wrong)
    command = f"./dev bench soak --seconds {options.seconds:.0f} --seed {options.seed}"
    keep = options.seconds >= 600
    if wrong:
        print(output, file=sys.stderr)
    publish("soak", document("Soak", command, parts, weather, own_versions()), keep=keep)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
