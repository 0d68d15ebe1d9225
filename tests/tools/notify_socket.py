"""The socket at which systemd listens for messages of a service."""

from __future__ import annotations

import socket
from pathlib import Path

from .net import LONG_S


class Systemd:
    """The other end of NOTIFY_SOCKET.

    Attributes:
        path: Address of the socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(LONG_S)

    def hear(self) -> str:
        """Wait for the next message and return it."""
        return self._socket.recv(4096).decode()

    def hear_until(self, state: str) -> list[str]:
        """Return what comes before *state*."""
        heard = []
        while (said := self.hear()) != state:
            heard.append(said)
        return heard

    def close(self) -> None:
        """Close the socket; its file stays."""
        self._socket.close()
