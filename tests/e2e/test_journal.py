"""The journal on real processes: history, and what a killed run left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from tools.net import wait_until
from tools.rows import row
from tools.swapchart_process import Journal as WitnessJournal
from tools.swapchart_process import Serve

from swapchart.adapters.cli import main
from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.process.orphans import boot_id, find_orphans, kill_orphans, started_of
from swapchart.adapters.store import Database
from swapchart.adapters.store.journal import MIGRATIONS, Journal, Launched
from swapchart.runtime import Command, ServiceSpec, Supervisor, Transition


def journal_at(path: Path, instance: str) -> tuple[Database, Journal]:
    database = Database(path, MIGRATIONS, flush_s=0.05)
    database.open()
    return database, Journal(database, instance, boot=boot_id(), started_of=started_of)


def test_history_lists_each_transition_with_its_cause(tmp_path: Path) -> None:
    """History names event, cause, exit code and hooks, the newest first; nothing stays launched."""

    async def main() -> None:
        database, journal = journal_at(tmp_path / "journal.db", "first")
        spec = ServiceSpec(
            name="sleeper", command=Command(argv=("sleep", "60")), endpoint="http://127.0.0.1:9"
        )
        async with LocalLauncher() as launcher, Supervisor(launcher, [spec]) as supervisor:
            supervisor.listen(journal.take)
            await supervisor.load("sleeper")
            assert len(await _launched(database)) == 1
            os.kill(supervisor["sleeper"].process.pid, signal.SIGKILL)  # type: ignore[union-attr]
            await supervisor["sleeper"].wait_for("backoff")
        rows = await journal.history("sleeper")
        crash = next(row for row in rows if row["event"] == "proc_exited")
        assert (crash["source"], crash["target"]) == ("ready", "sweeping")
        assert crash["exit_signal"] == signal.SIGKILL
        assert "signal 9" in crash["cause"]
        assert rows[0]["target"] == "shut_down"
        assert rows[-1]["source"] == "stopped"
        assert await _launched(database) == []
        database.close()

    anyio.run(main)


async def _launched(database: Database) -> list[tuple[object, ...]]:
    return await database.query("SELECT service FROM launched")


@row("A16")
def test_orphans_of_a_killed_run_are_ended_and_others_spared(tmp_path: Path) -> None:
    """Marked processes and the recorded leader end; a process that only has its pid lives."""
    dead = f"dead-run-{os.getpid()}"  # tests that run beside this one end what they know
    marked = subprocess.Popen(
        ["sleep", "60"], env={**os.environ, "SWAPCHART_INSTANCE": dead}, cwd=tmp_path,
        start_new_session=True,
    )  # fmt: skip
    bare = subprocess.Popen(["sleep", "60"], env={}, cwd=tmp_path, start_new_session=True)
    innocent = subprocess.Popen(["sleep", "60"], cwd=tmp_path, start_new_session=True)
    try:
        started, boot = started_of(bare.pid), boot_id()
        assert started is not None
        launched = [
            Launched(dead, "a", 999_999, 1, boot),
            Launched("other-run", "b", bare.pid, started, boot),
            Launched("other-run", "c", innocent.pid, 1, boot),
        ]
        found = {proc.pid for proc, _ in find_orphans(launched)}
        assert {marked.pid, bare.pid} <= found
        assert innocent.pid not in found

        assert set(anyio.run(kill_orphans, launched)) == {"a", "b"}
        assert marked.wait(5) == bare.wait(5) == -signal.SIGKILL
        assert innocent.poll() is None
    finally:
        for child in (marked, bare, innocent):
            child.kill()
            child.wait()


RUN = """
import sys, anyio, os
from pathlib import Path
from swapchart.adapters.app.application import Application
from swapchart.adapters.config import load_config
from swapchart.adapters.store.state_directory import StateDirectory

async def main():
    config = load_config([Path(sys.argv[1])])
    async with Application(config, state=StateDirectory(Path(sys.argv[2]))).running() as supervisor:
        if sys.argv[3] == "load":
            await supervisor.load("sleeper")
            guard = supervisor._launcher._all[""]._local.guard_pid
            print(supervisor["sleeper"].process.pid, guard, flush=True)
            await anyio.sleep(60)
        print("ended", flush=True)

anyio.run(main)
"""


@row("A16")
def test_orphans_of_guard_and_proxy_are_ended_by_the_next_start(tmp_path: Path) -> None:
    """With guard and proxy both killed the model lives on, until the next start."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "models: {sleeper: {cmd: sleep 60, proxy: 'http://127.0.0.1:9', checkEndpoint: none}}"
    )
    command = [sys.executable, "-c", RUN, str(config), str(tmp_path / "state")]
    with subprocess.Popen(
        [*command, "load"], stdout=subprocess.PIPE, cwd=tmp_path, text=True
    ) as first:
        assert first.stdout is not None
        model, guard = map(int, first.stdout.readline().split())
        wait_until(lambda: _is_launched(tmp_path / "state" / "journal.db"))
        os.kill(first.pid, signal.SIGSTOP)  # or it would start another guard
        os.kill(guard, signal.SIGKILL)
        os.kill(first.pid, signal.SIGKILL)
    assert started_of(model) is not None

    second = subprocess.run(
        [*command, "look"], stdout=subprocess.PIPE, cwd=tmp_path, text=True, timeout=30, check=True
    )
    assert second.stdout == "ended\n"
    wait_until(lambda: not _lives(model))


def _is_launched(path: Path) -> bool:
    database = Database(path, MIGRATIONS)
    database.open()
    try:
        return bool(anyio.run(_launched, database))
    finally:
        database.close()


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_journal_keeps_the_newest_rows_up_to_its_limit(tmp_path: Path) -> None:
    """However long it runs: beyond its limit the oldest rows go."""
    record = Transition(
        service="a", at=0.0, event="request", cause="", source="x", target="y",
        configuration=("alive", "y"), seconds=0.0, incarnation=1, pid=None,
    )  # fmt: skip

    async def main() -> None:
        database = Database(tmp_path / "journal.db", MIGRATIONS, flush_s=0.01)
        database.open()
        journal = Journal(database, "me", boot="", started_of=started_of, limit=100)
        for number in range(1024):
            journal.take(replace(record, cause=str(number)))
        rows = await journal.history("a", limit=10_000)
        assert [row["cause"] for row in rows] == [str(n) for n in range(1023, 923, -1)]
        database.close()

    anyio.run(main)


def test_history_shows_hooks_causes_and_times(
    serve: Serve, journal: WitnessJournal, capsys: pytest.CaptureFixture[str]
) -> None:
    """By API and by command, under an alias too; the oldest comes first for who reads it."""
    model = journal.model("a", aliases=["other"], afterHealthy="false", beforeStop="true")
    proxy = serve({"a": model})
    assert proxy.chat("a").status == 200
    assert proxy.unload("a").status == 200
    rows = proxy.get("/api/models/other/history?limit=100")["data"]
    hooks = {row["source"]: row["hooks"] for row in rows if row["hooks"]}
    assert {row["source"] for row in rows} >= {"health_checking", "ready", "terminating"}
    (failed,) = hooks["after_healthy"]
    assert (failed["action"], failed["outcome"]) == ("run false", "failed")
    assert failed["seconds"] > 0
    assert "exit code 1" in failed["detail"]
    exit_row = next(row for row in rows if row["event"] == "proc_exited")
    assert exit_row["exit_code"] is not None or exit_row["exit_signal"] is not None
    assert exit_row["seconds"] > 0

    at = ("--url", f"http://127.0.0.1:{proxy.port}")
    assert main(["history", "other", *at]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("->")[1].split()[0] for line in lines] == [
        row["target"] for row in reversed(rows)
    ]
    assert any("[run false: failed]" in line for line in lines)
    assert "(requested)" in lines[0]
    assert (
        main(["history", "a", "--json", "--limit", "2", "--url", f"http://127.0.0.1:{proxy.port}"])
        == 0
    )
    assert json.loads(capsys.readouterr().out) == rows[:2]
