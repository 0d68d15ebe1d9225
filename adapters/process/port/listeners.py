"""Who listens on a TCP port: the inodes of the sockets, as ``/proc/PID/fd`` shows them.

The kernel is asked for listening sockets only, by netlink, which takes it 0.1 ms. For the tables in
/proc it walks all connections too, those that have just ended as well: 15 ms and more on a busy
machine. They are read where netlink is not to be had, as in some sandboxes.

Source: Linux man-pages, sock_diag(7), netlink(7), proc_pid_net(5).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from ..procfs import read_bytes

IPAddress = IPv4Address | IPv6Address

_LISTEN = "0A"  # of the tables; for netlink a set of states, by their bits
_LISTEN_BIT = 1 << int(_LISTEN, 16)
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST, NLM_F_DUMP
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI48x")  # inet_diag_req_v2: family, protocol, extensions, states
#: Of an inet_diag_msg: family, state, port, address, user, inode.
_SOCKET = struct.Struct("=BBxx2s2x16s40xII")
_DUMP_BYTES = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningSocket:
    """A listening TCP socket.

    Attributes:
        address: Where it is bound; unspecified is every address.
        inode: Its number, as ``/proc/PID/fd`` shows it.
        uid: User who made it.
    """

    address: IPAddress
    inode: int
    uid: int = -1


def parse_listeners(table: str, port: int) -> list[ListeningSocket]:
    """Read /proc/net/tcp or tcp6: the sockets in state LISTEN on *port*."""
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
    """Choose the inodes that answer a connection to *address*: exact ones before wildcards."""
    every = list(listeners)
    exact = {each.inode for each in every if _plain(each.address) == _plain(address)}
    return exact or {each.inode for each in every if each.address.is_unspecified}


def _plain(address: IPAddress) -> IPAddress:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def listening_inodes(address: IPAddress, port: int) -> set[int]:
    """Return the inodes of the sockets that answer on *address* and *port*; empty if unseen."""
    return set(listening_users(address, port))


def listening_users(address: IPAddress, port: int) -> dict[int, int]:
    """Return the sockets that answer on *address* and *port*: the user of each, by inode."""
    try:
        found = ask_listeners(port)
    except OSError:  # no such family or no right to it
        found = read_listeners(port)
    inodes = select_listeners(found, address)
    return {each.inode: each.uid for each in found if each.inode in inodes}


def ask_listeners(port: int) -> list[ListeningSocket]:
    """Ask the kernel which sockets listen on *port*.

    Raises:
        OSError: It does not answer such questions.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        return [
            listener
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in _dump(sock, family)
            for listener in _on_port(message, port)
        ]


def read_listeners(port: int) -> list[ListeningSocket]:
    """Read from /proc which sockets listen on *port*."""
    tables = (read_bytes("/proc/net/tcp"), read_bytes("/proc/net/tcp6"))
    return [each for table in tables for each in parse_listeners(table.decode("ascii"), port)]


def _dump(sock: socket.socket, family: int) -> Iterator[bytes]:
    """Yield a message for each listening socket; the answer is there when the question is sent."""
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
