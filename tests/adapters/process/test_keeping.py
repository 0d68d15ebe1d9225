"""Processes that outlive their launcher: the guard that keeps them, and the next launcher."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.net import LONG_S

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.process.keeping import guard_ending, guard_keeping
from swapchart.adapters.process.keeping.keeper import DOOR, KeepSettings
from swapchart.adapters.process.keeping.takeover import read_ended, take_over
from swapchart.adapters.process.kept_process import KeptProcess
from swapchart.adapters.process.local_process import LocalProcess
from swapchart.runtime.adoption import RunFacts
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Adopted, Command, Ending, EndingStep

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

FACTS = RunFacts(digest="d", incarnation=3).as_text()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state directory whose path is too long for the address of a socket."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    yield folder
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or ()):
            process.kill()
    for child in psutil.Process().children():  # this process is not the one that adopts them
        with contextlib.suppress(psutil.NoSuchProcess):
            child.wait(LONG_S)


def steps(*scripts: str) -> tuple[EndingStep, ...]:
    return tuple(EndingStep(command=Command(argv=("sh", "-c", script))) for script in scripts)


async def leave(
    folder: Path, script: str, ending: Ending | None = None, *, lease_s: float = LONG_S
) -> LocalProcess:
    """Start *script*, and leave it running until another launcher takes it over."""
    settings = KeepSettings(folder=folder, lease_s=lease_s)
    async with LocalLauncher(keep=settings) as launcher:
        log = LogRing()
        process = await launcher.start(Command(argv=("sh", "-c", script), label="web"), log)
        await eventually(lambda: b"up" in log.history())
        process.remember(FACTS, ending or Ending())
        assert process.is_remembered
        process.detach()
    assert not process.is_remembered  # only the guard has its descriptors now
    return process


@asynccontextmanager
async def next_launcher(folder: Path) -> AsyncIterator[tuple[LocalLauncher, list[Adopted]]]:
    """Give the next launcher, and what it can adopt."""
    earlier = await take_over(folder)
    settings = KeepSettings(folder=folder, lease_s=LONG_S)
    async with LocalLauncher(keep=settings, earlier=earlier) as launcher:
        yield launcher, list(await launcher.adopt())


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    with anyio.fail_after(LONG_S):
        while not condition():  # noqa: ASYNC110  (of another process)
            await anyio.sleep(0.01)


def guard_in(folder: Path) -> psutil.Process:
    running = psutil.process_iter(["cmdline"])
    (guard,) = [p for p in running if str(folder) in (p.info["cmdline"] or ())]
    return guard


def records(folder: Path) -> list[Path]:
    """Return the records that the guard has received; it starts slowly on a busy machine."""
    found = []
    for file in Path(f"/proc/{guard_in(folder).pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if "record" in str(file.readlink()):
                found.append(file)
    return found


def drop_from_record(folder: Path, key: str) -> None:
    """Make the guard's record one without *key*."""
    (record,) = records(folder)
    written = json.loads(record.read_text())
    del written[key]
    record.write_text(json.dumps(written))


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


async def test_kept_process_is_adopted_with_its_output(folder: Path) -> None:
    """What it wrote before, meanwhile and afterwards is one log; its end is seen."""
    left = await leave(folder, "echo up; trap 'echo usr' USR1; while :; do sleep 0.02; done")
    os.kill(left.pid, signal.SIGUSR1)
    await anyio.sleep(0.2)
    async with next_launcher(folder) as (_, found):
        (adopted,) = found
        process, log = adopted.process, LogRing()
        assert (adopted.service, adopted.incarnation, adopted.facts) == ("web", 3, FACTS)
        assert process.pid == left.pid
        process.attach(log)
        os.kill(left.pid, signal.SIGUSR1)
        await eventually(lambda: log.history() == b"up\nusr\nusr\n")
        process.terminate()
        await process.wait()
        await process.sweep(1.0)
    assert not is_alive(left.pid)
    assert not (folder / DOOR).exists()


@pytest.mark.parametrize("key", ["argv", "facts"])
async def test_record_of_another_version_ends_its_process(folder: Path, key: str) -> None:
    """It is not adopted; whoever wrote the record knows how to end it."""
    ending = Ending(after=steps(f"touch {folder}/after"))
    left = await leave(folder, "echo up; exec sleep 60", ending)
    await eventually(lambda: records(folder))
    drop_from_record(folder, key)
    async with next_launcher(folder) as (_, found):
        assert found == []
        await eventually(lambda: not is_alive(left.pid))
        await eventually((folder / "after").exists)


async def test_dismissed_process_ends_with_its_steps(folder: Path) -> None:
    """The guard runs them in order, and reports the end; nothing is noted for a later start."""
    ending = Ending(
        before=steps(f"echo before >> {folder}/log"),
        stop=Command(argv=("sh", "-c", f"echo stop >> {folder}/log; exit 1")),
        after=steps(f"echo after >> {folder}/log"),
    )
    left = await leave(folder, f"trap 'echo TERM >> {folder}/log; exit' TERM; echo up; "
                               "while :; do sleep 0.02; done", ending)  # fmt: skip
    async with next_launcher(folder) as (_, found):
        with anyio.fail_after(LONG_S):
            assert await found[0].process.dismiss()

    assert not is_alive(left.pid)
    assert (folder / "log").read_text().split() == ["before", "stop", "TERM", "after"]
    assert [service for _, service in read_ended(folder)] == ["web"]
    assert read_ended(folder) == []


async def test_dismissed_process_is_killed_if_the_guard_is_gone(folder: Path) -> None:
    """The caller learns that its steps were not run."""
    left = await leave(folder, "trap '' TERM; echo up; while :; do sleep 0.02; done")
    guard = guard_in(folder)
    async with next_launcher(folder) as (_, found):
        guard.kill()
        with anyio.fail_after(LONG_S):
            assert not await found[0].process.dismiss()

    assert not is_alive(left.pid)


async def test_process_that_nobody_decides_on_stays_with_the_guard(folder: Path) -> None:
    """A launcher that ends too early takes nothing along; the one after it adopts the process."""
    left = await leave(folder, "echo up; exec sleep 60")
    async with next_launcher(folder) as (_, found):
        assert isinstance(found[0].process, KeptProcess)
    assert is_alive(left.pid)
    async with next_launcher(folder) as (_, found):
        found[0].process.attach(LogRing())
        found[0].process.kill()
        await found[0].process.wait()


async def test_forgotten_process_ends_with_the_guard(folder: Path) -> None:
    """Empty facts: it may not outlive the launcher any more."""
    settings = KeepSettings(folder=folder, lease_s=LONG_S)
    async with LocalLauncher(keep=settings) as launcher:
        process = await launcher.start(Command(argv=("sleep", "60"), label="web"), LogRing())
        process.remember(FACTS, Ending())
        process.remember("", Ending())
        assert not process.is_remembered
    assert not is_alive(process.pid)
    assert await take_over(folder) is None


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_ring_keeps_the_last_bytes(chunks: list[bytes]) -> None:
    """Whatever the sizes of the writes."""
    before, guard_keeping.RING_BYTES = guard_keeping.RING_BYTES, 32
    fd = os.memfd_create("test")
    try:
        for chunk in chunks:
            guard_keeping.write_ring(fd, chunk)

        assert guard_keeping.read_ring(fd) == b"".join(chunks)[-32:]
    finally:
        os.close(fd)
        guard_keeping.RING_BYTES = before


def test_ending_steps_have_timeouts_retries_and_an_end(tmp_path: Path) -> None:
    """A hanging command is killed with its session, and a needed failure ends its point."""
    log = tmp_path / "log"

    def step(script: str, **more: object) -> dict[str, object]:
        command = {"argv": ["sh", "-c", script], "env": {"NAME": "value"}, "cwd": str(tmp_path)}
        base = {"call": None, "timeout_s": 5.0, "retries": 0, "delay_s": 0.0, "is_needed": False}
        return {"command": command, **base, **more}

    guard_ending.run_steps(
        [
            step("echo $NAME $OWN >> log"),
            step("sleep 4322 & sleep 4322", timeout_s=0.2),
            step("echo try >> log; exit 1", retries=1),
            step("exit 1", is_needed=True),
            step("echo never >> log"),
        ],
        {**os.environ, "OWN": "base"},
    )

    assert log.read_text().split() == ["value", "base", "try", "try"]
    assert subprocess.run(["pgrep", "-f", "^sleep 4322$"], check=False).returncode == 1
