"""Listening addresses: parse them, bind them, check certificates."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from pathlib import Path

from ..system import addresses

_BACKLOG = 2048


#: TCP keepalive finds a vanished client, or one that never closes its half, within 2 min.
_ALIVE_S = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))


_READER_LIMIT_MS = 60_000  # the kernel aborts a connection that acknowledges no byte for this long


class BindError(Exception):
    """The listening address is not available; the text says which and why.

    Attributes:
        exit_code: Exit code of a command that cannot go on.
    """

    exit_code = 1


class OptionError(BindError):
    """An option has a wrong value, or lacks another one; the text says which."""

    exit_code = 2  # as argparse has it


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``, ``[::1]:port`` or ``:port`` (all interfaces).

    Raises:
        OptionError: It has another form.
    """
    try:
        return addresses.parse_address(text)
    except ValueError as error:
        raise OptionError(str(error)) from error


def bind(address: str) -> socket.socket:
    """Bind and listen, before anything else starts.

    Raises:
        BindError: The address is taken, or does not belong to this machine.
    """
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        prepare(sock)
    except (OSError, UnicodeError) as error:
        sock.close()
        raise BindError(_bind_error(address, error)) from error
    return sock


def _bind_error(address: str, error: OSError | UnicodeError) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    is_taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    first = "stop the program that listens there, or " if is_taken else ""
    return f"cannot listen on {address}: {reason}; {first}choose another address with --listen"


def prepare(sock: socket.socket) -> None:
    """Listen on *sock*, and set the options that accepted connections inherit.

    Raises:
        OSError: It cannot listen.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _READER_LIMIT_MS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _ALIVE_S:
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    sock.listen(_BACKLOG)
    sock.setblocking(False)


def address_of(sock: socket.socket) -> str:
    """Return the address of a listening socket as ``host:port``."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_certificate(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """Return both files, or None if neither was given.

    Raises:
        BindError: Only one was given, or they are not a certificate and its key.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        found = "--tls-key-file" if certificate is None else "--tls-cert-file"
        raise OptionError(f"expected --tls-cert-file and --tls-key-file, got {found} only")
    try:
        for path in (certificate, key):
            path.open("rb").close()  # OpenSSL does not say which file it could not read
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            certificate, key, password=""
        )
    except ssl.SSLError as error:
        raise BindError(
            f"{certificate} and {key} are not a certificate and its key: {error}"
        ) from error
    except OSError as error:
        raise BindError(f"the certificate cannot be read: {error}") from error
    return certificate, key


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    """Return the URL of *sock* for clients on this machine."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
