"""Real processes under the real launcher. A name that starts with a row id keeps its promise."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from tools.loops import needs
from tools.net import LATE_S, LONG_S, wait_until_async
from tools.rows import row

from swapchart.adapters.process import LocalLauncher, LocalProcess, oom, pidfd, procfs
from swapchart.machine.errors import ConfigError
from swapchart.runtime.errors import EngineError, SpecError
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Command, Exit

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
async def launcher() -> AsyncIterator[LocalLauncher]:
    """One launcher; leaving it must leave nothing: no process, no zombie, no descriptor."""
    fds = names_in("/proc/self/fd")
    async with LocalLauncher(guard=False, subreaper=True) as launcher:
        yield launcher
    await wait_until_async(lambda: not marked(f"SWAPCHART_INSTANCE={launcher.instance}"))
    assert not zombies()
    assert names_in("/proc/self/fd") <= fds


def names_in(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def sh(script: str, **env: str) -> Command:
    return Command(argv=("sh", "-c", script), env=env, label="test")


def python(script: str, *args: str) -> Command:
    argv = (sys.executable, "-I", "-S", "-c", textwrap.dedent(script), *args)
    return Command(argv=argv, label="test")


def marked(variable: str) -> list[int]:
    return [p.pid for p in procfs.scan() if p.is_alive and procfs.carries(p.pid, variable)]


def zombies() -> list[procfs.Proc]:
    return [p for p in procfs.scan() if p.ppid == os.getpid() and not p.is_alive]


def foreign(*argv: str, start_new_session: bool = False) -> subprocess.Popen[bytes]:
    """Start a process that is none of the launcher's."""
    return subprocess.Popen(argv, start_new_session=start_new_session)


def steal_status(pid: int) -> None:
    os.waitpid(pid, 0)


def block_until_dead(process: LocalProcess) -> None:
    """Keep the event loop from hearing anything until the leader is a zombie."""
    deadline = time.monotonic() + 10
    while (found := procfs.find(process.pid)) is not None and found.is_alive:
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def until_said(log: LogRing, words: bytes, within_s: float = LONG_S) -> None:
    await wait_until_async(lambda: words in log.history(), within_s)


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("no-such-program-here", "--key", "s3cret"), "No such file"),
        (("NOACCESS", "s3cret"), "Permission denied"),
        (("NOEXEC", "s3cret"), "Exec format error"),
        (("true", "s3cret" * 50_000), "Argument list too long"),
        (("true", "s3cret\0"), "null byte"),
        (("no-such-program --key s3cret",), "No such file"),
        (("true\ud800", "s3cret"), "cannot be encoded"),
    ],
)
@row("A01")
async def test_launch_of_a_command_that_cannot_run_is_a_spec_error(
    launcher: LocalLauncher, tmp_path: Path, argv: tuple[str, ...], reason: str
) -> None:
    """A wrong command fails at once, for good, and its text holds no argument."""
    for name, mode in (("NOACCESS", 0o644), ("NOEXEC", 0o755)):
        (tmp_path / name).write_bytes(b"\x7fELF but no more than that")
        (tmp_path / name).chmod(mode)
    argv = tuple(str(tmp_path / item) if item.startswith("NO") else item for item in argv)
    began = time.monotonic()

    with pytest.raises(SpecError, match=reason) as caught:
        await launcher.start(Command(argv=argv), LogRing())

    assert "s3cret" not in str(caught.value)
    assert time.monotonic() - began < LATE_S


@pytest.mark.parametrize("argv", [(), ("",)])
async def test_launch_of_an_empty_command_is_a_spec_error(
    launcher: LocalLauncher, argv: tuple[str, ...]
) -> None:
    """Only a model that runs outside of its command may have none."""
    with pytest.raises(ConfigError, match="at least one text"):
        Command(argv=argv)
    with pytest.raises(SpecError, match="the command is empty"):
        await launcher.start(Command(argv=argv, is_external=True), LogRing())


@row("A01")
async def test_launch_in_a_missing_directory_names_it(launcher: LocalLauncher) -> None:
    """It is the directory that is missing, not the program."""
    with pytest.raises(SpecError, match=r"true: working directory /no/such/place: No such file"):
        await launcher.start(Command(argv=("true",), cwd="/no/such/place"), LogRing())


@row("A02")
async def test_wait_reports_exit_code_signal_and_last_output(launcher: LocalLauncher) -> None:
    """Every waiter gets the exact exit status, and the log is complete then."""
    for script, expected in [
        ("echo last words; exit 0", Exit(code=0)),
        ("echo last words; exit 139", Exit(code=139)),
        ("echo last words; kill -SEGV $$", Exit(signal=signal.SIGSEGV)),
    ]:
        log = LogRing()
        process = await launcher.start(sh(script), log)
        seen: list[Exit] = []

        async def wait(process: LocalProcess = process, seen: list[Exit] = seen) -> None:
            seen.append(await process.wait())

        async with anyio.create_task_group() as waiters:
            for _ in range(3):
                waiters.start_soon(wait)

        assert seen == [expected] * 3
        assert log.history() == b"last words\n"
        assert await process.wait() == expected
        assert await process.sweep(0) == 0


@row("A02")
async def test_wait_returns_after_the_log_is_complete(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a child wrote is in its log when wait returns, even if the pump was behind."""
    monkeypatch.setattr("swapchart.adapters.process.output.TURN_BYTES", 1)
    log = LogRing()
    process = await launcher.start(sh("head -c 180000 /dev/zero; echo; echo last words"), log)
    block_until_dead(process)
    await process.wait()

    assert log.total_bytes == 180_000 + len("\nlast words\n")
    await process.sweep(0)


@row("A02")
async def test_wait_returns_at_once_after_an_exit(launcher: LocalLauncher) -> None:
    """Between a child's end and the return of wait lie less than 50 ms, in one of five times."""
    delays = []
    for _ in range(5):
        process = await launcher.start(sh("exec sleep 60"), LogRing())
        began = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == Exit(signal=9)
        delays.append(time.monotonic() - began)
        assert await process.sweep(0) == 0

    assert min(delays) < 0.05


@row("A03")
async def test_sweep_after_a_crash_ends_the_tree(launcher: LocalLauncher) -> None:
    """After a crash of the leader, sweep ends its workers, wherever they have gone."""
    log = LogRing()
    script = "sleep 60 & sleep 61 & env -i sleep 62 & setsid sleep 63 & echo up; wait"
    process = await launcher.start(sh(script), log)
    await until_said(log, b"up")
    await wait_until_async(lambda: len(process.tree()) == 5)
    os.kill(process.pid, signal.SIGSEGV)

    assert await process.wait() == Exit(signal=11)
    assert await process.sweep(0) == 4
    assert process.tree() == []


@row("A03")
async def test_sweep_finds_an_unmarked_job(launcher: LocalLauncher) -> None:
    """A worker without environment, in a group of its own, is known by its session."""
    log = LogRing()
    script = """
        import os, shutil, signal
        if os.fork() == 0:
            os.setpgid(0, 0)
            print("up", flush=True)
            os.execve(shutil.which("sleep"), ["sleep", "60"], {})
        signal.pause()
    """
    process = await launcher.start(python(script), log)
    await until_said(log, b"up")
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    (worker,) = process.tree()

    assert worker.pgid == worker.pid
    assert await process.sweep(0) == 1


async def test_sweep_lets_the_rest_end_by_itself(launcher: LocalLauncher) -> None:
    """A worker that ends within the grace is not killed, and sweep returns when it has."""
    process = await launcher.start(sh("sleep 0.2 & exit 0"), LogRing())
    await process.wait()
    began = time.monotonic()

    assert await process.sweep(10) == 0
    assert time.monotonic() - began < 5


async def test_sweep_of_a_living_leader_ends_it_too(launcher: LocalLauncher) -> None:
    """Called early, sweep gives the leader the same grace period and keeps its exit status."""
    process = await launcher.start(sh("sleep 60 & exec sleep 60"), LogRing())
    await wait_until_async(lambda: len(process.tree()) == 2)

    assert await process.sweep(0.05) == 2
    assert await process.wait() == Exit(signal=9)
    assert not [each for each in zombies() if each.sid == process.pid]


async def test_sweep_of_an_empty_tree_is_fast(launcher: LocalLauncher) -> None:
    """With an empty tree sweep costs one look."""
    process = await launcher.start(sh("exit 0"), LogRing())
    await process.wait()
    costs = []
    for _ in range(5):
        began = time.monotonic()
        assert await process.sweep(10) == 0
        costs.append(time.monotonic() - began)

    assert min(costs) < 0.05


@row("A08")
async def test_kill_ends_a_leader_that_ignores_sigterm(launcher: LocalLauncher) -> None:
    """To terminate is to ask, to kill is to end."""
    log = LogRing()
    process = await launcher.start(sh("trap '' TERM; echo up; exec sleep 60"), log)
    await until_said(log, b"up")
    process.terminate()
    with anyio.move_on_after(0.2) as grace:
        await process.wait()
    assert grace.cancelled_caught
    process.kill()

    assert await process.wait() == Exit(signal=9)
    assert await process.sweep(0) == 0


@row("A09")
async def test_sweep_kills_workers_that_ignore_sigterm(launcher: LocalLauncher) -> None:
    """When the leader ends on SIGTERM, the rest gets its grace and is then killed."""
    log = LogRing()
    worker = "(trap '' TERM; echo up; while :; do sleep 0.05; done)"
    process = await launcher.start(sh(f"{worker} & {worker} & wait"), log)
    await wait_until_async(lambda: log.history().count(b"up") == 2)
    process.terminate()

    assert await process.wait() == Exit(signal=15)
    began = time.monotonic()
    assert await process.sweep(0.3) >= 2
    assert 0.3 <= time.monotonic() - began < 3
    assert process.tree() == []


@row("A12")
async def test_sweep_terminates_a_daemon_before_it_kills_it(launcher: LocalLauncher) -> None:
    """SIGTERM to the group does not reach it; sweep lets it end in good order, and soon."""
    log = LogRing()
    daemon = "trap 'echo daemon ends; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    process = await launcher.start(sh(f'setsid sh -c "{daemon}" & wait'), log)
    await wait_until_async(lambda: b"up" in log.history())
    process.terminate()
    await process.wait()
    began = time.monotonic()

    assert await process.sweep(30) == 0
    assert time.monotonic() - began < 15
    assert b"daemon ends" in log.history()


@row("A10")
async def test_wait_and_sweep_are_not_delayed_by_a_held_pipe(launcher: LocalLauncher) -> None:
    """A grandchild that holds the output keeps neither wait nor sweep from returning."""
    log = LogRing()
    began = time.monotonic()
    process = await launcher.start(sh("sleep 60 & echo bye; exit 3"), log)

    assert await process.wait() == Exit(code=3)
    assert time.monotonic() - began < LATE_S
    assert await process.sweep(0) == 1
    await wait_until_async(lambda: process.is_quiet)


@row("A10")
async def test_pipe_held_by_a_foreign_process_is_closed(launcher: LocalLauncher) -> None:
    """A pipe that a process outside the tree holds is closed a second after sweep."""
    log = LogRing()
    process = await launcher.start(sh("echo up; exec sleep 60"), log)
    await until_said(log, b"up")
    with foreign("sh", "-c", f"exec sleep 60 >/proc/{process.pid}/fd/1") as stranger:
        await wait_until_async(lambda: procfs.program(stranger.pid) != "dash")
        process.kill()
        await process.wait()
        assert await process.sweep(0) == 0
        began = time.monotonic()
        await wait_until_async(lambda: process.is_quiet)

        assert 0.9 < time.monotonic() - began < 1.0 + LATE_S
        assert stranger.poll() is None
        stranger.kill()


@row("A12")
async def test_sweep_finds_and_kills_a_daemon(launcher: LocalLauncher) -> None:
    """A double fork with setsid does not escape: sweep finds the daemon by its marker."""
    log = LogRing()
    script = "(setsid sh -c 'sleep 60 & echo up; wait' >/dev/null 2>&1 &) ; sleep 0.2; exit 0"
    process = await launcher.start(sh(script), log)

    assert await process.wait() == Exit(code=0)
    assert len(process.tree()) == 2
    assert await process.sweep(0) == 2


@row("A12")
async def test_kill_reaches_a_daemon_while_the_leader_lives(launcher: LocalLauncher) -> None:
    """Processes that left the group are killed with it."""
    process = await launcher.start(sh("setsid sleep 60 & wait"), LogRing())
    await wait_until_async(lambda: len({each.sid for each in process.tree()}) == 2)
    process.kill()
    await process.wait()

    await wait_until_async(lambda: not process.tree())
    assert await process.sweep(0) == 0


@row("A14")
async def test_reaping_loses_no_zombie_and_no_exit_code(launcher: LocalLauncher) -> None:
    """Over a hundred starts with orphans, every code is right and nothing waits to be reaped."""
    own = [foreign("sh", "-c", f"exit {code}") for code in range(20)]
    for code in range(100):
        process = await launcher.start(sh(f"(sleep .05 &); exit {code}"), LogRing())
        assert await process.wait() == Exit(code=code)
        await process.sweep(1 if code % 10 == 0 else 0)

    assert [each.wait() for each in own] == list(range(20))
    await wait_until_async(lambda: not zombies())


@row("A14")
async def test_reaping_includes_an_unknown_daemon(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that no scan saw is reaped after a while; children of other code are not."""
    monkeypatch.setattr("swapchart.adapters.process.tree.adoption.UNKNOWN_ZOMBIE_S", 0.5)
    stranger = foreign("sh", "-c", "exit 7")
    process = await launcher.start(sh("(setsid true & sleep 0.1); exec sleep 60"), LogRing())
    await wait_until_async(lambda: len(zombies()) == 2)
    await wait_until_async(lambda: len(zombies()) == 1)

    assert stranger.wait() == 7
    process.kill()
    await process.wait()
    await process.sweep(0)


@row("A14")
async def test_reaping_keeps_exit_codes_of_leaders(launcher: LocalLauncher) -> None:
    """A leader that is dead but not yet reaped keeps its exit code when daemons are reaped."""
    process = await launcher.start(sh("sleep 0.1; exit 3"), LogRing())
    assert process.tree()
    block_until_dead(process)
    launcher.reap()

    assert await process.wait() == Exit(code=3)
    await process.sweep(0)


@row("A20")
async def test_sweep_leaves_a_recycled_group_alone(launcher: LocalLauncher) -> None:
    """When the group has ended, terminate and kill signal no process that reuses its id."""
    process = await launcher.start(sh("exit 0"), LogRing())
    await process.wait()
    await process.sweep(0)
    with foreign("sleep", "60", start_new_session=True) as stranger:
        process._pid = stranger.pid  # as if the kernel had given the number again
        process.terminate()
        process.kill()
        assert await process.sweep(0) == 0

        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("kind", ["lines", "one line"])
@row("A21", "A22")
async def test_output_flood_does_not_block_the_loop(launcher: LocalLauncher, kind: str) -> None:
    """A flooding child neither stops the loop nor fills the memory, and its end is kept."""
    source = "yes 0123456789012345678901234567890123456789" if kind == "lines" else "cat /dev/zero"
    log = LogRing()
    command = sh(f"{source} | head -c 200000000; echo; echo the end")
    process = await launcher.start(command, log)
    gaps: list[float] = []
    with anyio.CancelScope() as ticking:

        async def tick() -> None:
            last = time.monotonic()
            while True:
                await anyio.sleep(0.001)
                gaps.append(time.monotonic() - last)
                last = time.monotonic()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            await process.wait()
            ticking.cancel()

    assert log.total_bytes == 200000000 + len("\nthe end\n")
    assert log.tail(1) == ["the end"]
    assert len(log.history()) <= 1 << 20
    assert sorted(gaps)[int(len(gaps) * 0.95)] < 0.05


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 96 MiB; version 1 or 2, where this system has one and lets us."""
    old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (new, "memory.max")
    cgroup = root / f"swapchart-test-{os.getpid()}"
    try:
        cgroup.mkdir()
        (cgroup / limit).write_text(str(96 << 20))
    except OSError:
        with suppress(OSError):
            cgroup.rmdir()
        pytest.skip("no memory cgroup can be made here")
    yield cgroup
    cgroup.rmdir()


@row("A32")
async def test_launch_at_the_process_limit_is_an_engine_error(
    pids_cgroup: Path, tmp_path: Path
) -> None:
    """Where fork fails a start fails as worth another try, nothing leaks, and it works later."""
    script = """
        import anyio, os, pathlib, sys
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.errors import EngineError
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        async def main():
            cgroup = pathlib.Path(sys.argv[1])
            (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            command = Command(argv=("true",))
            async with LocalLauncher(guard=False) as launcher:
                print(await launcher.run(command, LogRing()))
                before = len(os.listdir("/proc/self/fd"))
                (cgroup / "pids.max").write_text((cgroup / "pids.current").read_text())
                for _ in range(3):
                    try:
                        await launcher.run(command, LogRing())
                    except EngineError as error:
                        print(error)
                print(len(os.listdir("/proc/self/fd")) - before)
                (cgroup / "pids.max").write_text("max")
                print(await launcher.run(command, LogRing()))

        anyio.run(main)
    """
    result = await anyio.run_process(
        (sys.executable, "-c", textwrap.dedent(script), str(pids_cgroup)), cwd=tmp_path
    )

    refused = "cannot start true: Resource temporarily unavailable"
    said = result.stdout.decode().splitlines()
    assert said == ["exit code 0", refused, refused, refused, "0", "exit code 0"]


@row("A33")
async def test_wait_distinguishes_out_of_memory_kills(small_cgroup: Path, tmp_path: Path) -> None:
    """A leader or a worker that the kernel kills; then kills that have other reasons."""
    script = """
        import anyio, os, pathlib, sys
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        EAT = f"{sys.executable} -S -c 'x = bytearray(300 << 20)'"

        async def main():
            pathlib.Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
            async with LocalLauncher(guard=False) as launcher:
                for script in (
                    f"exec {EAT}", f"{EAT}; exit 3", "kill -9 $$", "exit 4", f"{EAT}; exit 5"
                ):
                    command = Command(argv=("sh", "-c", script))
                    print(await launcher.run(command, LogRing()), flush=True)
                log = LogRing()
                command = Command(argv=("sh", "-c", f"{EAT}; echo eaten; exec sleep 60"))
                process = await launcher.start(command, log)
                while b"eaten" not in log.history():
                    await anyio.sleep(0.01)
                process.kill()
                print(await process.wait())
                await process.sweep(0)
                print(await launcher.run(Command(argv=("false",)), LogRing()))

        anyio.run(main)
    """
    result = await anyio.run_process(
        (sys.executable, "-c", textwrap.dedent(script), str(small_cgroup)), cwd=tmp_path
    )

    assert result.stdout.decode().splitlines() == [
        "killed by signal 9 by the kernel, out of memory",
        "exit code 3; the kernel killed a process, out of memory",
        "killed by signal 9",
        "exit code 4",
        "exit code 5; the kernel killed a process, out of memory",
        "killed by signal 9",  # by the launcher, although a process of its tree was killed before
        "exit code 1",
    ]


@row("A40")
async def test_launch_passes_only_required_state_to_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed descriptors, empty mask, default signals, no secret, standard input at its end."""
    monkeypatch.setenv("OUR_KEY", "s3cret")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    drop = frozenset({"OUR_KEY"})
    try:
        async with LocalLauncher(guard=True, drop_env=drop, instance="me") as launcher:
            log = LogRing()
            command = Command(
                argv=("sh", "-c", "ls /proc/self/fd; env; cat"),
                env={"MINE": "yes", "SWAPCHART_RUN": "not yours to set"},
                label="some model",
            )
            assert (await launcher.run(command, log)).is_clean
            status = Command(argv=("grep", "^Sig", "/proc/self/status"))  # dash clears its mask
            assert (await launcher.run(status, log)).is_clean
            assert launcher.instance == "me"
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        ours = signal.signal(signal.SIGHUP, before)

    said = log.history().decode().splitlines()
    assert said[:4] == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    assert {line.split()[1] for line in said if line.startswith(("SigBlk", "SigIgn"))} == {"0" * 16}
    assert {"MINE=yes", "SWAPCHART_SERVICE=some model", "SWAPCHART_INSTANCE=me"} <= set(said)
    assert not any("s3cret" in line or "not yours" in line for line in said)
    assert ours is signal.SIG_IGN


@row("A31")
async def test_launch_restores_the_limit_of_open_files(tmp_path: Path) -> None:
    """We raise the soft limit for ourselves; a child sees the one we were given."""
    script = """
        import anyio, resource
        from swapchart.adapters.process import rlimits
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        async def main():
            resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
            assert rlimits.raise_nofile_limit() == rlimits.raise_nofile_limit() == 400
            async with LocalLauncher(guard=False) as launcher:
                log = LogRing()
                await launcher.run(Command(argv=("sh", "-c", "sleep 0.1; ulimit -n")), log)
                print(log.history().decode(), resource.getrlimit(resource.RLIMIT_NOFILE))

        anyio.run(main)
    """
    result = await anyio.run_process((sys.executable, "-c", textwrap.dedent(script)), cwd=tmp_path)

    assert result.stdout.decode() == "300\n (400, 400)\n"


@row("A31")
async def test_launch_at_the_descriptor_limit_is_an_engine_error(tmp_path: Path) -> None:
    """At EMFILE a start fails as worth another try, and works again afterwards."""
    script = """
        import anyio, os, resource
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.errors import EngineError
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        async def main():
            async with LocalLauncher(guard=False) as launcher:
                command = Command(argv=("true",))
                await launcher.run(command, LogRing())
                resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
                held = []
                try:
                    while True:
                        held.append(os.dup(0))
                except OSError:
                    pass
                for spare in range(5):
                    try:
                        await launcher.run(command, LogRing())
                    except EngineError as error:
                        print(error)
                    os.close(held.pop())
                for fd in held:
                    os.close(fd)
                print(await launcher.run(command, LogRing()))

        anyio.run(main)
    """
    result = await anyio.run_process((sys.executable, "-c", textwrap.dedent(script)), cwd=tmp_path)

    lines = result.stdout.decode().splitlines()
    assert lines[0] == "cannot start true: Too many open files"
    assert lines[-1] == "exit code 0"


@row("A31")
async def test_sweep_waits_for_a_descriptor(tmp_path: Path) -> None:
    """Out of descriptors, sweep does not take a tree that it cannot see for an empty one."""
    script = """
        import anyio, os, resource
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        async def main():
            async with LocalLauncher(guard=False, subreaper=True) as launcher:
                command = Command(argv=("sh", "-c", "setsid sleep 60 & sleep 60 & exit 3"))
                process = await launcher.start(command, LogRing())
                print(await process.wait())
                resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
                held = []
                try:
                    while True:
                        held.append(os.dup(0))
                except OSError:
                    pass
                process.kill()
                process.terminate()
                async with anyio.create_task_group() as tasks:
                    async def release():
                        await anyio.sleep(0.2)
                        for fd in held:
                            os.close(fd)
                    tasks.start_soon(release)
                    print(await process.sweep(0))

        anyio.run(main)
    """
    result = await anyio.run_process((sys.executable, "-c", textwrap.dedent(script)), cwd=tmp_path)

    assert result.stdout.decode() == "exit code 3\n2\n"


@row("A41")
async def test_launch_makes_the_child_a_session_leader(launcher: LocalLauncher) -> None:
    """No terminal's Ctrl-C reaches a child: group and session are its own."""
    process = await launcher.start(sh("exec sleep 60"), LogRing())

    assert os.getpgid(process.pid) == os.getsid(process.pid) == process.pid
    process.terminate()
    assert await process.wait() == Exit(signal=15)
    await process.sweep(0)


@row("A43")
async def test_terminate_continues_a_stopped_child(launcher: LocalLauncher) -> None:
    """A stopped child is continued, and then ends by its own handler."""
    log = LogRing()
    script = "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done"
    process = await launcher.start(sh(script), log)
    await until_said(log, b"up")
    os.kill(process.pid, signal.SIGSTOP)
    process.terminate()

    with anyio.fail_after(LONG_S):
        assert await process.wait() == Exit(code=5)
    await process.sweep(0)


@row("A46")
async def test_wait_uses_no_threads(launcher: LocalLauncher) -> None:
    """Thirty children are watched by no thread at all."""
    first = await launcher.start(sh("exec sleep 60"), LogRing())  # joining its cgroup takes one
    before = names_in("/proc/self/task")
    processes = [await launcher.start(sh("exec sleep 60"), LogRing()) for _ in range(30)]

    assert names_in("/proc/self/task") <= before
    for process in (first, *processes):
        process.kill()
        await process.wait()


async def test_launcher_without_pidfd_works(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has no pidfd, a thread waits and sweep looks again and again."""

    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(pidfd, "open_pidfd", missing)
    process = await launcher.start(sh("sleep 0.3 & sleep 60 & exit 4"), LogRing())

    assert await process.wait() == Exit(code=4)
    assert await process.sweep(0.5) == 1
    assert process.tree() == []


async def test_pidfd_without_python_support_uses_the_system_call(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only Python lacks the calls, they are made without it: no thread, no polling."""
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.delattr(signal, "pidfd_send_signal")
    process = await launcher.start(sh("exec sleep 60"), LogRing())  # joining its cgroup takes one
    process.kill()
    await process.wait()
    threads = names_in("/proc/self/task")
    process = await launcher.start(sh("setsid sleep 60 & exit 4"), LogRing())

    assert await process.wait() == Exit(code=4)
    assert await process.sweep(0) == 1
    assert names_in("/proc/self/task") <= threads  # those of other tests may end
    with pytest.raises(ProcessLookupError):
        pidfd.open_pidfd(process.pid)


async def test_process_whose_first_thread_ended_is_alive(launcher: LocalLauncher) -> None:
    """It shows as a zombie in /proc, and ends when its last thread does."""
    log = LogRing()
    script = """
        import ctypes, threading, time
        def work():
            time.sleep(0.2)
            print("still here", flush=True)
            time.sleep(0.2)
        threading.Thread(target=work).start()
        ctypes.CDLL(None).pthread_exit(None)
    """
    process = await launcher.start(python(script), log)
    await until_said(log, b"still here")

    assert b") Z " in procfs.read_bytes(f"/proc/{process.pid}/stat")
    assert [each.pid for each in process.tree()] == [process.pid]
    assert await process.wait() == Exit(code=0)
    await process.sweep(0)


@row("A10")
async def test_wait_with_a_stolen_exit_status_returns(launcher: LocalLauncher) -> None:
    """If other code reaps the child, wait returns with an unknown exit status."""
    process = await launcher.start(sh("exec sleep 60"), LogRing())
    process.kill()
    steal_status(process.pid)

    with anyio.fail_after(LONG_S):
        assert await process.wait() == Exit()
    await process.sweep(0)


@row("B07")
async def test_run_of_a_hook_ends_with_its_leader(launcher: LocalLauncher) -> None:
    """A background child neither delays the end of a hook nor survives it."""
    log = LogRing()
    began = time.monotonic()

    assert await launcher.run(sh("sleep 99 & setsid sleep 99 & echo hi; exit 0"), log) == Exit(
        code=0
    )
    assert time.monotonic() - began < LATE_S
    assert log.history() == b"hi\n"
    assert not marked(f"SWAPCHART_INSTANCE={launcher.instance}")


@row("B06")
async def test_run_of_a_hook_caps_its_output(launcher: LocalLauncher) -> None:
    """64 KiB are kept, the rest is counted in one line, and the hook is never blocked."""
    log = LogRing()

    assert (await launcher.run(sh("yes | head -c 10000000"), log)).is_clean
    assert log.total_bytes < 66_000
    assert log.tail(1) == [f"[{10_000_000 - 65_536} bytes of output dropped]"]


@row("B01")
async def test_run_that_is_cancelled_leaves_no_process(launcher: LocalLauncher) -> None:
    """When run is cancelled, its whole tree is dead and reaped before it returns."""
    log = LogRing()
    left: list[object] = []

    async def hook() -> None:
        script = "trap '' TERM; sleep 99 & setsid sleep 99 & sleep 0.1; echo up; wait"
        try:
            await launcher.run(sh(script), log)
        except anyio.get_cancelled_exc_class():
            left.extend([zombies(), marked(f"SWAPCHART_INSTANCE={launcher.instance}")])
            raise

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hook)
            await until_said(log, b"up")
            tasks.cancel_scope.cancel()

    assert left == [[], []]


@pytest.mark.parametrize("reason", ["end", "error", "cancel"])
async def test_launcher_exit_kills_remaining_processes(reason: str) -> None:
    """Whatever ends the block, no process outlives it, and its error comes out as it is."""
    launcher = LocalLauncher(guard=False)
    process: LocalProcess | None = None

    async def serve() -> None:
        nonlocal process
        async with launcher:
            process = await launcher.start(sh("sleep 99 & setsid sleep 99 & wait"), LogRing())
            await wait_until_async(lambda: process and len(process.tree()) == 3)
            if reason == "error":
                raise LookupError("as it is")
            if reason == "cancel":
                scope.cancel()
                await anyio.sleep(10)

    with anyio.CancelScope() as scope:
        if reason == "error":
            with pytest.raises(LookupError, match="as it is"):
                await serve()
        else:
            await serve()

    assert scope.cancelled_caught == (reason == "cancel")
    assert not marked(f"SWAPCHART_INSTANCE={launcher.instance}")
    assert process is not None
    assert await process.wait() == Exit(signal=9)
    with pytest.raises(EngineError, match="closed"):
        await launcher.start(sh("true"), LogRing())


async def test_launcher_exit_works_after_all_tasks_were_cancelled(tmp_path: Path) -> None:
    """A loop that is torn down cancels our tasks behind our back; nothing hangs or is left."""
    script = """
        import asyncio, os
        from swapchart.adapters.process import procfs
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        async def main():
            async with LocalLauncher(subreaper=True) as launcher:
                command = Command(argv=("sh", "-c", "sleep 60 & setsid sleep 60 & wait"))
                process = await launcher.start(command, LogRing())
                await asyncio.sleep(0.1)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        print([each for each in procfs.scan() if each.ppid == os.getpid()])
    """
    with anyio.fail_after(20):
        result = await anyio.run_process(
            (sys.executable, "-c", textwrap.dedent(script)), cwd=tmp_path
        )

    assert result.stdout.decode() == "[]\n"
    assert result.stderr == b""


@pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=needs("uvloop")),
        pytest.param(("trio", {}), id="trio", marks=needs("trio")),
    ],
)
async def test_launcher_works_on_each_event_loop(
    anyio_backend: tuple[str, dict[str, bool]],
) -> None:
    """Start, log, probe, terminate, sweep and run work on asyncio, uvloop and trio."""
    async with LocalLauncher(subreaper=True) as launcher:
        log = LogRing()
        process = await launcher.start(sh("sleep 60 & echo hello; exec sleep 60"), log)
        await until_said(log, b"hello")
        probe = await process.probe("http://127.0.0.1:1/", timeout_s=1)
        assert (probe.is_ok, probe.detail) == (False, "refused")
        process.terminate()
        assert await process.wait() == Exit(signal=15)
        await process.sweep(1)
        assert await launcher.run(sh("exit 9"), log) == Exit(code=9)
    assert not marked(f"SWAPCHART_INSTANCE={launcher.instance}")


# ---- memory
def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


@row("A34")
async def test_launch_raises_the_oom_score_of_children(launcher: LocalLauncher) -> None:
    """Leader, its children and hooks have a score of 300 more than ours, 1000 at most."""
    expected, log, said = min(oom_score(os.getpid()) + 300, 1000), LogRing(), LogRing()
    process = await launcher.start(sh("sleep 0.2; sleep 60 & echo up; wait"), log)
    await until_said(log, b"up")
    scores = [oom_score(each.pid) for each in process.tree()]
    await launcher.run(sh("sleep 0.2; exec cat /proc/self/oom_score_adj"), said)

    assert scores == [expected] * 2
    assert int(said.history()) == expected


@row("A34")
async def test_launch_keeps_an_oom_score_set_by_the_child(launcher: LocalLauncher) -> None:
    """A command that sets its own, as choom does, may have done so before us."""
    log = LogRing()
    chosen = min(oom_score(os.getpid()) + 100, 1000)
    script = f"sleep 0.2; echo {chosen} > /proc/self/oom_score_adj; echo chosen; exec sleep 60"
    process = await launcher.start(sh(script), log)
    await until_said(log, b"chosen")
    oom.raise_oom_score(process.pid)

    assert oom_score(process.pid) == chosen
