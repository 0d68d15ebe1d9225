"""Listening sockets of a TCP port, by inode as ``/proc/PID/fd`` shows it.

Netlink lists listening sockets only, which takes 0.1 ms. For the tables in /proc the kernel walks
all connections, including those that have just ended, which takes 15 ms or more on a busy machine.
They are read only where netlink is not available, as in some sandboxes.

Source: Linux man-pages, sock_diag(7), netlink(7), proc_pid_net(5).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from ....dataclass import dataclass
from ..procfs import read_bytes

IPAddress = IPv4Address | IPv6Address

_LISTEN = "0A"  # state in the tables; netlink takes a bit set of states
_LISTEN_BIT = 1 << int(_LISTEN, 16)
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states
#: Fields of an inet_diag_msg: family, state, port, address, user, inode.
_SOCKET = struct.Struct("=BBxx2s2x16s40xII")
_DUMP_BYTES = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningSocket:
    """A listening TCP socket.

    Attributes:
        address: Bound address; the unspecified address means all.
        inode: Inode number as ``/proc/PID/fd`` shows it.
        uid: User id of its creator; -1 if unknown.
    """

    address: IPAddress
    inode: int
    uid: int = -1


def parse_listeners(table: str, port: int) -> list[ListeningSocket]:
    """Parse /proc/net/tcp or tcp6; return the sockets in state LISTEN on *port*."""
    found: list[ListeningSocket] = []
    suffix = f":{port:04X}"
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN and fields[1].endswith(suffix):
            address = _address(fields[1].partition(":")[0])
            found.append(ListeningSocket(address=address, inode=int(fields[9]), uid=int(fields[7])))
    return found


def _address(words: str) -> IPAddress:
    # Groups of 32 bits, each printed as a number in the machine's own byte order.
    numbers = (int(words[at : at + 8], 16) for at in range(0, len(words), 8))
    return ip_address(b"".join(struct.pack("=I", number) for number in numbers))


def select_listeners(listeners: Iterable[ListeningSocket], address: IPAddress) -> set[int]:
    """Return the inodes that accept connections to *address*: exact matches, else wildcards."""
    every = list(listeners)
    exact = {each.inode for each in every if _plain(each.address) == _plain(address)}
    return exact or {each.inode for each in every if each.address.is_unspecified}


def _plain(address: IPAddress) -> IPAddress:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def listening_inodes(address: IPAddress, port: int) -> set[int]:
    """Return the inodes of the sockets that accept connections to *address* and *port*."""
    return set(listening_users(address, port))


def listening_users(address: IPAddress, port: int) -> dict[int, int]:
    """Return inode -> user id of the sockets that accept connections to *address* and *port*."""
    try:
        found = ask_listeners(port)
    except OSError:  # netlink is not available or not allowed
        found = read_listeners(port)
    inodes = select_listeners(found, address)
    return {each.inode: each.uid for each in found if each.inode in inodes}


def ask_listeners(port: int) -> list[ListeningSocket]:
    """Return the sockets that listen on *port*, by netlink.

    Raises:
        OSError: Netlink is not available.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        return [
            listener
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in _dump(sock, family)
            for listener in _on_port(message, port)
        ]


def read_listeners(port: int) -> list[ListeningSocket]:
    """Return the sockets that listen on *port*, from /proc."""
    tables = (read_bytes("/proc/net/tcp"), read_bytes("/proc/net/tcp6"))
    return [each for table in tables for each in parse_listeners(table.decode("ascii"), port)]


def _dump(sock: socket.socket, family: int) -> Iterator[bytes]:
    """Yield a message for each listening socket; the kernel replies before `send` returns."""
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _LISTEN_BIT)
    header = (_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0)
    sock.send(_HEADER.pack(*header) + request)
    while True:
        data = sock.recv(_DUMP_BYTES, socket.MSG_DONTWAIT)
        while data:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -struct.unpack_from("=i", data, _HEADER.size)[0]
                raise OSError(code, os.strerror(code))
            yield data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _on_port(message: bytes, port: int) -> Iterator[ListeningSocket]:
    family, _, number, address, uid, inode = _SOCKET.unpack_from(message)
    if int.from_bytes(number, "big") == port:
        size = 4 if family == socket.AF_INET else 16
        yield ListeningSocket(address=ip_address(address[:size]), inode=inode, uid=uid)
