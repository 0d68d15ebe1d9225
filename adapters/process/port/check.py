"""Tells, before a process is started, that somebody else listens where it would serve.

Without this its server fails on its own, or a stranger's answer is found out by the readiness
probe, again and again until the start's limit. Free ports cost one ``bind``, some 20 us; only
one that is taken is looked up in /proc.

A holder that is about to end, such as a process that was just killed, is waited for. One that
cannot be seen (another user's, another namespace's) is none of our business: whether the server
can bind, it finds out itself. So it is with the port of a container, which the command may be
about to replace (``docker rm -f``, then ``docker run``; ``podman run --replace``).
"""

from __future__ import annotations

import errno
import logging
import socket
from contextlib import suppress
from ipaddress import ip_address
from urllib.parse import urlsplit

import anyio

from ....runtime.errors import PortInUseError
from ...system import threads
from .. import container_engines, pidfd, procfs
from ..procfs import Proc
from . import listeners
from .listeners import IPAddress

_ENDING_S = 0.3  # so long who holds the port may take to end
_log = logging.getLogger(__name__)


async def check_free(url: str) -> None:
    """Return when nobody who can be seen listens at *url*, which is looked at if on loopback.

    Raises:
        PortInUseError: Somebody does, and did not end within 0.3 s.
    """
    place = _loopback(url)
    if place is None or _can_bind(*place):
        return
    holders = await _holders(*place)
    with anyio.move_on_after(_ENDING_S):
        await pidfd.wait_gone(holders)
    if not holders or _can_bind(*place):
        return
    first = min(holders, key=lambda holder: holder.start)
    program, service = procfs.program(first.pid), procfs.variable(first.pid, "SWAPCHART_SERVICE")
    is_forwarder = program.partition(".")[0] in container_engines.FORWARDERS  # pasta.avx2
    if is_forwarder or procfs.is_contained(first.pid):
        text = "port %d is held by pid %d (%s), for a container"
        _log.warning(text, place[1], first.pid, program)
        return
    raise PortInUseError(place[1], first.pid, program, who=f" of {service}" if service else "")


def _loopback(url: str) -> tuple[IPAddress, int] | None:
    """Return address and port of *url*; None: not on this machine, or not in plain HTTP.

    What speaks TLS is often another server, in front of the one that is started.
    """
    with suppress(ValueError):  # a name; a port out of range
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = ip_address("127.0.0.1" if host == "localhost" else host)
        if parts.scheme == "http" and (address.is_loopback or address.is_unspecified):
            return address, parts.port or 80
    return None


def _can_bind(address: IPAddress, port: int) -> bool:
    """Tell whether nobody is seen to be in the way at *address* and *port*.

    True as well for what we may not bind and others may: a low port, another's address.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((str(address), port))
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


async def _holders(address: IPAddress, port: int) -> list[Proc]:
    try:
        inodes = listeners.listening_inodes(address, port)
        return await threads.run(procfs.find_holders, inodes) if inodes else []
    except OSError:  # no descriptor left to look with: the start itself will say so
        return []
