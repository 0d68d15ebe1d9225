"""Script that starts processes on a node, and ends their trees when the agent is gone.

It runs as ``python -I -S -E -c SOURCE`` with a socket as standard input, and needs only Python. For
each request on the socket it forks a *guard* in a session of its own. The guard is a subreaper
that starts the command in another session and stays until the whole tree has ended. Forking
takes 2 ms, a new interpreter 20 ms.

A request is one message with a JSON object (``argv``, ``env``, ``cwd``, ``grace_s``) and three file
descriptors: the guard's *lifeline*, its *status*, and the output of the command. Lines on the
lifeline: ``term`` sends SIGTERM to the group, ``kill`` kills the tree, ``sweep SECONDS`` kills what
is left of it after so many seconds. The end of the lifeline means that the agent died, however that
came about: the tree gets SIGTERM, and SIGKILL after *grace_s*. Lines on the status:

- ``pid PID`` the command runs, or ``fail ERRNO`` it could not be executed;
- ``exit CODE`` its leader ended, a negative code is a signal;
- ``gone COUNT`` the tree has ended, COUNT of its processes were killed.

The end of the status without ``gone`` means that the guard was killed. Its command is then killed
by the kernel, and the rest of the tree by this process, which adopts it.

Ray kills the children of a worker that ends, and with an option of its own all orphans: a guard
is a grandchild, and this process, its parent, stays.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time

SUBREAPER, DEATH_SIGNAL = 36, 1  # of prctl
SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SCAN_S = 0.05  # between two looks for processes that were forked meanwhile
LOST_SCANS = 200  # of the tree of a guard that was killed


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process where the kernel has it (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def descendants(root: int) -> list[tuple[int, int]]:
    """Return (pid, process group) of all running descendants of *root*."""
    children: dict[int, list[tuple[int, int]]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    stat = file.read()
            except OSError:
                continue
            state, parent, group = stat[stat.rindex(b")") + 2 :].split(None, 3)[:3]
            if state not in b"ZX":
                children.setdefault(int(parent), []).append((int(name), int(group)))
    found, rest = [], [root]
    while rest:
        for child in children.get(rest.pop(), ()):
            found.append(child)
            rest.append(child[0])
    return found


def send(pid: int, signum: int) -> bool:
    """Signal one process; return False if it has ended or may not be signaled."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        return False
    return True


class TreeGuard:
    """Guard of one command and its tree.

    Args:
        request: The command, see above.
        lifeline: File descriptor that the agent writes its orders to.
        status: File descriptor that the agent reads.
    """

    def __init__(self, request: dict[str, object], lifeline: int, status: int) -> None:
        self.lifeline, self.status = lifeline, status
        self.grace_s = float(str(request["grace_s"]))
        self.pid = 0
        self.has_exited = False
        self.is_open = True  # the lifeline
        self.deadline = -1.0  # of the sweep; negative before it
        self.killed: set[int] = set()
        self.terminated: set[int] = set()
        self.rest = b""

    def tell(self, line: str) -> None:
        """Report to the agent; a no-op if it is gone."""
        try:  # noqa: SIM105  (contextlib is not worth its memory here)
            os.write(self.status, line.encode() + b"\n")
        except OSError:
            pass

    def spawn(self, request: dict[str, object], output: int) -> bool:
        """Start the command; return False if it could not be executed."""
        reader, writer = os.pipe()
        guard = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            execute(request, output, writer, guard)
        os.close(writer)
        os.close(output)
        failure = os.read(reader, 64)
        os.close(reader)
        self.tell(f"fail {failure.decode()}" if failure else f"pid {self.pid}")
        return not failure

    def reap(self) -> bool:
        """Reap what has ended; return False once no descendant is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.pid:
                    self.has_exited = True
                    self.tell(f"exit {os.waitstatus_to_exitcode(status)}")
        except ChildProcessError:
            return False

    def obey(self) -> None:
        """Read the lifeline and carry out what it says."""
        try:
            data = os.read(self.lifeline, 4096)
        except OSError:
            data = b""
        if not data:
            self.is_open = False
            self.terminate_group()
            self.sweep(self.grace_s)
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            words = line.split()
            if words[:1] == [b"term"]:
                self.terminate_group()
            elif words[:1] == [b"kill"]:
                self.sweep(0.0)
                self.kill()
            elif words[:1] == [b"sweep"] and len(words) > 1:
                self.sweep(float(words[1]))

    def terminate_group(self) -> None:
        """Send SIGTERM to the group of the leader, then SIGCONT, so that stopped ones get it."""
        if not self.has_exited:  # its id is not reused before it is reaped
            for signum in (signal.SIGTERM, signal.SIGCONT):
                try:  # noqa: SIM105  (as above)
                    os.killpg(self.pid, signum)
                except (ProcessLookupError, PermissionError):
                    pass

    def sweep(self, seconds: float) -> None:
        """Kill what is left of the tree in *seconds*; an earlier time stays in force."""
        at = time.monotonic() + seconds
        self.deadline = at if self.deadline < 0 else min(self.deadline, at)

    def terminate_others(self) -> None:
        """Send SIGTERM, once each, to members that left the group, or whose leader has ended."""
        for pid, group in descendants(os.getpid()):
            if pid not in self.terminated and (self.has_exited or group != self.pid):
                self.terminated.add(pid)
                send(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole tree."""
        for pid, _ in descendants(os.getpid()):
            if send(pid, signal.SIGKILL):
                self.killed.add(pid)

    def run(self, wakeup: int) -> None:
        """Watch the tree until it has ended.

        A leader that ended without descendants waits for the sweep too: its id is reported first.
        """
        while True:
            is_running = self.reap()
            if not is_running and (self.deadline >= 0 or not self.is_open):
                break
            pause_s = None
            if self.deadline >= 0:
                left_s = self.deadline - time.monotonic()
                if left_s <= 0:
                    self.kill()
                else:
                    self.terminate_others()
                pause_s = min(SCAN_S, left_s) if left_s > 0 else 0.01
            watched = [wakeup, self.lifeline] if self.is_open else [wakeup]
            ready, _, _ = select.select(watched, [], [], pause_s)
            if wakeup in ready:
                os.read(wakeup, 512)
            if self.lifeline in ready:
                self.obey()
        self.killed.discard(self.pid)
        self.tell(f"gone {len(self.killed)}")


def execute(request: dict[str, object], output: int, failure: int, guard: int) -> None:
    """Become the command; on an error write its errno to *failure* and exit."""
    try:
        os.setsid()
        prctl(DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(125)
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((null, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        argv, env = request["argv"], request["env"]
        assert isinstance(argv, list) and isinstance(env, dict)  # noqa: PT018
        if request["cwd"]:
            os.chdir(str(request["cwd"]))
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        os.write(failure, str(error.errno).encode())
    finally:
        os._exit(127)


def guard_one(request: dict[str, object], fds: list[int]) -> None:
    """Guard one command in a process of its own, until its tree has ended."""
    lifeline, status, output = fds
    os.setsid()
    prctl(SUBREAPER, 1)
    wakeup, writer = os.pipe()
    for fd in (wakeup, writer):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for signum in SIGNALS:
        signal.signal(signum, lambda *_: None)
    guard = TreeGuard(request, lifeline, status)
    if guard.spawn(request, output):
        guard.run(wakeup)


def serve(connection: socket.socket) -> None:
    """Fork a guard for each request, until the agent is gone and all guards have ended."""
    prctl(SUBREAPER, 1)
    guards: set[int] = set()
    is_open = True
    scans = 0
    while is_open or guards or scans:
        scans = reap_guards(guards, scans)
        pause_s = 0.005 if scans else 0.25
        ready = select.select([connection] if is_open else [], [], [], pause_s)[0]
        if not ready:
            continue
        data, fds, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not data:
            is_open = False
            continue
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                connection.close()
                guard_one(json.loads(data), fds)
                code = 0
            finally:
                os._exit(code)
        guards.add(pid)
        for fd in fds:
            os.close(fd)


def reap_guards(guards: set[int], scans: int) -> int:
    """Reap ended guards, and kill the trees of those that were killed.

    Args:
        guards: Pids of the guards; those that ended are removed.
        scans: Number of scans that are left for trees without guard.

    Returns:
        The number that is left now.
    """
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in guards:
                guards.discard(pid)
                if os.WIFSIGNALED(status):
                    scans = LOST_SCANS
    except ChildProcessError:
        return 0
    if scans:
        kept = guards | {each for guard in guards for each, _ in descendants(guard)}
        for pid, _ in descendants(os.getpid()):
            if pid not in kept:
                send(pid, signal.SIGKILL)
        return scans - 1
    return 0


if __name__ == "__main__":
    for _signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(_signum, signal.SIG_IGN)
    serve(socket.socket(fileno=0))
