"""systemd: notifications (ready, watchdog, stopping), and a listening socket that it passes.

Nothing happens unless systemd asks for it by environment variables.

Source: systemd 252, sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3), systemd.service(5):
``Type=notify`` and ``WatchdogSec=``; systemd.socket(5): ``FileDescriptorName=``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from .listen import BindError, prepare

_MOST_DIGITS = 19
_FIRST_FD = 3
_MOST_FDS = 1024
_NAMES = frozenset({"swapchart", "swapchart.socket"})


def passed_socket() -> socket.socket | None:
    """Return the listening socket that systemd passed; None if it passed none to this process.

    The only one is taken, or the one that is called ``swapchart`` or ``swapchart.socket``. The
    variables are removed from the environment, so that no model takes the socket for its own.

    Raises:
        BindError: Several were passed and none has that name, or it is no listening TCP socket.
    """
    pid, count, names = (os.environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal() or not 0 < int(count) <= _MOST_FDS:
        return None
    known = names.split(":") if names else []
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in fds:
        with suppress(OSError):
            os.set_inheritable(fd, False)
    chosen = [fd for fd, name in zip(fds, known, strict=False) if name in _NAMES] or list(fds)
    if len(chosen) > 1:
        raise BindError(
            f"expected one socket of systemd, or one with FileDescriptorName=swapchart; got "
            f"{len(fds)} ({', '.join(known) or 'without names'})"
        )
    return _listening(chosen[0])


def _listening(fd: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        is_listening = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        text = f"systemd passed no socket as descriptor {fd}: {error.strerror}"
        raise BindError(text) from error
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not is_listening:
        kind = f"{sock.family.name} {sock.type.name}"
        sock.close()
        raise BindError(
            f"systemd passed a socket of kind {kind}; expected one that listens on TCP, as "
            "ListenStream=127.0.0.1:8080 with Accept=no makes it"
        )
    prepare(sock)
    return sock


class Notifier:
    """Sends the state of the service to the socket that systemd named, if it named one.

    The variables are removed from the environment, so that no model can send in our name.

    Attributes:
        watchdog_s: systemd kills the service after this many seconds without a notification; None
            means that there is no watchdog.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(
            os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        )

    def tell(self, state: str) -> None:
        """Send *state*, such as ``READY=1``; never waits and never raises."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(state.encode(), self._address)

    async def live(self) -> None:
        """Send a watchdog notification twice in each watchdog interval, until canceled.

        Returns at once if systemd has no watchdog for this service.
        """
        while self._address and self.watchdog_s is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)


def _watchdog_s(microseconds: str, pid: str) -> float | None:
    if not microseconds.isdecimal() or len(microseconds) > _MOST_DIGITS or not int(microseconds):
        return None
    is_meant = pid in ("", str(os.getpid()))
    return int(microseconds) / 1e6 if is_meant else None
