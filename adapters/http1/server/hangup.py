"""State of a client's socket behind bytes that the event loop does not read."""

from __future__ import annotations

import asyncio
import select

from . import sock_diag

_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux; elsewhere only a reset shows
_HANGUP = select.POLLERR | select.POLLHUP | _RDHUP


def has_unread_input(transport: asyncio.Transport) -> bool:
    """Return True if the client has sent bytes that the event loop has not read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


class HangupDetector:
    """Detects that a client that is not read from has closed its end."""

    __slots__ = ("_client", "_poll", "_server")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), _RDHUP)
        self._server = address_of(transport, "sockname")
        self._client = address_of(transport, "peername")

    def has_hung_up(self, *, is_stuck: bool) -> bool:
        """Return True if the client has closed its end or reset the connection.

        Args:
            is_stuck: The client cannot send its FIN, since the receive window is full; ask the
                kernel for the state of its socket.
        """
        if any(events & _HANGUP for _, events in self._poll.poll(0)):
            return True
        if not is_stuck or self._server is None or self._client is None:
            return False
        return sock_diag.has_left(self._server, self._client)


def address_of(transport: asyncio.BaseTransport, end: str) -> tuple[str, int] | None:
    """Return host and port of one end of *transport*; None for a socket without a port.

    Args:
        transport: Of the connection.
        end: ``sockname`` for the server's end, ``peername`` for the client's.
    """
    name = transport.get_extra_info(end)
    return (name[0], name[1]) if isinstance(name, tuple) else None
