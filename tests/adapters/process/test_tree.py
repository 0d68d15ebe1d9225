"""Trees of real processes that try to get away: none does, and no stranger is touched."""

import os
import resource
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from tools.forking import RENEWED_BELOW
from tools.net import wait_until_async

from swapchart.adapters.process import LocalLauncher, LocalProcess, container_engines, procfs
from swapchart.adapters.process.tree import adoption, cgroup, descendants
from swapchart.adapters.process.tree import tag as proctag
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Command

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PYTHON = Path(sys.executable).resolve()

#: Forks twice, leaves session and environment, and is then what its argument says.
DAEMON = textwrap.dedent("""
    import os, resource, signal, socket, sys, time
    mode, path, *rest = sys.argv[1:]
    if os.fork():
        signal.pause()
    os.setsid()
    if os.fork():
        os._exit(0)
    if "reset" in mode:  # as pam_limits may
        resource.setrlimit(resource.RLIMIT_RTTIME, (-1, -1))
    if "--inside" not in rest:
        inside = [mode, path, *rest, "--inside"]
        os.closerange(0, 3)
        [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
        argv = [sys.executable, "-I", "-S", "-c", sys.orig_argv[4], *inside]
        # what follows is a new program without any variable
        os.execve(sys.executable, [*argv[:4], BODY, *inside], {})
""")
BODY = textwrap.dedent("""
    import os, signal, sys, time
    mode, path = sys.argv[1:3]
    def end(*_):
        os.rename(path, path + ".asked")
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in mode else end)
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    time.sleep(120)
""")
DAEMON = f"BODY = {BODY!r}\n{DAEMON}"


@pytest.fixture(params=["cgroup", "no cgroup"])
async def launcher(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[LocalLauncher]:
    """A launcher with cgroups, where they can be made, and one without."""
    if request.param == "no cgroup":
        monkeypatch.setattr(cgroup, "own_folder", lambda: None)
    elif cgroup.own_folder() is None:
        pytest.skip("no cgroup can be made here")
    async with LocalLauncher(guard=False, subreaper=True) as launcher:
        yield launcher
    assert not [p for p in procfs.scan() if proctag.is_of(proctag.read(p.pid), launcher.instance)]
    folder = cgroup.own_folder()
    assert folder is None or not list(folder.glob(f"swapchart-{os.getpid()}-*"))


def python(script: str, *args: object, label: str = "test") -> Command:
    argv = (sys.executable, "-I", "-S", "-c", script, *map(str, args))
    return Command(argv=argv, label=label)


def pid_in(path: Path) -> int:
    return int(path.read_text())


async def start_daemon(
    launcher: LocalLauncher, path: Path, mode: str = ""
) -> tuple[LocalProcess, procfs.Proc]:
    """Start a process whose daemon writes its pid to *path*; returns both."""
    process = await launcher.start(python(DAEMON, mode, path, label=path.name), LogRing())
    await wait_until_async(path.exists)
    daemon = procfs.find(pid_in(path))
    assert daemon is not None
    return process, daemon


async def unload(process: LocalProcess, grace_s: float = 10.0) -> int:
    process.terminate()
    await process.wait()
    return await process.sweep(grace_s)


async def test_sweep_daemon_without_environment_ends_it_gently(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """A daemon that left session and environment is sent SIGTERM and ends within the grace."""
    process, daemon = await start_daemon(launcher, tmp_path / "pid")
    is_unmarked = not procfs.read_bytes(f"/proc/{daemon.pid}/environ")
    killed = await unload(process)

    assert is_unmarked
    assert os.getppid() != daemon.pid != process.pid
    assert killed == 0
    assert (tmp_path / "pid.asked").exists()
    assert not procfs.is_same(daemon)


async def test_wait_no_thread_is_free_notices_the_exit(launcher: LocalLauncher) -> None:
    """Work that holds all threads does not keep the exit of a model from being seen."""
    release = threading.Event()
    async with anyio.create_task_group() as busy:
        limiter = anyio.to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.total_tokens)):
            busy.start_soon(anyio.to_thread.run_sync, release.wait, 60)
        try:
            await wait_until_async(lambda: limiter.available_tokens == 0)
            process = await launcher.start(Command(argv=("true",)), LogRing())
            with anyio.fail_after(10):
                assert (await process.wait()).code == 0
                await process.sweep(0)
        finally:
            release.set()


async def test_sweep_daemon_that_ignores_sigterm_kills_it_after_the_grace(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """What does not end by itself within the grace is killed."""
    process, daemon = await start_daemon(launcher, tmp_path / "pid", "deaf")
    began = time.monotonic()

    assert await unload(process, 0.3) == 1
    assert time.monotonic() - began >= 0.3
    assert not procfs.is_same(daemon)


async def test_sweep_daemon_of_another_run_leaves_it(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """The end of one tree touches no daemon of another."""
    one, first = await start_daemon(launcher, tmp_path / "one")
    two, second = await start_daemon(launcher, tmp_path / "two")
    await unload(one)

    assert not procfs.is_same(first)
    assert procfs.is_same(second)
    await unload(two)
    assert not procfs.is_same(second)


async def test_sweep_daemon_without_tag_ends_it_as_the_only_heir(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """A daemon that nothing marks was handed to us; it is ended if it can be of one run only."""
    process, daemon = await start_daemon(launcher, tmp_path / "pid", "reset")
    tag = proctag.read(daemon.pid)
    await unload(process)

    assert tag == 0
    assert not procfs.is_same(daemon)


async def test_sweep_daemon_without_tag_or_cgroup_ends_it_with_the_last_possible_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """While another run may have started it, it is left alone."""
    monkeypatch.setattr(cgroup, "own_folder", lambda: None)
    async with LocalLauncher(guard=False, subreaper=True) as launcher:
        other = await launcher.start(Command(argv=("sleep", "60")), LogRing())
        process, daemon = await start_daemon(launcher, tmp_path / "pid", "reset")
        await unload(process)
        lived = procfs.is_same(daemon)
        await unload(other)

        assert lived
        assert not procfs.is_same(daemon)


async def test_launcher_exit_ends_a_daemon_of_unknown_origin(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What could have been of several runs ends with the launcher at the latest."""
    monkeypatch.setattr(cgroup, "own_folder", lambda: None)
    async with LocalLauncher(guard=False, subreaper=True) as launcher:
        await launcher.start(Command(argv=("sleep", "60")), LogRing())
        await launcher.start(Command(argv=("sleep", "60")), LogRing())
        _, daemon = await start_daemon(launcher, tmp_path / "pid", "reset deaf")

    assert not procfs.is_same(daemon)


async def test_sweep_tree_that_forks_every_2_ms_ends_it(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """A process that renews itself faster than /proc can be read does not outlive the sweep."""
    path = tmp_path / "beats"
    for _ in range(3):
        process = await launcher.start(python(RENEWED_BELOW, path), LogRing())
        await wait_until_async(lambda: path.exists() and path.stat().st_size > 20)
        await unload(process, 0.2)
        beats = path.stat().st_size
        await anyio.sleep(0.1)

        assert path.stat().st_size == beats
        path.unlink()


async def test_sweep_hook_that_leaves_a_daemon_ends_it(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """What a hook leaves behind ends with it."""
    path = tmp_path / "pid"
    script = (
        f'{sys.executable} -I -S -c "$0" deaf {path} & while [ ! -e {path} ]; do sleep .01; done'
    )
    await launcher.run(Command(argv=("sh", "-c", script, DAEMON)), LogRing())

    assert procfs.find(pid_in(path)) is None


@contextmanager
def foreign(*argv: str, start_new_session: bool = True) -> Iterator[procfs.Proc]:
    """A process that is none of the launcher's."""
    with subprocess.Popen(argv, start_new_session=start_new_session) as popen:
        found = procfs.find(popen.pid)
        assert found is not None
        try:
            yield found
        finally:
            popen.kill()


@pytest.mark.parametrize("start_new_session", [True, False])
async def test_sweep_process_of_others_is_left(
    launcher: LocalLauncher, start_new_session: bool
) -> None:
    """What this program starts by other means, before or after a run, is no part of it."""
    with foreign("sleep", "60", start_new_session=start_new_session) as before:
        process = await launcher.start(Command(argv=("sleep", "60")), LogRing())
        with foreign("sleep", "60", start_new_session=start_new_session) as after:
            await unload(process)

            assert procfs.is_same(before)
            assert procfs.is_same(after)


async def test_sweep_process_with_the_tag_of_another_proxy_is_left(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """A run of another proxy carries another tag."""
    process = await launcher.start(Command(argv=("sleep", "60")), LogRing())
    foreign_tag = proctag.make("another", "0123456789abcdef")
    with proctag.applied(foreign_tag), foreign("sleep", "60") as other:
        tag = proctag.read(other.pid)
        await unload(process)

        assert tag == proctag.make("another", "0123456789abcdef")
        assert procfs.is_same(other)


def test_tag_is_removed_from_the_proxy_after_the_launch() -> None:
    """Outside of the block our own limit is what it was."""
    before = resource.getrlimit(resource.RLIMIT_RTTIME)
    with proctag.applied(proctag.make("me", "00000000ffffffff")):
        assert proctag.is_of(proctag.read(os.getpid()), "me")

    assert resource.getrlimit(resource.RLIMIT_RTTIME) == before
    assert proctag.read(os.getpid()) == 0


def test_read_tag_of_no_process_is_none() -> None:
    """What has ended has no tag."""
    assert proctag.read(1 << 22) == 0


async def test_sweep_engine_daemon_is_left_to_its_engine(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """The monitor of a container is neither asked nor killed, nor is what is below it."""
    if PYTHON.stat().st_uid != 0:
        pytest.skip("its program file must be root's")
    names = frozenset({PYTHON.name.partition(".")[0]})
    process, daemon = await start_daemon(launcher, tmp_path / "pid")
    if process.group is not None:  # engines make a group for each container
        below = cgroup.own_folder()
        assert below is not None
        below = next(below.glob(f"swapchart-*/{process.run_id}")) / "container"
        below.mkdir()
        (below / "cgroup.procs").write_text(str(daemon.pid))
    monkeypatch.setattr(container_engines, "DAEMONS", names)
    monkeypatch.setattr(container_engines, "_MONITORS", names)
    monkeypatch.setattr("swapchart.adapters.process.tree.termination.ENGINE_LIMIT_S", 0.2)
    await unload(process)

    assert procfs.is_same(daemon)
    assert f"left to its engine (pid {daemon.pid}" in caplog.text
    os.kill(daemon.pid, 9)
    await wait_until_async(lambda: not procfs.is_same(daemon))


async def test_sweep_process_of_another_user_is_named_and_left(tmp_path: Path) -> None:
    """What we may not signal is named with its user, and the sweep does not wait 10 s for it."""
    if os.geteuid() != 0:
        pytest.skip("needs a process of root and one that is not")
    script = """
        import anyio, encodings.idna, logging, os, pwd, time
        from swapchart.adapters.process import LocalLauncher
        from swapchart.runtime.log_ring import LogRing
        from swapchart.runtime.ports import Command

        logging.basicConfig(format="%(message)s")

        async def main():
            async with LocalLauncher(guard=False, subreaper=True) as launcher:
                argv = ("sh", "-c", "setsid sleep 60 & exit 3")
                process = await launcher.start(Command(argv=argv, label="mine"), LogRing())
                await process.wait()
                while len(found := process.tree()) != 1:
                    await anyio.sleep(0.01)
                os.setresuid(65534, 65534, 0)
                began = time.monotonic()
                killed = await process.sweep(0)
                took = time.monotonic() - began
                os.setresuid(0, 0, 0)
                os.kill(found[0].pid, 9)
                print(found[0].pid, killed, took < 5)

        anyio.run(main)
    """
    result = await anyio.run_process(
        (sys.executable, "-c", textwrap.dedent(script)), cwd=tmp_path, check=False
    )
    said = result.stderr.decode()

    assert result.returncode == 0, said
    pid, *rest = result.stdout.decode().split()
    assert rest == ["0", "True"]
    assert said.count(f"mine: pid {pid} (sleep) of user root is left running") == 1


async def test_follow_new_processes_are_found_once() -> None:
    """Everything that was started after a moment is seen, and nothing older."""
    newest = descendants.newest_pid()
    with foreign("sleep", "60") as first, foreign("sleep", "60") as second:
        found = {proc.pid for proc in descendants.follow(newest, 5.0)}

        assert {first.pid, second.pid} <= found
        assert first.pid not in {proc.pid for proc in descendants.follow(first.pid, 5.0)}
        assert not descendants.is_thread(first.pid)


async def test_claims_child_in_our_session_is_never_a_stray() -> None:
    """Neither what stays in our session nor what leads one was handed to us for certain."""
    adopted = adoption.AdoptedProcesses("me", set, is_known=lambda proc: False)
    with (
        foreign("sleep", "60", start_new_session=False) as ours,
        foreign("sleep", "60") as leader,
    ):
        assert not adopted.is_stray(ours)
        assert not adopted.is_stray(leader)


def test_own_folder_without_delegation_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Under systemd a cgroup is made only where systemd has handed ours over."""
    monkeypatch.setattr(cgroup, "_SYSTEMD", tmp_path)

    assert cgroup.own_folder() is None
