"""Attacks on websockets, by clients and by models."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

import psutil
from tools import raw
from tools.net import wait_until
from tools.websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    accept_websocket,
    bomb,
    frame,
    handshake,
    open_websocket,
    read_switch,
    send_until_stuck,
)

from .entry import Attack
from .target import Target, read_request

MIB = 1 << 20
_PATH = "/upstream/hostile/ws"
_STUCK_S = 1.3  # longer than the proxy waits until it keeps more for a side that does not read


class _Model:
    """The model's side: accepts websockets, and counts what it reads or does not read.

    Args:
        send: What it sends then, once.
        reads: It reads all that comes.
    """

    def __init__(self, send: bytes = b"", *, reads: bool = True) -> None:
        self._sizes: list[int] = []  # each connection has its thread, and += loses bytes of others
        self._send, self._reads = send, reads
        self._over = threading.Event()

    @property
    def received(self) -> int:
        """Bytes that were read behind the handshakes."""
        return sum(self._sizes)

    def play(self, connection: socket.socket) -> None:
        self._sizes.append(len(accept_websocket(connection)))
        for at in range(0, len(self._send), MIB):
            connection.sendall(self._send[at : at + MIB])
        while self._reads and (data := connection.recv(MIB)):
            self._sizes.append(len(data))
        if not self._reads:
            self._over.wait(60.0)

    @contextlib.contextmanager
    def on(self, target: Target) -> Iterator[None]:
        """Play the model within the block; all must be over at its end, by the proxy's doing."""
        with target.played(self.play):
            try:
                yield
                target.wait_quiet()
            finally:
                self._over.set()


def _open(target: Target) -> raw.Connection:
    return open_websocket(target.port, _PATH)


def _open_compressed(target: Target) -> raw.Connection:
    """Open a websocket for which client and model have agreed on compression."""
    client = target.connect()
    client.send(handshake(_PATH))
    assert b"permessage-deflate" in read_switch(client).lower()
    return client


def _discard(client: raw.Connection, size: int) -> int:
    """Read *size* bytes, or until the end; returns how many there were."""
    found = 0
    with contextlib.suppress(ConnectionError):
        while found < size and (data := client.socket.recv(MIB)):
            found += len(data)
    return found


def _pour(clients: list[raw.Connection], limit: int, patience_s: float) -> None:
    """Send to all of *clients* at once, until they are stuck."""
    options = {"limit": limit, "patience_s": patience_s}
    senders = [
        threading.Thread(
            target=send_until_stuck, args=(client.socket, bytes(MIB)), kwargs=options
        )
        for client in clients
    ]  # fmt: skip
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


# ---- memory
def endless_frame_to_deaf_model(target: Target) -> None:
    """Of a frame of a terabyte only what may wait is taken when the model reads nothing."""
    with _Model(reads=False).on(target), _open(target) as client:
        client.send(frame(BINARY, is_masked=True, size=1 << 40))
        _pour([client], 200 * MIB, _STUCK_S)
        client.reset()


def endless_frame_to_model(target: Target) -> None:
    """A frame of 100 MB passes as it comes."""
    model = _Model()
    with model.on(target), _open(target) as client:
        head = frame(BINARY, is_masked=True, size=100 * MIB)
        client.send(head)
        for _ in range(100):
            client.send(bytes(MIB))
        client.close()

    wait_until(lambda: model.received == len(head) + 100 * MIB, 10.0, what="all bytes read")


def bombs_of_clients(target: Target) -> None:
    """Eight compressed messages of 255 KB, 255 MB each when inflated, are not inflated."""
    model, data = _Model(), frame(TEXT, bomb(255 * MIB), is_compressed=True, is_masked=True)
    with model.on(target), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_open_compressed(target)) for _ in range(8)]
        for client in clients:
            client.send(data)

    wait_until(lambda: model.received == 8 * len(data), 10.0, what="all bytes read")


def bombs_of_model(target: Target) -> None:
    """Compressed messages of a model are not inflated either."""
    data = frame(TEXT, bomb(255 * MIB), is_compressed=True)
    with _Model(data).on(target), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_open_compressed(target)) for _ in range(8)]
        assert [len(client.read_exactly(len(data))) for client in clients] == [len(data)] * 8


def many_deaf_tunnels(target: Target) -> None:
    """What waits in all tunnels together is bounded too, and returned when they have ended."""
    process = psutil.Process(target.proxy.pid)
    before = process.memory_info().rss
    with _Model(reads=False).on(target), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_open(target)) for _ in range(16)]
        _pour(clients, 64 * MIB, _STUCK_S)
        for client in clients:
            client.reset()
    wait_until(lambda: process.memory_info().rss < before + 32 * MIB, 10.0, what="memory returned")


def fragments_without_end(target: Target) -> None:
    """A message in 200,000 fragments, empty and not, passes in either direction."""
    pieces = frame(0, is_last=False) + frame(0, b"x", is_last=False)
    down = frame(BINARY, is_last=False) + pieces * 100_000
    pieces = frame(0, is_last=False, is_masked=True) + frame(0, b"x", is_last=False, is_masked=True)
    up = frame(BINARY, is_last=False, is_masked=True) + pieces * 100_000
    model = _Model(down)
    with model.on(target), _open(target) as client:
        client.send(up)
        assert _discard(client, len(down)) == len(down)
        client.close()

    wait_until(lambda: model.received == len(up), 10.0, what="all bytes read")


def bytes_before_the_handshake_is_answered(target: Target) -> None:
    """A client that pours on while the model makes up its mind is cut off."""
    over = threading.Event()

    def think(connection: socket.socket) -> None:
        read_request(connection)
        over.wait(30.0)

    with target.played(think), target.connect() as client:
        client.send(handshake(_PATH))
        assert send_until_stuck(client.socket, bytes(MIB), limit=64 * MIB) < 64 * MIB
        client.close()
        target.wait_quiet()
        over.set()


# ---- ends
def client_leaves_a_deaf_model(target: Target) -> None:
    """Whichever way a client leaves, its model is free: one that reads nothing, or never closes."""
    over, count = threading.Event(), itertools.count()

    def stay(connection: socket.socket) -> None:
        accept_websocket(connection)
        while next(count) >= 3 and connection.recv(MIB):
            pass
        over.wait(60.0)

    with target.played(stay):
        clients = [_open(target) for _ in range(4)]
        for client in clients:
            client.send(frame(BINARY, is_masked=True, size=1 << 30))
        _pour(clients, 8 * MIB, 0.3)
        clients[0].close()
        clients[1].reset()
        clients[2].socket.shutdown(socket.SHUT_WR)
        clients[3].close()
        target.wait_quiet()
        clients[2].close()
        over.set()


def models_end_behind_deaf_clients(target: Target) -> None:
    """A client that reads nothing hides no end of its model, and loses nothing.

    One model leaves behind a part of a frame, one pings, one a frame: each less than the proxy
    keeps for a client, so that it reads to the end.
    """
    last, count = frame(BINARY, bytes(8 * MIB)), itertools.count()
    floods = (
        frame(BINARY, size=1 << 40) + bytes(8 * MIB),
        frame(PING, bytes(125)) * 66_000,
        last,
    )

    def flood(connection: socket.socket) -> None:
        accept_websocket(connection)
        connection.sendall(floods[next(count) % 3])

    with target.played(flood):
        clients = [_open(target) for _ in range(3)]
        try:
            target.wait_quiet()
            # Nothing is lost: a close frame is behind.
            assert _discard(clients[2], 1 << 30) > len(last)
        finally:
            for client in clients:
                client.reset()


def models_send_without_end_to_deaf_clients(target: Target) -> None:
    """Of what models send without end a client that reads nothing takes a bounded part."""
    floods = [frame(BINARY, size=1 << 40) + bytes(MIB), frame(PING, bytes(125)) * 1000]
    count, sent = itertools.count(), []

    def flood(connection: socket.socket) -> None:
        accept_websocket(connection)
        data = floods[next(count) % 2]
        sent.append(send_until_stuck(connection, data, limit=100 * MIB, patience_s=_STUCK_S))

    with target.played(flood):
        clients = [_open(target) for _ in floods]
        wait_until(lambda: len(sent) == len(floods), 30.0, what=lambda: f"both stuck: {sent}")
        assert max(sent) < 60 * MIB
        for client in clients:
            client.reset()
        target.wait_quiet()


# ---- the event loop
def empty_frames_of_model(target: Target) -> None:
    """Two million empty frames of a model pass, and hold nobody else up."""
    data = frame(BINARY) * 2_000_000
    with _Model(data).on(target), _open(target) as client:
        assert _discard(client, len(data)) == len(data)


def empty_frames_of_client(target: Target) -> None:
    """700,000 empty frames of a client pass, and hold nobody else up."""
    data, model = frame(BINARY, is_masked=True) * 700_000, _Model()
    with model.on(target), _open(target) as client:
        client.send(data)

    wait_until(lambda: model.received == len(data), 10.0, what="all bytes read")


def pings_of_client_that_reads_no_pong(target: Target) -> None:
    """A flood of pings whose answers nobody reads is held up."""
    ping = frame(PING, bytes(125), is_masked=True) * 1000
    with open_websocket(target.port, "/upstream/demo/ws") as client:
        send_until_stuck(client.socket, ping, limit=4 * MIB)
        client.reset()
        target.wait_quiet()


# ---- handshakes
def model_sends_endless_handshake(target: Target) -> None:
    """A model whose 101 has no end is an error of the model."""

    def play(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nA: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                connection.sendall(b"a" * 100_000)

    with target.played(play):
        assert target.send(handshake(_PATH)) == 502


def model_accepts_wrongly(target: Target) -> None:
    """A handshake with another key's answer is an error of the model."""

    def play(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
        )

    with target.played(play):
        assert target.send(handshake(_PATH)) == 502


def handshakes_that_are_none(target: Target) -> None:
    """A handshake without a key, with a bad one, or of another version is refused."""
    for fields in (
        {"Sec_WebSocket_Key": ""}, {"Sec_WebSocket_Key": "A"}, {"Sec_WebSocket_Key": "A" * 9000},
        {"Sec_WebSocket_Version": "12"}, {"Sec_WebSocket_Version": "13" * 2000},
    ):  # fmt: skip
        assert target.send(handshake(_PATH, **fields)) in (400, 426), fields


def close_of_every_code(target: Target) -> None:
    """Close frames that are wrong in themselves end no more than their websocket."""
    for payload in (
        b"",
        b"\x03",
        b"\x00\x00",
        b"\x03\xe8" + b"\xff" * 20,
        b"\xff\xff" + b"x" * 123,
    ):
        with open_websocket(target.port, "/upstream/demo/ws") as client:
            client.send(frame(CLOSE, payload, is_masked=True))
            _discard(client, MIB)


ATTACKS: tuple[Attack, ...] = (
    Attack(endless_frame_to_deaf_model, growth_mib=48),
    Attack(endless_frame_to_model, growth_mib=16),
    Attack(bombs_of_clients, growth_mib=32),
    Attack(bombs_of_model, growth_mib=32),
    Attack(fragments_without_end, growth_mib=16),
    Attack(bytes_before_the_handshake_is_answered, growth_mib=16),
    Attack(client_leaves_a_deaf_model, growth_mib=96),
    Attack(models_end_behind_deaf_clients),
    Attack(models_send_without_end_to_deaf_clients, growth_mib=96),
    Attack(empty_frames_of_model, growth_mib=16),
    Attack(empty_frames_of_client, growth_mib=16),
    Attack(pings_of_client_that_reads_no_pong, growth_mib=48),
    Attack(model_sends_endless_handshake, growth_mib=16),
    Attack(model_accepts_wrongly, growth_mib=16),
    Attack(handshakes_that_are_none, growth_mib=16),
    Attack(close_of_every_code, growth_mib=16),
    # Last, since it fills what all tunnels together may hold; takes 4 s.
    Attack(many_deaf_tunnels, growth_mib=192, variants=("hypercorn", "compiled")),
)
