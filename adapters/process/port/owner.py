"""Ownership of a port: whether the listener that responds to probes belongs to the run.

A socket that a process of the tree holds belongs to it. Another socket is accepted only if it is
root's (and the proxy does not run as root) or a container's. It is a container's if its holder is
in another PID namespace or is a port forwarder of an engine, or if the tree contains, or contained
since its start, a client of an engine. Any other listener would receive the prompts of clients, so
the start fails at once.

A container that is older than the run is not accepted yet, since the command may replace it. A
socket whose holder is invisible is judged by its user. If all processes of that user are visible,
the socket belongs to another PID namespace.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import anyio

from ....runtime.ports import Command, Probe
from ...system import threads
from .. import container_engines, pidfd, procfs, users
from ..procfs import Proc
from ..tree.descendants import Tree
from . import listeners
from .listeners import IPAddress

_EXIT_LIMIT_S = 0.3  # how long a foreign holder may take to end before the start fails
_DEPTH = 8
_WIDTH = 64

Peer = tuple[IPAddress, int]


class PortOwner:
    """Verification of the listeners that respond to probes of one run.

    Args:
        tree: Process tree of the run.
        pid: Process id of the leader.
        start: Start time of the leader, in clock ticks since boot.
        command: The launched command.
    """

    def __init__(self, tree: Tree, pid: int, *, start: int, command: Command) -> None:
        self._tree, self._pid, self._start, self._command = tree, pid, start, command
        self._verified: set[Peer] = set()

    async def verify(
        self, peer: Peer | None, members: Callable[[], list[Proc]], *, is_leaderless: bool
    ) -> Probe:
        """Return a successful probe if the listener at *peer* is accepted; verify each peer once.

        Args:
            peer: Address and port that responded; None cannot be verified and is accepted.
            members: Return the processes of the tree; called if the leader is not the holder.
            is_leaderless: The leader was reaped.

        Raises:
            OSError: There is no free descriptor or memory.
        """
        if peer is None or peer in self._verified:
            return Probe(is_ok=True)
        probe, holders = await self._verify(peer, members, is_leaderless)
        if probe.is_final:
            with anyio.move_on_after(_EXIT_LIMIT_S):
                await pidfd.wait_gone(holders)
                await anyio.sleep(_EXIT_LIMIT_S)
            probe, _ = await self._verify(peer, members, is_leaderless)
        return probe

    def note_client(self) -> None:
        """Note whether a client of an engine is below the leader now; takes about 0.05 ms."""
        if not self._tree.had_client:
            with suppress(OSError):
                self._tree.had_client = any(map(container_engines.is_client, _below(self._pid)))

    async def _verify(
        self, peer: Peer, members: Callable[[], list[Proc]], is_leaderless: bool
    ) -> tuple[Probe, list[Proc]]:
        uids = listeners.listening_users(*peer)
        if not uids:  # the kernel forwards the port, or the listener has just closed
            return Probe(is_ok=True), []
        inodes = set(uids)
        if not is_leaderless:  # usually the leader holds it, so no scan is needed
            inodes -= procfs.socket_inodes(self._pid)
        tree = members() if inodes else []
        for member in tree:
            inodes -= procfs.socket_inodes(member.pid)
        holders = await threads.run(procfs.find_holders, inodes) if inodes else []
        for holder in holders:
            inodes -= procfs.socket_inodes(holder.pid)
            if (rejection := self._check_holder(holder, peer[1])) is not None:
                return rejection, holders
        for inode in inodes:
            if (rejection := self._check_hidden(uids[inode], tree, peer[1])) is not None:
                return rejection, holders
        self._verified.add(peer)
        return Probe(is_ok=True), holders

    def _check_holder(self, holder: Proc, port: int) -> Probe | None:
        name = procfs.program(holder.pid)
        who = f"port {port} is served by pid {holder.pid} ({name})"
        is_container = container_engines.is_forwarder(holder.pid) or procfs.is_contained(holder.pid)
        if is_container and holder.start < self._start:
            detail = f"{who} for a container that is older than this start"
            return Probe(is_ok=False, detail=detail)
        service = procfs.variable(holder.pid, "SWAPCHART_SERVICE")
        if service is not None and service != self._command.label:
            return _rejection(f"{who} of {service or 'another proxy'}")
        if is_container or _is_roots(users.uid(holder.pid)) or self._has_client():
            return None
        return _rejection(who)

    def _check_hidden(self, uid: int, tree: list[Proc], port: int) -> Probe | None:
        if _is_roots(uid) or self._has_client():
            return None
        if any(_hides(member.pid, uid) for member in tree):
            return None
        ours = {member.pid for member in tree}
        hidden = [p for p in procfs.scan() if p.pid not in ours and _hides(p.pid, uid)]
        if not hidden:
            return None
        user = users.name(uid)
        who = f"one of {len(hidden)} processes"
        if len(hidden) == 1:
            who = f"pid {hidden[0].pid} ({procfs.program(hidden[0].pid)})"
        return _rejection(f"port {port} is served by {who} of user {user}")

    def _has_client(self) -> bool:
        if not self._tree.had_client:
            self._tree.had_client = container_engines.names_client(self._command.argv)
        return self._tree.had_client


def _rejection(who: str) -> Probe:
    detail = (
        f"{who}, which the command did not start and which is no container's; "
        "its responses do not count, since `external: true` is not set: end it, or use another port"
    )
    return Probe(is_ok=False, detail=detail, is_final=True)


def _is_roots(uid: int) -> bool:
    """Return True if *uid* is root and this process is not; as root it would mean nothing."""
    return uid == 0 and os.geteuid() != 0


def _hides(pid: int, uid: int) -> bool:
    """Return True if *pid* runs as *uid* and its open files are hidden."""
    try:
        os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except PermissionError:
        return uid in (users.uid(pid), users.real_uid(pid))
    except OSError:
        return False
    return False


def _below(pid: int) -> list[int]:
    """Return *pid* and its descendants by the kernel's lists of children, at most 64."""
    found, level = [pid], [pid]
    for _ in range(_DEPTH):
        lists = (procfs.read_bytes(f"/proc/{each}/task/{each}/children") for each in level)
        level = [int(word) for words in lists for word in words.split()][: _WIDTH - len(found)]
        if not level:
            break
        found += level
    return found
