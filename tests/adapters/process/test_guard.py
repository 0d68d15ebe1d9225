"""The guard: nothing outlives the proxy, however it dies; and nothing else is touched."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tools.forking import RENEWED_BELOW
from tools.net import LATE_S, LONG_S
from tools.rows import row

from swapchart.adapters.process import LocalLauncher, guard_process, procfs
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Command

pytestmark = pytest.mark.slow

PROXY = textwrap.dedent("""
    import os, sys, anyio
    from swapchart.adapters.process import LocalLauncher
    from swapchart.runtime.log_ring import LogRing
    from swapchart.runtime.ports import Command

    TREES = (
        "sleep 600 & sleep 600 & echo up; wait",
        "trap '' TERM; sleep 600 & echo up; while :; do sleep 0.1; done",
        "setsid sleep 600 & env -i sleep 600 & (setsid sleep 600 &); echo up; exec sleep 600",
    )

    async def main():
        async with LocalLauncher(subreaper=True, instance=sys.argv[1]) as launcher:
            logs = [LogRing() for _ in TREES]
            for script, log in zip(TREES, logs):
                await launcher.start(Command(argv=("sh", "-c", script), label="tree"), log)
            while not all(log.history() for log in logs):
                await anyio.sleep(0.01)
            said, test = 0, os.getppid()
            while os.getppid() == test:
                if launcher.guard_pid not in (0, said):
                    said = launcher.guard_pid
                    print(said, flush=True)
                await anyio.sleep(0.01)

    anyio.run(main)
""")


#: A proxy with a process that every 2 ms is another one, leads a session, and writes on.
RENEWED = textwrap.dedent("""
    import sys, anyio
    from swapchart.adapters.process import LocalLauncher
    from swapchart.runtime.log_ring import LogRing
    from swapchart.runtime.ports import Command

    async def main():
        async with LocalLauncher(subreaper=True) as launcher:
            argv = (sys.executable, "-I", "-S", "-c", sys.argv[2], sys.argv[1])
            await launcher.start(Command(argv=argv), LogRing())
            await anyio.sleep(60)

    anyio.run(main)
""")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A small proxy with three trees; it prints the pid of each guard it has."""
    argv = (sys.executable, "-c", PROXY, "guard-test")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=tmp_path) as proxy:
        yield proxy
        proxy.kill()


def guard_pid(proxy: subprocess.Popen[bytes]) -> int:
    assert proxy.stdout is not None
    return int(proxy.stdout.readline())


def open_files(pid: int) -> dict[str, str]:
    return {path.name: str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


def tree_of(instance: str, unmarked: set[int]) -> list[procfs.Proc]:
    variable = f"SWAPCHART_INSTANCE={instance}"
    alive = [each for each in procfs.scan() if each.is_alive]
    return [each for each in alive if each.pid in unmarked or procfs.carries(each.pid, variable)]


def is_alive(pid: int) -> bool:
    found = procfs.find(pid)
    return found is not None and found.is_alive


def members_without_marker(instance: str) -> set[int]:
    groups = {each.pgid for each in tree_of(instance, set())}
    marker = f"SWAPCHART_INSTANCE={instance}"
    return {p.pid for p in procfs.scan() if p.pgid in groups and not procfs.carries(p.pid, marker)}


def eventually(is_true: Callable[[], object], within_s: float = LONG_S) -> float:
    """Wait; returns how long it took, in seconds."""
    began = time.monotonic()
    while not is_true():
        assert time.monotonic() - began < within_s, "it never came true"
        time.sleep(0.01)
    return time.monotonic() - began


@row("A15")
def test_guard_ends_all_trees_of_a_killed_proxy(proxy: subprocess.Popen[bytes]) -> None:
    """SIGKILL of the proxy ends all trees within 2 s, also daemons that ignore SIGTERM."""
    pid = guard_pid(proxy)
    unmarked = members_without_marker("guard-test")
    assert len(unmarked) == 1
    assert len(tree_of("guard-test", unmarked)) >= 8
    proxy.kill()

    assert eventually(lambda: not tree_of("guard-test", unmarked)) < 2.0 + LATE_S
    eventually(lambda: not is_alive(pid))


@row("A15")
def test_guard_that_dies_is_replaced_and_ignores_signals(proxy: subprocess.Popen[bytes]) -> None:
    """The usual signals do not end a guard; one that is killed is replaced, knowing all."""
    first = guard_pid(proxy)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(first, signum)
    os.kill(first, signal.SIGKILL)
    assert guard_pid(proxy) != first
    unmarked = members_without_marker("guard-test")
    proxy.kill()

    assert eventually(lambda: not tree_of("guard-test", unmarked)) < 2.0 + LATE_S


@row("A15")
def test_guard_ends_all_trees_of_a_proxy_that_fails(
    proxy: subprocess.Popen[bytes],
) -> None:
    """Ctrl-C and SIGTERM, handled or not, leave nothing either."""
    guard_pid(proxy)
    proxy.send_signal(signal.SIGTERM)
    unmarked = members_without_marker("guard-test")

    assert eventually(lambda: not tree_of("guard-test", unmarked)) < 2.0 + LATE_S


@pytest.mark.anyio
@row("A40")
async def test_guard_inherits_no_descriptors_or_environment() -> None:
    """It has three descriptors, its own session and no environment, and is gone when we are."""
    async with LocalLauncher() as launcher:
        pid = launcher.guard_pid
        targets = open_files(pid)

        assert set(targets) <= {"0", "1", "2", "3"}  # 3: the script, while it is being read
        assert targets["0"].startswith("pipe:")
        assert targets["1"] == targets["2"] == "/dev/null"
        assert os.getsid(pid) == pid
        assert procfs.read_bytes(f"/proc/{pid}/environ") == b""
    assert procfs.find(pid) is None


@pytest.mark.anyio
async def test_guard_at_a_normal_end_kills_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A released guard exits at once and kills no process."""
    monkeypatch.setattr("swapchart.adapters.process.guard._RELEASE_LIMIT_S", 30)
    env = {**os.environ, "SWAPCHART_INSTANCE": "calm"}
    stranger = subprocess.Popen(("sleep", "60"), env=env)  # noqa: ASYNC220
    began = time.monotonic()
    async with LocalLauncher(instance="calm") as launcher:
        await launcher.run(Command(argv=("true",)), LogRing())
    assert time.monotonic() - began < 15
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_guard_tracks_groups() -> None:
    """Lines may arrive in pieces; what is not understood is passed over."""
    near, far = os.pipe()
    for piece in (b"+12 3", b"45\n+13 1\n", b"-13\n-99\nnonsense\n+7\n", b"+14 "):
        os.write(far, piece)
    os.close(far)
    marks = guard_process.Marks()

    assert guard_process.listen(near, marks)
    assert marks.groups == {12: 345}
    os.close(near)


def test_guard_ends_on_request() -> None:
    """A full stop means that the proxy has ended everything itself."""
    near, far = os.pipe()
    os.write(far, b"+12 345\n.\n")

    assert not guard_process.listen(near, guard_process.Marks())
    os.close(near)
    os.close(far)


def test_guard_spares_a_process_with_a_recycled_pid() -> None:
    """A group whose leader began at another time than was said is a stranger's."""
    with subprocess.Popen(("sleep", "60"), start_new_session=True) as stranger:
        found = procfs.find(stranger.pid)
        assert found is not None
        marks = guard_process.Marks()
        marks.add_instance("nobody", 0)
        marks.groups[stranger.pid] = found.start + 1

        assert guard_process.targets(marks) == []
        marks.groups[stranger.pid] = found.start
        assert guard_process.targets(marks) == [(stranger.pid, found.start)]
        stranger.kill()


def test_guard_tree_that_forks_every_2_ms_is_ended(tmp_path: Path) -> None:
    """A process that renews itself faster than /proc can be read does not outlive a kill -9."""
    path = tmp_path / "beats"
    argv = (sys.executable, "-c", RENEWED, str(path), RENEWED_BELOW)
    with subprocess.Popen(argv, cwd=tmp_path) as proxy:
        eventually(lambda: path.exists() and path.stat().st_size > 20)
        proxy.kill()
    eventually(lambda: _is_still(path))

    assert path.stat().st_size > 20


def _is_still(path: Path) -> bool:
    size = path.stat().st_size
    time.sleep(0.2)
    return path.stat().st_size == size
