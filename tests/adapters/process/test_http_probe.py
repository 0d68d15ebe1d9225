"""Readiness probes against real servers, some of them nasty, and the proof of ownership."""

import os
import signal
import socket
import ssl
import sys
import textwrap
import time
from collections.abc import Iterator

import anyio
import anyio.abc
import pytest
from tools.net import LATE_S, wait_until_async
from tools.rows import row

from swapchart.adapters.process import LocalLauncher, LocalProcess, procfs
from swapchart.adapters.process.port import http_probe, listeners
from swapchart.adapters.system import name_lookup
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Command, Probe

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SERVER = textwrap.dedent("""
    import os, socket, struct, sys, time
    mode, host = sys.argv[1:]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, 0), family=family)
    if mode == "daemon" and os.fork():
        server.close()
        os.wait()
    if mode == "daemon":
        os.setsid()
    print(server.getsockname()[1], flush=True)
    while True:
        peer, _ = server.accept()
        if mode == "slam":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            continue
        if mode == "reset":
            peer.recv(1)
            peer.close()
            continue
        try:
            asked = peer.recv(65536)
            if mode == "mute":
                time.sleep(60)
            elif mode == "trickle":
                while True:
                    peer.send(b"H")
                    time.sleep(0.05)
            elif mode == "endless":
                peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
                while True:
                    peer.sendall(b"x" * 65536)
            elif mode == "endless line":
                while True:
                    peer.sendall(b"x" * 65536)
            elif mode == "endless silence":
                peer.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
                time.sleep(60)
            elif mode == "echo":
                peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
                print(asked, flush=True)
            elif mode.startswith("interim"):
                for number in mode.split()[1:]:
                    peer.sendall(f"HTTP/1.1 {number} Wait\\r\\nLink: </a>\\r\\n".encode())
                    time.sleep(0.02)
                    peer.sendall(b"\\r\\n")
                peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
            elif mode == "endless interim":
                while True:
                    peer.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n" * 1000)
            elif mode == "half interim":
                peer.sendall(b"HTTP/1.1 100 Continue\\r\\nX: y\\r\\n")
            elif mode == "close":
                pass
            else:
                code = {"daemon": "200"}.get(mode, mode).encode()
                peer.sendall(b"HTTP/1.1 " + code + b" \\r\\nLocation: /x\\r\\n")
                peer.sendall(b"Content-Length: 2\\r\\n\\r\\nok")
        except OSError:
            pass
        peer.close()
""")


async def serve(
    launcher: LocalLauncher, mode: str, host: str = "127.0.0.1"
) -> tuple[LocalProcess, int, LogRing]:
    """Start a server; returns it, its port and its log."""
    log = LogRing()
    argv = (sys.executable, "-I", "-S", "-c", SERVER, mode, host)
    process = await launcher.start(Command(argv=argv, label=mode), log)
    await wait_until_async(lambda: b"\n" in log.history())
    return process, int(log.history().split()[0]), log


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("200", Probe(is_ok=True)),
        ("daemon", Probe(is_ok=True)),
        ("interim 100", Probe(is_ok=True)),
        ("interim 102 103 103 100", Probe(is_ok=True)),
        ("interim 101", Probe(is_ok=False, detail="status 101")),
        ("half interim", Probe(is_ok=False, detail="no more than status 100")),
        ("503", Probe(is_ok=False, detail="status 503")),
        ("204", Probe(is_ok=False, detail="status 204")),
        ("302", Probe(is_ok=False, detail="status 302")),
        ("20", Probe(is_ok=False, detail="not HTTP")),
        ("close", Probe(is_ok=False, detail="closed without a response")),
    ],
)
@row("A28")
async def test_probe_passes_with_200_only(
    launcher: LocalLauncher, mode: str, expected: Probe
) -> None:
    """Any other status is no, redirects are not followed, and the detail says what came."""
    process, port, _ = await serve(launcher, mode)

    assert await process.probe(f"http://127.0.0.1:{port}/health", timeout_s=5) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mute", Probe(is_ok=False, detail="timeout")),
        ("trickle", Probe(is_ok=False, detail="timeout")),
        ("endless interim", Probe(is_ok=False, detail="no more than status 100")),
        ("endless line", Probe(is_ok=False, detail="not HTTP")),
        ("endless", Probe(is_ok=True)),
        ("endless silence", Probe(is_ok=True)),
    ],
)
@row("A26", "A29")
async def test_probe_ends_in_time(launcher: LocalLauncher, mode: str, expected: Probe) -> None:
    """Neither silence nor a trickle nor an endless body holds a probe beyond its timeout."""
    process, port, _ = await serve(launcher, mode)
    began = time.monotonic()

    assert await process.probe(f"http://127.0.0.1:{port}/", timeout_s=0.5) == expected
    assert time.monotonic() - began < 0.5 + LATE_S


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
async def test_probe_request_is_plain_and_complete(launcher: LocalLauncher, host: str) -> None:
    """Names and both address families work; the target is sent as declared, safely quoted."""
    process, port, log = await serve(launcher, "echo", "::1" if host == "::1" else "127.0.0.1")
    name = f"[{host}]" if ":" in host else host
    url = f"http://user:pw@{name}:{port}/a b/%41?x=1&y={chr(228)}"

    assert await process.probe(url, timeout_s=5) == Probe(is_ok=True)
    await wait_until_async(lambda: log.history().count(b"\n") == 2)
    said = log.tail(1)[0]
    assert said.startswith(rf"b'GET /a%20b/%41?x=1&y=%C3%A4 HTTP/1.1\r\nHost: {name}:{port}\r\n")
    assert r"\r\nConnection: close\r\n\r\n" in said


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://127.0.0.1:1/", "refused"),
        ("http://localhost:1/", "refused"),
        ("http://no-such-host.invalid/", "unknown host"),
        ("ftp://127.0.0.1/", "bad url: expected an http or https URL"),
        ("http:///health", "bad url: expected an http or https URL"),
        ("http://127.0.0.1:99999/", "bad url: Port out of range 0-65535"),
        ("http://[::1/", "bad url: Invalid IPv6 URL"),
        ("http://a..b/", "unknown host"),
    ],
)
async def test_probe_of_an_unreachable_address_names_the_reason(
    launcher: LocalLauncher, url: str, detail: str
) -> None:
    """A probe never raises; it says in a few words what was in the way."""
    process = await launcher.start(Command(argv=("sleep", "60")), LogRing())

    assert await process.probe(url, timeout_s=5) == Probe(is_ok=False, detail=detail)


async def test_probe_of_https_against_plain_text_fails(launcher: LocalLauncher) -> None:
    """An https URL at a plain server fails as such."""
    process, port, _ = await serve(launcher, "200")
    probe = await process.probe(f"https://127.0.0.1:{port}/", timeout_s=5)

    assert not probe.is_ok
    assert probe.detail.startswith("tls: ")


async def test_probe_reads_the_system_certificates_once(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading them takes 20 ms of the event loop's time, and a start is probed often."""
    process, port, _ = await serve(launcher, "200")
    made: list[int] = []
    real = ssl.create_default_context

    def spy() -> ssl.SSLContext:
        made.append(1)
        return real()

    monkeypatch.setattr(ssl, "create_default_context", spy)
    for _ in range(3):
        await process.probe(f"https://127.0.0.1:{port}/", timeout_s=5)

    assert len(made) <= 1


async def answer(stream: anyio.abc.SocketStream) -> None:
    async with stream:
        await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@row("A18")
async def test_probe_of_an_older_foreign_process_fails(launcher: LocalLauncher) -> None:
    """A 200 from a process that was there before our child does not make it ready."""
    process = await launcher.start(Command(argv=("sleep", "60")), LogRing())
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        probe = await process.probe(f"http://127.0.0.1:{port}/", timeout_s=5)
        tasks.cancel_scope.cancel()

    who = f"port {port} is served by pid {os.getpid()} ({procfs.program(os.getpid())})"
    assert not probe.is_ok
    assert probe.is_final
    assert probe.detail.startswith(f"{who}, which the command did not start")


@row("A18")
async def test_probe_of_another_service_fails(launcher: LocalLauncher) -> None:
    """A younger process is refused too if it carries the marker of another run."""
    process = await launcher.start(Command(argv=("sleep", "60")), LogRing())
    other, port, _ = await serve(launcher, "200")
    probe = await process.probe(f"http://127.0.0.1:{port}/", timeout_s=5)

    name = procfs.program(other.pid)
    assert probe.is_final
    assert probe.detail.startswith(f"port {port} is served by pid {other.pid} ({name}) of 200")


async def test_probe_verifies_the_owner_once_for_each_port(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later probes of the same port cost one connection and no look into /proc."""
    process, port, _ = await serve(launcher, "200")
    asked: list[int] = []
    real = listeners.listening_users

    def spy(address: listeners.IPAddress, port: int) -> dict[int, int]:
        asked.append(port)
        return real(address, port)

    monkeypatch.setattr(listeners, "listening_users", spy)
    for _ in range(3):
        assert (await process.probe(f"http://127.0.0.1:{port}/", timeout_s=5)).is_ok

    assert asked == [port]


async def test_probe_of_the_leader_needs_no_scan(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the leader does not hold the socket are all processes of the machine looked at."""
    leader, port, _ = await serve(launcher, "200")
    daemon, other_port, _ = await serve(launcher, "daemon")
    scans: list[int] = []
    real = procfs.scan

    def spy() -> Iterator[procfs.Proc]:
        scans.append(1)
        yield from real()

    monkeypatch.setattr(procfs, "scan", spy)

    assert (await leader.probe(f"http://127.0.0.1:{port}/", timeout_s=5)).is_ok
    assert not scans
    assert (await daemon.probe(f"http://127.0.0.1:{other_port}/", timeout_s=5)).is_ok
    assert scans


async def test_probe_tries_the_second_address_soon(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the first address of a name does not respond, the next one is tried within the limit."""
    process, port, _ = await serve(launcher, "200")
    with socket.socket() as full:
        full.bind(("127.0.0.2", port))
        full.listen(0)
        with socket.create_connection(("127.0.0.2", port)):  # now its queue is full
            places = ["127.0.0.2", "127.0.0.1"]
            monkeypatch.setattr(name_lookup, "near_addresses", lambda name: places)
            probe = await process.probe(f"http://localhost:{port}/", timeout_s=5)

    assert probe == Probe(is_ok=True)


async def test_probe_that_is_reset_lost_its_connection(launcher: LocalLauncher) -> None:
    """A server that closes with unread bytes counts as one that did not respond."""
    process, port, _ = await serve(launcher, "reset")

    assert await process.probe(f"http://127.0.0.1:{port}/", timeout_s=5) == Probe(
        is_ok=False, detail="connection lost"
    )


async def test_probe_whose_connection_ends_at_once_lost_it(launcher: LocalLauncher) -> None:
    """Reset by a dying server between the accept and our first look: no peer, and no exception."""
    process, port, _ = await serve(launcher, "slam")
    for _ in range(300):
        probe = await process.probe(f"http://127.0.0.1:{port}/", timeout_s=5)
        assert not probe.is_ok
        assert probe.detail != "timeout"


async def test_probe_connected_to_itself_is_refused(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection of a port to itself counts as refused and does not keep the port in use."""
    process = await launcher.start(Command(argv=("sleep", "60")), LogRing())
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
    real = http_probe._make_socket

    def bound(family: int) -> socket.socket:
        sock = real(family)
        sock.bind(("127.0.0.1", port))
        return sock

    monkeypatch.setattr(http_probe, "_make_socket", bound)
    probe = await process.probe(f"http://127.0.0.1:{port}/", timeout_s=5)

    assert probe == Probe(is_ok=False, detail="refused")
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port):
        pass


async def test_probe_of_a_stopped_process_times_out(launcher: LocalLauncher) -> None:
    """A server that is stopped accepts in the kernel only: the probe ends by its timeout."""
    process, port, _ = await serve(launcher, "200")
    os.kill(process.pid, signal.SIGSTOP)

    probe = await process.probe(f"http://127.0.0.1:{port}/", timeout_s=0.2)
    assert probe == Probe(is_ok=False, detail="timeout")
