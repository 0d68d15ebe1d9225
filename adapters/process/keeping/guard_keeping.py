"""Part of the guard by which processes outlive their proxy for a lease.

`guard_process` imports it if it runs with the arguments FOLDER LEASE SOCKET. Its standard input is
then a socket that preserves messages (SOCK_SEQPACKET), and there are further ones: ``@RUN`` with
three descriptors says that a run may outlive the proxy, ``!RUN`` that it may not any more. The
descriptors are the pipe of its output, the ring of its last output, and its record in JSON.

When the proxy has died, the guard ends all other processes and then waits for the next proxy at the
listening socket SOCKET. Meanwhile it moves the output of the kept runs into their rings. After
LEASE seconds, or at SIGTERM, it ends them as their records say, each in a process of its own, and
appends ``INSTANCE SERVICE`` to the file ``ended`` in FOLDER for each.

To a proxy that connects it sends ``@RUN`` with the descriptors of each kept run, ``~RUN`` with the
record of each that is being ended, and ``.``. The proxy sends ``+RUN`` to take a run over, or
``-RUN`` to have it ended; ``!RUN`` reports its end. The lease goes on if the proxy disconnects.
"""

from __future__ import annotations

import _socket
import os
import select
import signal
import sys
import time
from typing import Any

RING_BYTES = 1 << 20
_HEADER_BYTES = 8
_MESSAGE_BYTES = 4096
_DESCRIPTORS = 3
_PERIOD_S = 0.2  # between two looks at the leaders
_CHUNK_BYTES = 1 << 16
_KILL_LIMIT_S = 10.0


# ---- the ring of the last output; used by the proxy too
def write_ring(fd: int, data: bytes) -> None:
    """Append *data* to the ring in file *fd*; never raises."""
    try:
        total = _total(fd)
        at, end = total % RING_BYTES, total + len(data)
        data = data[-RING_BYTES:]
        at = (end - len(data)) % RING_BYTES
        first = data[: RING_BYTES - at]
        os.pwrite(fd, first, _HEADER_BYTES + at)
        if len(first) < len(data):
            os.pwrite(fd, data[len(first) :], _HEADER_BYTES)
        os.pwrite(fd, end.to_bytes(_HEADER_BYTES, "little"), 0)
    except OSError:
        return


def read_ring(fd: int) -> bytes:
    """Return the output in the ring in file *fd*, at most a MiB."""
    total = _total(fd)
    if total <= RING_BYTES:
        return os.pread(fd, total, _HEADER_BYTES)
    at = total % RING_BYTES
    rest = os.pread(fd, RING_BYTES - at, _HEADER_BYTES + at)
    return rest + os.pread(fd, at, _HEADER_BYTES)


def _total(fd: int) -> int:
    return int.from_bytes(os.pread(fd, _HEADER_BYTES, 0), "little")


# ---- messages
def receive(sock: Any) -> tuple[str, list[int]]:
    """Return the next message and its descriptors; both are empty at the end."""
    size = _socket.CMSG_SPACE(4 * _DESCRIPTORS)
    data, ancillary, _, _ = sock.recvmsg(_MESSAGE_BYTES, size, _socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, block in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            whole = len(block) - len(block) % 4
            fds += [int.from_bytes(block[at : at + 4], sys.byteorder) for at in range(0, whole, 4)]
    return data.decode("utf-8", "replace").strip(), fds


def send(sock: Any, message: str, fds: list[int]) -> None:
    """Send a message with descriptors.

    Raises:
        OSError: The other side is gone or does not read.
    """
    block = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, block)] if fds else []
    sock.sendmsg([message.encode()], rights)


class Kept:
    """A run that outlives its proxy.

    Attributes:
        run: Id of the run.
        pipe: Descriptor of its output; -1 once it is closed.
        ring: Descriptor of the ring of its last output.
        record: Descriptor of its record.
    """

    def __init__(self, run: str, fds: list[int]) -> None:
        self.run = run
        self.pipe, self.ring, self.record = fds
        self._leader = 0, 0

    def read(self) -> None:
        """Move what the pipe holds into the ring; never waits."""
        try:
            data = os.read(self.pipe, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            write_ring(self.ring, data)
        else:
            os.close(self.pipe)
            self.pipe = -1

    def facts(self) -> dict[str, Any]:
        """Return the record.

        Raises:
            ValueError: It is no JSON.
        """
        import json

        found: dict[str, Any] = json.loads(os.pread(self.record, os.fstat(self.record).st_size, 0))
        return found

    def leader(self) -> tuple[int, int]:
        """Return pid and start of the leader."""
        if not self._leader[0]:
            facts = self.facts()
            self._leader = int(facts["pid"]), int(facts["start"])
        return self._leader

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.pipe, self.ring, self.record):
            if fd >= 0:
                os.close(fd)


class Keeper:
    """The guard of a proxy whose runs may outlive it.

    Args:
        guard: Module `guard_process`.
        marks: Marks of the processes of the proxy.
        arguments: FOLDER, LEASE and SOCKET.
    """

    def __init__(self, guard: Any, marks: Any, arguments: list[str]) -> None:
        self._guard, self._marks = guard, marks
        self._folder, self._lease_s = arguments[0], float(arguments[1])
        self._listening: Any = _socket.socket(fileno=int(arguments[2]))
        self._kept: dict[str, Kept] = {}
        self._ending: dict[int, Kept] = {}  # process that ends it -> run
        self._proxy: Any = None
        self._is_over = False

    def listen(self) -> bool:
        """Follow the messages of the proxy; return True if it died."""
        control = _socket.socket(fileno=0)
        while True:
            message, fds = receive(control)
            if not message:
                return True
            if message == ".":
                return False
            if message[0] == "@" and len(fds) == _DESCRIPTORS:
                self._forget(message[1:])
                self._kept[message[1:]] = Kept(message[1:], fds)
            elif message[0] == "!":
                self._forget(message[1:])
            else:
                self._guard.note(message.encode(), self._marks)

    def _forget(self, run: str) -> None:
        found = self._kept.pop(run, None)
        if found is not None:
            found.close()

    def spare(self) -> frozenset[str]:
        """Exempt the kept runs from the end of all other processes; return their ids.

        From now on SIGTERM ends the lease.
        """
        signal.signal(signal.SIGTERM, self._end_lease)
        for run, kept in list(self._kept.items()):
            try:
                facts = kept.facts()
                variable, tag = f"\0SWAPCHART_RUN={run}\0".encode(), int(facts["tag"])
                leaders = {int(each["pid"]) for each in (facts, facts.get("client", facts))}
            except (ValueError, KeyError, TypeError):
                self._forget(run)
            else:
                self._marks.spared += [(variable, tag, leader) for leader in leaders]
        return frozenset(self._kept)

    # ---- without a proxy
    def keep(self) -> None:
        """Keep the runs until each was taken over or has ended."""
        deadline = time.monotonic() + self._lease_s
        while self._kept or self._ending:
            self._wait()
            self._reap()
            is_over = self._is_over or time.monotonic() >= deadline
            if self._proxy is None:
                for kept in list(self._kept.values()):
                    is_alive = self._is_alive(kept)
                    if is_over or not is_alive:
                        self._end(kept, has_failed=not is_alive)

    def _end_lease(self, number: int, frame: object) -> None:
        self._is_over = True

    def _wait(self) -> None:
        reading = {kept.pipe: kept for kept in self._ending.values() if kept.pipe >= 0}
        if self._proxy is None:  # else the next reader of the pipes may be there
            reading |= {kept.pipe: kept for kept in self._kept.values() if kept.pipe >= 0}
        door = self._listening if self._proxy is None else self._proxy
        ready, _, _ = select.select([door.fileno(), *reading], [], [], _PERIOD_S)
        for fd in ready:
            if fd in reading:
                reading[fd].read()
            elif self._proxy is None:
                self._welcome()
            else:
                self._obey()

    def _is_alive(self, kept: Kept) -> bool:
        pid, start = kept.leader()
        found = self._guard.read_stat(pid)
        return found is not None and found[1] == start and found[0][0] not in (b"Z", b"X")

    # ---- the next proxy
    def _welcome(self) -> None:
        fd, _ = self._listening._accept()
        self._proxy = _socket.socket(fileno=fd)
        self._proxy.settimeout(_KILL_LIMIT_S)
        try:
            for kept in self._kept.values():
                pipe = kept.pipe if kept.pipe >= 0 else kept.record  # closed: nothing is read
                send(self._proxy, f"@{kept.run}", [pipe, kept.ring, kept.record])
            for kept in self._ending.values():
                send(self._proxy, f"~{kept.run}", [kept.record])
            send(self._proxy, ".", [])
        except OSError:
            self._dismiss_proxy()

    def _obey(self) -> None:
        try:
            message, _ = receive(self._proxy)
        except OSError:
            message = ""
        kept = self._kept.get(message[1:])
        if not message:
            self._dismiss_proxy()
        elif kept is not None and message[0] == "+":
            self._forget(kept.run)
        elif kept is not None and message[0] == "-":
            self._end(kept, has_failed=not self._is_alive(kept))

    def _dismiss_proxy(self) -> None:
        self._proxy.close()
        self._proxy = None

    # ---- ends
    def _end(self, kept: Kept, *, has_failed: bool) -> None:
        """Begin to end a run, or what it has left if it has ended by itself."""
        pid = os.fork()
        if pid == 0:
            self._listening.close()  # else the next proxy would reach this process
            if self._proxy is not None:
                self._proxy.close()
            try:
                self._carry_out(kept.facts(), has_failed=has_failed)
            finally:
                os._exit(0)
        del self._kept[kept.run]
        self._ending[pid] = kept

    def _reap(self) -> None:
        while self._ending:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            kept = self._ending.pop(pid, None)
            if kept is not None:
                kept.close()
                if self._proxy is not None:
                    try:
                        send(self._proxy, f"!{kept.run}", [])
                    except OSError:
                        self._dismiss_proxy()

    def _carry_out(self, facts: dict[str, Any], *, has_failed: bool) -> None:
        __import__("guard_ending").carry_out(self._guard, facts, has_failed=has_failed)
        line = f"{facts['instance']} {facts['service']}\n".encode()
        fd = os.open(f"{self._folder}/ended", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, line)
        os.close(fd)
