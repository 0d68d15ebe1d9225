"""Reading what /proc prints, and looking at this very process."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis.strategies import binary, integers
from tools.rows import row

from swapchart.adapters.process import oom, pidfd, procfs
from swapchart.adapters.process.procfs import parse_stat

CGROUPS_1 = "9:name=systemd:/\n8:cpu,memory:/box/1\n0::/\n"
CGROUPS_2 = "0::/user.slice/a.scope\n"
TAIL = b" %d %d %d 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 %d 0 %d 0 0 184467 0"


@given(
    name=binary(max_size=15),
    numbers=integers(1, 1 << 22),
    start=integers(0, 1 << 62),
)
def test_stat_of_any_program_name_is_parsed(name: bytes, numbers: int, start: int) -> None:
    """Blanks, parentheses and newlines in a program's name shift no field."""
    raw = b"%d (%s) S" % (numbers, name) + TAIL % (numbers + 1, numbers + 2, numbers + 3, 1, start)

    assert parse_stat(raw) == procfs.Proc(
        numbers, numbers + 1, numbers + 2, numbers + 3, start, is_alive=True
    )


@pytest.mark.parametrize(
    ("state", "threads", "is_alive"),
    [(b"R", 1, True), (b"T", 1, True), (b"Z", 1, False), (b"Z", 2, True), (b"X", 1, False)],
)
def test_stat_of_a_zombie_is_dead_unless_a_thread_lives(
    state: bytes, threads: int, is_alive: bool
) -> None:
    """The first thread may end before the others do."""
    assert parse_stat(b"7 (x) " + state + TAIL % (1, 7, 7, threads, 5)).is_alive == is_alive


def test_stat_of_this_process_is_correct() -> None:
    """A scan holds this process; its environment is read whole and by whole variables."""
    me = procfs.find(os.getpid())
    assert me is not None

    assert me in list(procfs.scan())
    assert (me.ppid, me.pgid, me.sid) == (os.getppid(), os.getpgrp(), os.getsid(0))
    assert procfs.is_same(me)
    assert not procfs.is_same(me._replace(start=me.start + 1))
    assert not pidfd.send(me._replace(start=me.start + 1), 9)
    path = procfs.variable(me.pid, "PATH")
    assert path is not None
    assert procfs.carries(me.pid, f"PATH={path}")
    assert not procfs.carries(me.pid, f"PATH={path[:-1]}")
    assert not procfs.carries(me.pid, f"ATH={path}")
    assert procfs.variable(me.pid, "PAT") is None
    assert procfs.find(1 << 22) is None
    assert procfs.read_bytes("/proc/none") == b""
    assert procfs.socket_inodes(1 << 22) == set()
    assert procfs.program(1 << 22) == "?"


@row("A31")
def test_stat_that_cannot_be_read_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor left, looking fails loudly; with no such process, it finds nothing."""

    def full(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="Too many"):
        procfs.find(1)
    with pytest.raises(OSError, match="Too many"):
        procfs.carries(1, "A=B")


@row("A33")
def test_oom_kill_count_is_read() -> None:
    """In the file of our own cgroup, whichever version it is, among the other counts."""
    assert [*oom.oom_files(CGROUPS_2)] == ["/sys/fs/cgroup/user.slice/a.scope/memory.events"]
    assert [*oom.oom_files(CGROUPS_1)] == [
        "/sys/fs/cgroup/memory/box/1/memory.oom_control",
        "/sys/fs/cgroup/memory/memory.oom_control",
        "/sys/fs/cgroup/memory.events",
    ]
    events = "low 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"
    assert oom.parse_oom_kills(events) == 2
    assert oom.parse_oom_kills("oom_kill_disable 0\nunder_oom 0\n") is None
    assert oom.parse_oom_kills("oom_kill many\n") is None
