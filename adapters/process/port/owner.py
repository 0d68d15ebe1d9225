"""Decides whether a listener that answers for a model is the model's own.

A socket that the model's tree holds is. One that it does not hold counts only if it is root's (and
we are not root), or a container's: its holder is in another PID namespace, or is a port forwarder
of an engine, or the tree holds, or held since its start, a client of an engine. Every other
listener is a stranger that would be sent the clients' prompts, and the start fails at once.

A container that is older than the model does not count yet, since the command may be about to
replace it. A socket whose holder cannot be seen is judged by its user; if none of that user's
processes hides what it holds, the socket belongs to another PID namespace.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import anyio

from ....runtime.ports import Command, Probe
from ...system import threads
from .. import container_engines, pidfd, procfs
from .. import users as procuser
from ..procfs import Proc
from ..tree.descendants import Tree
from . import listeners
from .listeners import IPAddress

_ENDING_S = 0.3  # a stranger gets so long to end before the start fails
_DEPTH = 8
_WIDTH = 64

Peer = tuple[IPAddress, int]


class PortOwner:
    """Judges the listeners that answer for one run.

    Args:
        tree: Of the run.
        pid: Its leader.
        start: When the leader started, in clock ticks since boot.
        command: What was launched.
    """

    def __init__(self, tree: Tree, pid: int, *, start: int, command: Command) -> None:
        self._tree, self._pid, self._start, self._command = tree, pid, start, command
        self._proven: set[Peer] = set()

    async def prove(
        self, peer: Peer | None, members: Callable[[], list[Proc]], *, is_leaderless: bool
    ) -> Probe:
        """Return whether who answered at *peer* counts; each peer is proved once.

        Args:
            peer: Where the answer came from; None means it cannot be proved, and counts.
            members: Return the processes of the tree; called when the leader is not the holder.
            is_leaderless: The leader was reaped.

        Raises:
            OSError: There is no descriptor or memory left to look with.
        """
        if peer is None or peer in self._proven:
            return Probe(is_ok=True)
        probe, holders = await self._judge(peer, members, is_leaderless)
        if probe.is_final:
            with anyio.move_on_after(_ENDING_S):
                await pidfd.wait_gone(holders)
                await anyio.sleep(_ENDING_S)
            probe, _ = await self._judge(peer, members, is_leaderless)
        return probe

    def note_client(self) -> None:
        """Note whether the leader's tree holds a client of an engine now; some 0.05 ms."""
        if not self._tree.had_client:
            with suppress(OSError):
                self._tree.had_client = any(map(container_engines.is_client, _below(self._pid)))

    async def _judge(
        self, peer: Peer, members: Callable[[], list[Proc]], is_leaderless: bool
    ) -> tuple[Probe, list[Proc]]:
        users = listeners.listening_users(*peer)
        if not users:  # the kernel forwards the port, or the listener has just gone
            return Probe(is_ok=True), []
        inodes = set(users)
        if not is_leaderless:  # mostly it is the leader's own: no need to look at all processes
            inodes -= procfs.socket_inodes(self._pid)
        tree = members() if inodes else []
        for member in tree:
            inodes -= procfs.socket_inodes(member.pid)
        holders = await threads.run(procfs.find_holders, inodes) if inodes else []
        for holder in holders:
            inodes -= procfs.socket_inodes(holder.pid)
            if (refusal := self._judge_holder(holder, peer[1])) is not None:
                return refusal, holders
        for inode in inodes:
            if (refusal := self._judge_hidden(users[inode], tree, peer[1])) is not None:
                return refusal, holders
        self._proven.add(peer)
        return Probe(is_ok=True), holders

    def _judge_holder(self, holder: Proc, port: int) -> Probe | None:
        name = procfs.program(holder.pid)
        who = f"port {port} is answered by pid {holder.pid} ({name})"
        is_container = container_engines.is_forwarder(holder.pid) or procfs.is_contained(holder.pid)
        if is_container and holder.start < self._start:
            detail = f"{who} for a container that is older than this start"
            return Probe(is_ok=False, detail=detail)
        service = procfs.variable(holder.pid, "SWAPCHART_SERVICE")
        if service is not None and service != self._command.label:
            return _refusal(f"{who} of {service or 'another proxy'}")
        if is_container or _is_roots(procuser.uid(holder.pid)) or self._has_client():
            return None
        return _refusal(who)

    def _judge_hidden(self, uid: int, tree: list[Proc], port: int) -> Probe | None:
        if _is_roots(uid) or self._has_client():
            return None
        if any(_hides(member.pid, uid) for member in tree):
            return None
        ours = {member.pid for member in tree}
        hidden = [p for p in procfs.scan() if p.pid not in ours and _hides(p.pid, uid)]
        if not hidden:
            return None
        user = procuser.name(uid)
        who = f"one of {len(hidden)} processes"
        if len(hidden) == 1:
            who = f"pid {hidden[0].pid} ({procfs.program(hidden[0].pid)})"
        return _refusal(f"port {port} is answered by {who} of user {user}")

    def _has_client(self) -> bool:
        if not self._tree.had_client:
            self._tree.had_client = container_engines.names_client(self._command.argv)
        return self._tree.had_client


def _refusal(who: str) -> Probe:
    detail = (
        f"{who}, which the command did not start and which is no container's; "
        "its responses do not count, since `external: true` is not set: end it, or use another port"
    )
    return Probe(is_ok=False, detail=detail, is_final=True)


def _is_roots(uid: int) -> bool:
    """Return True if *uid* is root's and proves something: to root every stranger is root's."""
    return uid == 0 and os.geteuid() != 0


def _hides(pid: int, uid: int) -> bool:
    """Return True if *pid* is run by *uid* and we may not see what it holds."""
    try:
        os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except PermissionError:
        return uid in (procuser.uid(pid), procuser.real_uid(pid))
    except OSError:
        return False
    return False


def _below(pid: int) -> list[int]:
    """Return *pid* and what descends from it by the lists of children, at most 64 of them."""
    found, level = [pid], [pid]
    for _ in range(_DEPTH):
        lists = (procfs.read_bytes(f"/proc/{each}/task/{each}/children") for each in level)
        level = [int(word) for words in lists for word in words.split()][: _WIDTH - len(found)]
        if not level:
            break
        found += level
    return found
