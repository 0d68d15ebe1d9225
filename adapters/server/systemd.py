"""systemd notifications: ready, watchdog, stopping. Does nothing unless systemd asks for them.

Source: systemd 252, sd_notify(3), sd_watchdog_enabled(3), systemd.service(5): ``Type=notify`` and
``WatchdogSec=``.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

_MOST_DIGITS = 19


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
