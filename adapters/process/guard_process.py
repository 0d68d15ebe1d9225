"""Script that terminates the processes of a proxy that died without doing so itself.

It runs as ``python -I -S -E guard_process.py INSTANCE TAGS CGROUPS`` in a session of its own. Its
standard input is a pipe that only the proxy holds, so the end of that pipe means that the proxy has
died, even by SIGKILL. It imports only small modules of the interpreter, to use little memory.

Lines on the pipe: ``+LEADER START`` a process group began (START in clock ticks since boot),
``-LEADER`` it has ended, ``&INSTANCE TAGS`` the proxy took over processes of an earlier one, ``.``
the proxy shuts down cleanly and the guard exits. With the further arguments of `guard_keeping`,
processes may outlive the proxy.

The guard terminates the reported groups and sessions, every process whose first environment holds
``SWAPCHART_INSTANCE=INSTANCE``, and those that carry a tag (``tree/tag.py``) with the upper bits
TAGS. It sends SIGTERM, and SIGKILL after a second, until none is left. Then it kills the processes
in the cgroups below the folder CGROUPS and removes these. It spares daemons of container engines.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs megabytes
    from typing import Any

GRACE_S = 1.0
LIMIT_S = 10.0
PERIOD_S = 0.03
QUIET_SCANS = 3  # empty scans in a row: a child between fork and exec carries no marker yet
FOLLOW_S = 0.03
ENGINES = (  # as in container_engines.py
    b"conmon", b"conmonrs", b"catatonit", b"aardvark-dns", b"fuse-overlayfs", b"containerd",
    b"containerd-shim", b"buildkitd", b"podman pause", b"docker-proxy", b"dockerd",
    b"rootlessport", b"rootlesskit", b"pasta", b"pasta.avx2", b"passt", b"slirp4netns",
)  # fmt: skip


class Marks:
    """Marks of the processes to terminate.

    Attributes:
        instances: (variable in the environment, tag, bits of the tag that may differ) of each
            proxy whose processes are meant.
        groups: Pid of the leader of each process group -> its start in clock ticks since boot.
        spared: (variable in the environment, tag, leader) of each run that is not meant.
    """

    __slots__ = ("groups", "instances", "spared")

    def __init__(self) -> None:
        self.instances: list[tuple[bytes, int, int]] = []
        self.groups: dict[int, int] = {}
        self.spared: list[tuple[bytes, int, int]] = []

    def add_instance(self, instance: str, tags: int) -> None:
        """Mean the processes of proxy *instance*, whose tags begin with *tags*."""
        marker = b"\0SWAPCHART_INSTANCE=" + os.fsencode(instance) + b"\0"
        self.instances.append((marker, tags, 32))

    def hold(self, pid: int) -> bool:
        """Return True if *pid* carries a variable or a tag of an instance, and of no spared run."""
        environment, tag = b"\0" + read(f"/proc/{pid}/environ"), tag_of(pid)
        if any(marker in environment or (tag and tag == own) for marker, own, _ in self.spared):
            return False
        return any(
            marker in environment or (own > 0 and tag >> bits == own)
            for marker, own, bits in self.instances
        )


def listen(fd: int, marks: Marks) -> bool:
    """Update *marks* from the pipe; return True if the proxy died."""
    rest = b""
    while chunk := os.read(fd, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line == b".":
                return False
            note(line, marks)
    return True


def note(line: bytes, marks: Marks) -> None:
    """Update *marks* by one line."""
    words = line[1:].split()
    if line.startswith(b"+") and len(words) == 2:
        marks.groups[int(words[0])] = int(words[1])
    elif line.startswith(b"-") and words:
        marks.groups.pop(int(words[0]), None)
    elif line.startswith(b"&") and len(words) == 2:
        marks.add_instance(os.fsdecode(words[0]), int(words[1]))


def read(path: str) -> bytes:
    """Return a small file of /proc; empty if it is gone or may not be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (pathlib costs megabytes)
            return file.readall()
    except OSError:
        return b""


def read_stat(pid: int) -> tuple[list[bytes], int, bytes] | None:
    """Return the fields of *pid* after its name, its start and its name; None if it is gone."""
    stat = read(f"/proc/{pid}/stat")
    if not stat:
        return None
    end = stat.rindex(b")")
    rest = stat[end + 2 :].split(None, 20)
    return rest, int(rest[19]), stat[stat.index(b"(") + 1 : end]


def newest_pid() -> int:
    """Return the pid that was assigned last; 0 if the kernel does not report it."""
    words = read("/proc/loadavg").split()
    return int(words[-1]) if words and words[-1].isdigit() else 0


def targets(marks: Marks) -> list[tuple[int, int]]:
    """Return (pid, start) of each process to terminate, without zombies and this process."""
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        found = read_stat(int(name)) if name.isdecimal() else None
        if found is not None:
            table[int(name)] = found
    # A leader with another start time is another process that reuses the pid.
    known = {
        pid for pid, start in marks.groups.items() if pid not in table or table[pid][1] == start
    }
    pids = [pid for pid in table if is_target(pid, table, known, marks)]
    return [(pid, table[pid][1]) for pid in pids]


def is_target(
    pid: int, table: dict[int, tuple[list[bytes], int, bytes]], known: set[int], marks: Marks
) -> bool:
    """Return True if *pid* is running and belongs to the proxy that has died."""
    rest, _, _ = table[pid]
    is_dead = rest[0] in (b"Z", b"X") and int(rest[17]) <= 1
    if is_dead or pid in (1, os.getpid()):
        return False
    group, session = int(rest[2]), int(rest[3])
    if any(leader in (group, session) for _, _, leader in marks.spared):
        return False
    if group in known or session in known:
        return True
    return marks.hold(pid) and not is_of_engine(pid, table)


def tag_of(pid: int) -> int:
    """Return the tag of *pid*, as ``tree/tag.py`` makes them; 0 if it has none."""
    _, _, rest = read(f"/proc/{pid}/limits").partition(b"Max realtime timeout")
    value = rest.split(None, 1)[0] if rest else b""
    return int(value) if value.isdigit() and len(value) < 20 else 0


def is_of_engine(pid: int, table: dict[int, tuple[list[bytes], int, bytes]]) -> bool:
    """Return True if *pid* is a daemon of a container engine or descends from one."""
    for _ in range(64):
        if pid not in table:
            return False
        rest, _, name = table[pid]
        if name in ENGINES:
            try:
                return os.stat(f"/proc/{pid}/exe").st_uid == 0  # noqa: PTH116
            except OSError:
                return True
        pid = int(rest[1])
    return False


def ancestry(pid: int) -> dict[int, tuple[list[bytes], int, bytes]]:
    """Return *pid* and its ancestors, each with what `read_stat` returns."""
    line: dict[int, tuple[list[bytes], int, bytes]] = {}
    while pid > 1 and pid not in line and (found := read_stat(pid)) is not None:
        line[pid], pid = found, int(found[0][1])
    return line


def find_newer(newest: int, marks: Marks, signum: int) -> bool:
    """Check processes that were forked after pid *newest*, until there is no newer one.

    A scan of /proc misses a process that forks and exits faster than the scan completes.

    Args:
        newest: Pid that was assigned last when the scan began.
        marks: As for `is_target`.
        signum: Signal to send to each at once; 0 sends none.

    Returns:
        True if any belongs to the proxy that has died.
    """
    has_found = False
    deadline = time.monotonic() + FOLLOW_S
    while (now := newest_pid()) > newest and time.monotonic() < deadline:
        for pid in range(newest + 1, now + 1):
            if marks.hold(pid) and not is_of_engine(pid, ancestry(pid)):
                has_found = True
                send(pid, signum)
        newest = now
    return has_found


def terminate_all(marks: Marks) -> bool:
    """Terminate all processes that *marks* hold; False if some are running after `LIMIT_S`."""
    began = time.monotonic()
    terminated: set[tuple[int, int]] = set()
    quiet = 0
    while (elapsed_s := time.monotonic() - began) < LIMIT_S:
        newest = newest_pid()
        alive = targets(marks)
        for target in alive:
            if elapsed_s >= GRACE_S:
                send(target[0], signal.SIGKILL)
            elif target not in terminated:
                terminated.add(target)
                send(target[0], signal.SIGTERM)
                send(target[0], signal.SIGCONT)
        signum = signal.SIGKILL if elapsed_s >= GRACE_S else 0
        is_quiet = not find_newer(newest, marks, signum) and not alive
        quiet = quiet + 1 if is_quiet else 0
        if quiet == QUIET_SCANS:
            return True
        time.sleep(PERIOD_S)
    return False


def remove_cgroups(folder: str, spared: frozenset[str] = frozenset()) -> None:
    """Kill the processes in the cgroups below *folder*, spare engines, and remove the cgroups.

    Args:
        folder: Folder of the cgroups of a proxy.
        spared: Names of cgroups that stay.
    """
    for name in os.listdir(folder):  # noqa: PTH208
        path = f"{folder}/{name}"
        if os.path.isdir(path) and name not in spared:  # noqa: PTH112
            try:
                remove_cgroup(path)
            except OSError:  # it holds an engine, or the kernel is old
                continue
    os.rmdir(folder)  # noqa: PTH106


def remove_cgroup(path: str) -> None:
    """Kill the processes in one cgroup and below, spare engines, and remove the cgroup."""
    pids = members(path)
    others = [pid for pid in pids if not is_of_engine(pid, ancestry(pid))]
    if pids and len(others) == len(pids):
        with open(f"{path}/cgroup.kill", "w") as file:  # noqa: PTH123
            file.write("1")
    else:
        for pid in others:
            send(pid, signal.SIGKILL)
    for _ in range(QUIET_SCANS):
        if not members(path):
            break
        time.sleep(PERIOD_S)
    if not members(path):
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)  # noqa: PTH106


def members(path: str) -> list[int]:
    """Return the pids in one cgroup and in those below it."""
    found = []
    for folder, _, _ in os.walk(path):
        found += [int(pid) for pid in read(f"{folder}/cgroup.procs").split()]
    return found


def send(pid: int, signum: int) -> None:
    """Signal one process; a no-op if it has ended or belongs to another user."""
    try:  # noqa: SIM105  (contextlib is not worth its memory here)
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def main(argv: list[str]) -> int:
    """Run the guard and return its exit code."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    marks = Marks()
    marks.add_instance(argv[1], int(argv[2]) if len(argv) > 2 else 0)
    keeper = make_keeper(marks, argv[4:]) if len(argv) > 4 else None
    if not (listen(0, marks) if keeper is None else keeper.listen()):
        return 0
    kept = frozenset() if keeper is None else keeper.spare()
    is_over = terminate_all(marks)
    if len(argv) > 3 and argv[3]:
        try:
            remove_cgroups(argv[3], kept)
        except OSError:
            is_over = bool(kept)
    if keeper is not None:
        keeper.keep()
    return 0 if is_over else 1


def make_keeper(marks: Marks, arguments: list[str]) -> Any:
    """Return what keeps processes alive; see `guard_keeping`, which is imported only here."""
    sys.path.append(os.path.dirname(__file__) + "/keeping")  # noqa: PTH120
    return __import__("guard_keeping").Keeper(sys.modules[__name__], marks, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
