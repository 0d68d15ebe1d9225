"""Listening sockets of a port, by netlink and by /proc."""

import os
import socket
from ipaddress import ip_address

import pytest

from swapchart.adapters.process import procfs
from swapchart.adapters.process.port import listeners
from swapchart.adapters.process.port.listeners import (
    ListeningSocket,
    parse_listeners,
    select_listeners,
)

# What Linux printed on a little-endian machine; the columns after the inode are left out.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1
   1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1
   2: 0100007F:1F90 0100007F:D1C2 01 00000000:00000000 00:00000000 00000000     0        0 103 1
   3: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 104 1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 201
   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 202
   2: 0000000000000000FFFF00000100007F:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 203
"""  # noqa: E501


def test_listeners_of_one_port_are_found() -> None:
    """Other ports and other states are passed over, addresses are read in host order."""
    assert parse_listeners(TCP, 8080) == [
        ListeningSocket(address=ip_address("127.0.0.1"), inode=101, uid=0),
        ListeningSocket(address=ip_address("0.0.0.0"), inode=102, uid=0),
    ]
    assert parse_listeners(TCP6, 8080) == [
        ListeningSocket(address=ip_address("::1"), inode=201, uid=0),
        ListeningSocket(address=ip_address("::"), inode=202, uid=0),
        ListeningSocket(address=ip_address("::ffff:127.0.0.1"), inode=203, uid=0),
    ]
    assert parse_listeners(TCP, 80) == []


@pytest.mark.parametrize(
    ("address", "inodes"),
    [
        ("127.0.0.1", {101, 203}),
        ("::1", {201}),
        ("127.0.0.2", {102, 202}),
    ],
)
def test_listener_on_the_exact_address_precedes_the_wildcard(
    address: str, inodes: set[int]
) -> None:
    """As in the kernel: a wildcard gets what no exact address takes."""
    every = parse_listeners(TCP, 8080) + parse_listeners(TCP6, 8080)

    assert select_listeners(every, ip_address(address)) == inodes


@pytest.mark.parametrize(("host", "seen_from"), [("127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1")])
def test_listener_of_this_process_is_found(host: str, seen_from: str) -> None:
    """The inode in the table is the one among our descriptors."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=":" in host) as server:
        inodes = listeners.listening_inodes(ip_address(seen_from), server.getsockname()[1])

        assert len(inodes) == 1
        assert inodes <= procfs.socket_inodes(os.getpid())
        assert os.getpid() in {each.pid for each in procfs.find_holders(inodes)}


HOSTS = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::"]


@pytest.mark.parametrize("host", HOSTS)
def test_listeners_of_sock_diag_and_proc_are_equal(host: str) -> None:
    """Address and inode of a listener, and none of a connection to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port)):
            inode = os.fstat(server.fileno()).st_ino
            address = ip_address(host)
            expected = [ListeningSocket(address=address, inode=inode, uid=os.geteuid())]

            # Another program may listen on the same number of the other family.
            for found in (listeners.ask_listeners(port), listeners.read_listeners(port)):
                same = [each for each in found if each.address.version == address.version]
                assert same == expected


def test_listeners_beyond_one_kernel_message_are_found() -> None:
    """A long reply of the kernel arrives in several messages."""
    servers = [socket.create_server((f"127.0.1.{n}", 0)) for n in range(1, 250)]
    try:
        for server in servers:
            host, port = server.getsockname()
            assert listeners.listening_inodes(ip_address(host), port) == {
                os.fstat(server.fileno()).st_ino
            }
    finally:
        for server in servers:
            server.close()


@pytest.mark.parametrize(
    ("name", "value"), [("_NETLINK_SOCK_DIAG", 99), ("_SOCK_DIAG_BY_FAMILY", 254)]
)
def test_listeners_without_sock_diag_are_read_from_proc(
    monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    """No such protocol, or no such question: a listener is found all the same."""
    monkeypatch.setattr(listeners, name, value)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=r"."):
            listeners.ask_listeners(port)

        inodes = listeners.listening_inodes(ip_address("127.0.0.1"), port)
        assert inodes == {os.fstat(server.fileno()).st_ino}
