"""Ends what a proxy started, when the proxy dies without ending it: a script of its own.

It runs as ``python -I -S -E guard_process.py INSTANCE TAGS CGROUPS`` in a session of its own, its
standard input being a pipe that only the proxy holds. The end of that pipe is the death of the
proxy, even by SIGKILL. It imports nothing but the interpreter's own small modules, to stay small.

Lines on the pipe: ``+LEADER START`` a process group began (START in clock ticks since boot),
``-LEADER`` it has ended, ``.`` the proxy closes in good order: leave without touching anything.

What is ended: the groups and sessions named, every process whose first environment holds
``SWAPCHART_INSTANCE=INSTANCE``, and those that carry a tag (``proctag``) whose upper bits are TAGS.
First SIGTERM, after a second SIGKILL, until none is left. Then what is in the cgroups in the folder
CGROUPS is killed, and they are removed. The daemons of container engines are left to them.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE_S = 1.0
LIMIT_S = 10.0
PERIOD_S = 0.03
QUIET_SCANS = 3  # a child between fork and exec carries no marker yet: look again
FOLLOW_S = 0.03
ENGINES = (  # as in procengine
    b"conmon", b"conmonrs", b"catatonit", b"aardvark-dns", b"fuse-overlayfs", b"containerd",
    b"containerd-shim", b"buildkitd", b"podman pause", b"docker-proxy", b"dockerd",
    b"rootlessport", b"rootlesskit", b"pasta", b"pasta.avx2", b"passt", b"slirp4netns",
)  # fmt: skip


def listen(fd: int, groups: dict[int, int]) -> bool:
    """Keep *groups* (leader's pid to its start) as the pipe says; True when the proxy died."""
    rest = b""
    while chunk := os.read(fd, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line == b".":
                return False
            words = line[1:].split()
            if line.startswith(b"+") and len(words) == 2:
                groups[int(words[0])] = int(words[1])
            elif line.startswith(b"-") and words:
                groups.pop(int(words[0]), None)
    return True


def read(path: str) -> bytes:
    """Return a small /proc file; empty when it is gone or not for us."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  (pathlib costs megabytes)
            return file.readall()
    except OSError:
        return b""


def look_at(pid: int) -> tuple[list[bytes], int, bytes] | None:
    """Return the fields of *pid* from the state on, its start and its name; None: it is gone."""
    stat = read(f"/proc/{pid}/stat")
    if not stat:
        return None
    end = stat.rindex(b")")
    rest = stat[end + 2 :].split(None, 20)
    return rest, int(rest[19]), stat[stat.index(b"(") + 1 : end]


def newest_pid() -> int:
    """Return the pid that was given last; 0 where the kernel does not say."""
    words = read("/proc/loadavg").split()
    return int(words[-1]) if words and words[-1].isdigit() else 0


def targets(marker: bytes, groups: dict[int, int], tags: int = 0) -> list[tuple[int, int]]:
    """Find who is to be ended: (pid, start) of each, zombies and ourselves left out."""
    table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        found = look_at(int(name)) if name.isdecimal() else None
        if found is not None:
            table[int(name)] = found
    # A leader that lives with another start is a stranger who was given the same number.
    known = {pid for pid, start in groups.items() if pid not in table or table[pid][1] == start}
    pids = [pid for pid in table if is_victim(pid, table, known, marker, tags)]
    return [(pid, table[pid][1]) for pid in pids]


def is_victim(
    pid: int, table: dict[int, tuple[list[bytes], int, bytes]], known: set[int], marker: bytes,
    tags: int,
) -> bool:  # fmt: skip
    """Return True if *pid* lives and is of the proxy that has died."""
    rest, _, _ = table[pid]
    is_dead = rest[0] in (b"Z", b"X") and int(rest[17]) <= 1
    if is_dead or pid in (1, os.getpid()):
        return False
    if int(rest[2]) in known or int(rest[3]) in known:
        return True
    is_ours = marker in b"\0" + read(f"/proc/{pid}/environ") or is_tagged(pid, tags)
    return is_ours and not is_engines(pid, table)


def is_tagged(pid: int, tags: int) -> bool:
    """Return True if *pid* carries a tag that begins with *tags*."""
    _, _, rest = read(f"/proc/{pid}/limits").partition(b"Max realtime timeout")
    value = rest.split(None, 1)[0] if rest else b""
    return tags > 0 and value.isdigit() and len(value) < 20 and int(value) >> 32 == tags


def is_engines(pid: int, table: dict[int, tuple[list[bytes], int, bytes]]) -> bool:
    """Return True if *pid* is a daemon of a container engine, or below one: its engine ends it."""
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


def line_of(pid: int) -> dict[int, tuple[list[bytes], int, bytes]]:
    """Return *pid*, its parent, and so on, each with what `look_at` says."""
    line: dict[int, tuple[list[bytes], int, bytes]] = {}
    while pid > 1 and pid not in line and (found := look_at(pid)) is not None:
        line[pid], pid = found, int(found[0][1])
    return line


def find_newer(newest: int, marker: bytes, tags: int, signum: int) -> bool:
    """Look at what was forked after *newest* had been, until nothing new is left.

    A scan of /proc misses what forks and ends faster than it comes round.

    Args:
        newest: Pid that was given last when the scan began.
        marker: As for `is_victim`.
        tags: As for `is_victim`.
        signum: Sent to each at once; 0 sends nothing.

    Returns:
        Whether any was of the proxy that has died.
    """
    has_found = False
    deadline = time.monotonic() + FOLLOW_S
    while (now := newest_pid()) > newest and time.monotonic() < deadline:
        for pid in range(newest + 1, now + 1):
            is_ours = marker in b"\0" + read(f"/proc/{pid}/environ") or is_tagged(pid, tags)
            if is_ours and not is_engines(pid, line_of(pid)):
                has_found = True
                send(pid, signum)
        newest = now
    return has_found


def end_all(instance: str, groups: dict[int, int], tags: int = 0) -> bool:
    """End everything of *instance*; False when some of it still lives after the limit."""
    marker = b"\0SWAPCHART_INSTANCE=" + os.fsencode(instance) + b"\0"
    began = time.monotonic()
    asked: set[tuple[int, int]] = set()
    quiet = 0
    while (elapsed_s := time.monotonic() - began) < LIMIT_S:
        newest = newest_pid()
        alive = targets(marker, groups, tags)
        for who in alive:
            if elapsed_s >= GRACE_S:
                send(who[0], signal.SIGKILL)
            elif who not in asked:
                asked.add(who)
                send(who[0], signal.SIGTERM)
                send(who[0], signal.SIGCONT)
        signum = signal.SIGKILL if elapsed_s >= GRACE_S else 0
        is_quiet = not find_newer(newest, marker, tags, signum) and not alive
        quiet = quiet + 1 if is_quiet else 0
        if quiet == QUIET_SCANS:
            return True
        time.sleep(PERIOD_S)
    return False


def clear(folder: str) -> None:
    """Kill what is in the cgroups below *folder*, but for container engines, and remove them."""
    for name in os.listdir(folder):  # noqa: PTH208
        path = f"{folder}/{name}"
        if os.path.isdir(path):  # noqa: PTH112
            try:
                clear_one(path)
            except OSError:  # an engine's; an old kernel
                continue
    os.rmdir(folder)  # noqa: PTH106


def clear_one(path: str) -> None:
    """Kill what is in one cgroup and below it, but for container engines, and remove it."""
    pids = members(path)
    others = [pid for pid in pids if not is_engines(pid, line_of(pid))]
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
    """Signal one process; nothing happens when it has ended or belongs to somebody else."""
    try:  # noqa: SIM105  (contextlib is not worth its memory here)
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def main(argv: list[str]) -> int:
    """Run the guard; returns its exit code."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    groups: dict[int, int] = {}
    if not listen(0, groups):
        return 0
    tags = int(argv[2]) if len(argv) > 2 else 0
    is_over = end_all(argv[1], groups, tags)
    if len(argv) > 3 and argv[3]:
        try:
            clear(argv[3])
        except OSError:
            is_over = False
    return 0 if is_over else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
