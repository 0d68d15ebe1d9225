"""External servers: probed and stopped by their own command, never signaled."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from tools.children import demo_argv, demo_server
from tools.net import LONG_S, free_port, wait_until

from swapchart.adapters.process import (
    ExternalLauncher,
    LocalLauncher,
    LocalProcess,
    external,
    procfs,
)
from swapchart.runtime import Command, Exit, LogRing

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


@pytest.fixture
async def outside(launcher: LocalLauncher) -> AsyncIterator[ExternalLauncher]:
    async with ExternalLauncher(launcher) as outside:
        yield outside


def external_command(*argv: str) -> Command:
    return Command(argv=argv, label="m", is_external=True)


def detached(port: int, pid_file: Path) -> tuple[str, ...]:
    """Return a command that ends with 0 and leaves a server in another session behind."""
    server = shlex.join(demo_argv(port=port))
    script = f"setsid {server} </dev/null >/dev/null 2>&1 & echo $! > {pid_file}"
    return ("sh", "-c", script)


def pid_in(file: Path) -> int:
    return int(wait_until(lambda: file.exists() and file.read_text(), what="a pid"))


def kill(pid: int) -> None:
    """Kill and reap a process that was left running, which is a child of the tests then."""
    os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "pid"


async def test_command_that_ends_with_0_leaves_its_server_running(pid_file: Path) -> None:
    """Neither the end of the command, of the run nor of both launchers ends it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    try:
        async with (
            LocalLauncher(subreaper=True) as local,
            ExternalLauncher(local) as outside,
        ):
            process = await outside.start(external_command(*detached(port, pid_file)), LogRing())
            with anyio.fail_after(LONG_S):
                while not (await process.probe(url, timeout_s=5)).is_ok:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            assert process.pid == 0
            server = procfs.find(pid_in(pid_file))
            process.kill()
            assert (await process.wait()).is_clean
            assert await process.sweep(0) == 0
            assert (await process.probe(url, timeout_s=5)).is_ok

        assert server is not None
        assert procfs.is_same(server)
    finally:
        kill(pid_in(pid_file))


async def test_command_that_fails_ends_the_run(outside: ExternalLauncher) -> None:
    """Its code is that of the run, and its output is in the log."""
    log = LogRing()
    process = await outside.start(external_command("sh", "-c", "echo no such unit; exit 5"), log)
    with anyio.fail_after(LONG_S):
        assert await process.wait() == Exit(code=5)

    assert log.history() == b"no such unit\n"


async def test_terminate_waits_until_the_server_is_gone(
    outside: ExternalLauncher, tmp_path: Path
) -> None:
    """The run ends with the server that a stop command stops, and sends it no signal itself."""
    with demo_server(cwd=tmp_path) as server:
        server.wait_healthy()
        process = await outside.start(external_command(), LogRing())
        url = f"http://127.0.0.1:{server.port}/health"
        assert (await process.probe(url, timeout_s=5)).is_ok
        process.terminate()
        with anyio.move_on_after(0.3) as waiting:
            await process.wait()
        assert waiting.cancelled_caught
        assert server.process.poll() is None
        server.signal()
        with anyio.fail_after(LONG_S):
            assert (await process.wait()).is_clean


async def test_server_without_command_fails_after_three_probes(
    outside: ExternalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes that follow each other closely count once."""
    monkeypatch.setattr(external, "_PERIOD_S", 0.2)
    url, began = f"http://127.0.0.1:{free_port()}/", anyio.current_time()
    process = await outside.start(external_command(), LogRing())
    while not (probe := await process.probe(url, timeout_s=5)).is_final:
        assert not probe.is_ok
        await anyio.sleep(0.01)

    assert 0.4 <= anyio.current_time() - began < LONG_S
    assert probe.detail.startswith("refused; no healthy server at")


async def test_command_that_runs_on_is_started_once_and_left_alone(
    launcher: LocalLauncher, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A second start finds the first command; the end of the launcher names it in the log."""
    pids = tmp_path / "pids"
    command = external_command("sh", "-c", f"echo $$ >> {pids}; exec sleep 1000")
    log = LogRing()
    async with ExternalLauncher(launcher) as outside:
        process = await outside.start(command, log)
        await anyio.to_thread.run_sync(lambda: wait_until(pids.exists, what="it runs"))
        process.kill()
        await process.wait()
        await outside.start(command, log)
    (pid,) = pids.read_text().split()
    found = procfs.find(int(pid))
    kill(int(pid))

    assert found is not None
    assert found.is_alive
    assert b"the command of an earlier start still runs" in log.history()
    assert f"m: its command (pid {pid}) is left running" in caplog.text


async def test_other_commands_are_those_of_the_local_launcher(
    outside: ExternalLauncher,
) -> None:
    """A command that is not external has a tree, and hooks run as before."""
    process = await outside.start(Command(argv=("sleep", "1000")), LogRing())
    assert isinstance(process, LocalProcess)
    assert procfs.find(process.pid)
    assert (await outside.run(Command(argv=("true",)), LogRing())).is_clean
