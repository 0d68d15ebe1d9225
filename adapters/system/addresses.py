"""Listening addresses as text."""

from __future__ import annotations

_LARGEST_PORT = 65535
_MOST_DIGITS = 5


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``, ``[::1]:port`` or ``:port`` (all interfaces).

    Raises:
        ValueError: It has another form.
    """
    host, mark, port = text.rpartition(":")
    is_port = port.isdecimal() and len(port) <= _MOST_DIGITS and int(port) <= _LARGEST_PORT
    if not mark or not is_port:
        raise ValueError(f"expected HOST:PORT to listen on, such as 127.0.0.1:8080, got {text!r}")
    return host.strip("[]") or "0.0.0.0", int(port)


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach *host*."""
    return host == "localhost" or host.startswith("127.") or host == "::1"
