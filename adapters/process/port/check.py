"""Port check before a process is started: fails if another process listens on its port.

Without it the server would fail on its own, or the readiness probe would reject the responses of
another process until the start times out. A free port costs one ``bind``, about 20 us; /proc is
read only if the port is taken.

A holder that is about to end, such as a process that was just killed, is waited for. A holder that
is invisible (another user's or another namespace's) is ignored, since the server itself finds out
whether it can bind. The port of a container is ignored too, because the command may replace the
container (``docker rm -f``, then ``docker run``; ``podman run --replace``).
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

_EXIT_LIMIT_S = 0.3  # longest wait for the holder of the port to end
_log = logging.getLogger(__name__)


async def check_free(url: str) -> None:
    """Return if no visible process listens at *url*; only loopback addresses are checked.

    Raises:
        PortInUseError: A process listens there and did not end within 0.3 s.
    """
    place = _loopback(url)
    if place is None or _can_bind(*place):
        return
    holders = await _holders(*place)
    with anyio.move_on_after(_EXIT_LIMIT_S):
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
    """Return address and port of *url*; None if it is not on loopback or not plain HTTP.

    A TLS endpoint is often another server in front of the one that is started.
    """
    with suppress(ValueError):  # a name; a port out of range
        parts = urlsplit(url)
        host = parts.hostname or ""
        address = ip_address("127.0.0.1" if host == "localhost" else host)
        if parts.scheme == "http" and (address.is_loopback or address.is_unspecified):
            return address, parts.port or 80
    return None


def _can_bind(address: IPAddress, port: int) -> bool:
    """Return False if *address* and *port* are in use.

    True also if this process may not bind there but others may: a low port, a foreign address.
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
    except OSError:  # no free descriptor; the start will fail with that error
        return []
