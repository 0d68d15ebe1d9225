"""Cgroups of runs in which a container engine has made more: its processes are spared."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tools.net import wait_until

from swapchart.adapters.process import guard_process
from swapchart.adapters.process.tree import cgroup

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run() -> Iterator[Path]:
    """The folder of the group of one run, removed with all that was made in it."""
    groups = cgroup.ProcessGroups()
    groups.open()
    if not groups.folder or groups.make("run") is None:
        pytest.skip("NOT TESTED: no cgroup can be made here")
    base = Path(groups.folder)
    yield base / "run"
    wait_until(lambda: _remove(base))


def _remove(base: Path) -> bool:
    with suppress(OSError):
        for folder, _, _ in os.walk(base, topdown=False):
            os.rmdir(folder)  # noqa: PTH106
    return not base.exists()


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a process in a cgroup."""
    with ExitStack() as stack:

        def started(folder: Path, *argv: str) -> subprocess.Popen[bytes]:
            folder.mkdir(exist_ok=True, parents=True)
            script = 'echo $$ >"$0"/cgroup.procs && exec "$@"'
            popen = stack.enter_context(subprocess.Popen(("sh", "-c", script, folder, *argv)))
            stack.callback(popen.kill)
            name = Path(argv[0]).name
            wait_until(lambda: Path(f"/proc/{popen.pid}/comm").read_text().strip() == name)
            return popen

        yield started


def has_ended(popen: subprocess.Popen[bytes]) -> bool:
    return popen.poll() is not None


def test_kill_monitor_in_a_group_below_is_spared(run: Path, start: Start) -> None:
    """The others are killed, in whatever group below they are."""
    monitor = start(run / "machine" / "conmon", "sleep", "60")
    others = [start(folder, "sleep", "60") for folder in (run, run / "machine", run / "a" / "b")]
    group = cgroup.ProcessGroup(run)

    assert group.pids() == {each.pid for each in (monitor, *others)}
    group.kill(lambda pid: pid == monitor.pid)
    wait_until(lambda: all(map(has_ended, others)))
    assert not has_ended(monitor)
    assert not group.remove()
    group.kill(lambda pid: False)
    wait_until(lambda: has_ended(monitor))
    wait_until(group.remove)
    assert not run.exists()


@pytest.fixture
def conmon(tmp_path: Path) -> Path:
    """A program that is taken for a container's monitor; it runs a shell script."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: its program file must be root's")
    return Path(shutil.copy(Path("/bin/sh").resolve(), tmp_path / "conmon"))


CONTAINER = ("-c", "sleep 60 & echo $! >$0; wait")


def test_guard_monitor_in_a_group_below_is_spared(
    run: Path, start: Start, conmon: Path, tmp_path: Path
) -> None:
    """So is the container below it; what else is in the group is killed."""
    monitor = start(run / "conmon", str(conmon), *CONTAINER, str(tmp_path / "pid"))
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    other = start(run, "sleep", "60")
    container = Path("/proc") / (tmp_path / "pid").read_text().strip()
    try:
        with suppress(OSError):  # the group is not empty
            guard_process.remove_cgroups(str(run.parent))
        wait_until(lambda: has_ended(other))

        assert not has_ended(monitor)
        assert "State:\tS" in (container / "status").read_text()
    finally:
        os.kill(int(container.name), 9)
    wait_until(lambda: has_ended(monitor))


def test_guard_groups_below_without_an_engine_are_killed_and_removed(
    run: Path, start: Start
) -> None:
    """Nothing is left of what a killed proxy's model has made."""
    model = start(run / "a" / "b", "sleep", "60")
    guard_process.remove_cgroups(str(run.parent))

    wait_until(lambda: has_ended(model))
    assert not run.exists()


def test_open_groups_below_those_of_an_ended_proxy_are_removed(run: Path) -> None:
    """What a killed proxy and its guard left behind does not stay for ever."""
    left = run.parent.with_name("swapchart-1-1")
    (left / "run" / "a" / "b").mkdir(parents=True)
    cgroup.ProcessGroups().open()

    assert not left.exists()
