"""Ports that are taken when a process is to start, by real processes of several kinds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tools.net import free_port, wait_until_async
from tools.rows import row

from swapchart.adapters.process import LocalLauncher, container_engines, procfs
from swapchart.adapters.process.port import check, listeners
from swapchart.runtime import Command, LogRing, PortInUseError

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SERVER = textwrap.dedent("""
    import socket, sys, time
    host, port, linger = sys.argv[1:]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.create_server((host, int(port)), family=family)
    print("listens", flush=True)
    sys.stdin.read()
    time.sleep(float(linger))
""")


@contextmanager
def stranger(host: str, port: int, linger_s: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that listens; it ends *linger_s* seconds after its stdin is closed."""
    argv = (sys.executable, "-I", "-S", "-c", SERVER, host, str(port), str(linger_s))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        try:
            yield process
        finally:
            process.kill()


def sleeper(url: str | None) -> Command:
    return Command(argv=("sleep", "60"), label="sleeper", listens_at=url)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "[::1]"),
    ],
)
@row("A11")
async def test_port_check_names_the_holder_before_the_start(
    launcher: LocalLauncher, held: str, wanted: str
) -> None:
    """The error has port, pid and program of the foreign process, and nothing is started."""
    port = free_port()
    with stranger(held, port) as other:
        with pytest.raises(PortInUseError) as caught:
            await launcher.start(sleeper(f"http://{wanted}:{port}/v1"), LogRing())
        program = procfs.program(other.pid)

    assert (caught.value.port, caught.value.pid, caught.value.program) == (port, other.pid, program)
    text = f"port {port} is taken: pid {other.pid} ({program}) listens there; end it, or set "
    assert str(caught.value).startswith(text)
    assert "`external: true`" in str(caught.value)
    assert not caught.value.permanent
    marker = f"SWAPCHART_INSTANCE={launcher.instance}"
    assert not [proc for proc in procfs.scan() if procfs.carries(proc.pid, marker)]


@row("A11")
async def test_port_check_names_another_service(launcher: LocalLauncher) -> None:
    """If two services use one port, the error of the second names the first."""
    port, log = free_port(), LogRing()
    argv = ("sh", "-c", 'sleep 60 | "$@"', "sh", sys.executable, "-I", "-S", "-c", SERVER)
    first = Command(argv=(*argv, "127.0.0.1", str(port), "0"), label="first")
    await launcher.start(first, log)
    await wait_until_async(lambda: b"listens" in log.history())

    with pytest.raises(PortInUseError, match=r"pid \d+ \(.*\) of first listens there"):
        await launcher.start(sleeper(f"http://127.0.0.1:{port}"), LogRing())


@row("A11")
async def test_port_check_ends_an_escaped_grandchild(launcher: LocalLauncher) -> None:
    """What left group, session and environment ends with its tree; the next start finds no one."""
    port, log = free_port(), LogRing()
    script = 'sleep 60 | env -i setsid "$@" & echo $$; wait'
    argv = ("sh", "-c", script, "sh", sys.executable, "-I", "-S", "-c", SERVER)
    server = Command(
        argv=(*argv, "127.0.0.1", str(port), "60"), listens_at=f"http://127.0.0.1:{port}"
    )
    process = await launcher.start(server, log)
    await wait_until_async(lambda: b"listens" in log.history())
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await process.sweep(0)

    assert not (await launcher.start(sleeper(server.listens_at), log)).has_ended


@row("A11")
async def test_port_check_waits_for_a_holder_that_ends(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check passes as soon as the holder ends, without waiting for the limit."""
    monkeypatch.setattr(check, "_EXIT_LIMIT_S", 60.0)
    port = free_port()
    with stranger("127.0.0.1", port, linger_s=0.1) as other:
        assert other.stdin is not None
        other.stdin.close()
        process = await launcher.start(sleeper(f"http://127.0.0.1:{port}"), LogRing())

    assert not process.has_ended


@row("A11")
async def test_port_check_of_a_container_passes(
    launcher: LocalLauncher, caplog: pytest.LogCaptureFixture
) -> None:
    """One on the host's network listens there itself; the command may be what replaces it."""
    port, log = free_port(), LogRing()
    server = (sys.executable, "-I", "-S", "-c", SERVER, "127.0.0.1", str(port), "60")
    namespace = ("unshare", "--map-root-user", "--pid", "--fork")
    container = await launcher.start(Command(argv=(*namespace, *server)), log)
    await wait_until_async(lambda: b"listens" in log.history() or container.has_ended)
    if container.has_ended:
        pytest.skip("no right to make a namespace")
    await launcher.start(sleeper(f"http://127.0.0.1:{port}"), LogRing())

    assert f"port {port} is held by pid" in caplog.text


@row("A11")
async def test_port_check_of_a_forwarded_port_passes(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A port forwarder of a container engine is logged and does not fail the check."""
    port = free_port()
    with stranger("127.0.0.1", port) as other:
        program = procfs.program(other.pid)
        monkeypatch.setattr(container_engines, "FORWARDERS", frozenset({program.partition(".")[0]}))
        monkeypatch.setattr(check, "_EXIT_LIMIT_S", 0.0)
        await launcher.start(sleeper(f"http://127.0.0.1:{port}"), LogRing())

    assert f"port {port} is held by pid {other.pid} ({program})" in caplog.text


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "example.invalid", "192.0.2.1"])
@row("A11")
async def test_port_check_of_unknown_cases_passes(
    launcher: LocalLauncher, scheme: str, host: str
) -> None:
    """Another machine, another protocol, a holder that does not listen: the start goes on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, but not listening
        url = f"{scheme}://{host}:{bound.getsockname()[1]}/"
        process = await launcher.start(sleeper(url), LogRing())

    assert not process.has_ended


@row("A11")
async def test_port_check_of_a_free_port_reads_no_proc_files(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The usual start asks nothing of /proc; an ended connection of before is in no way."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # who closes first waits in TIME_WAIT, on the server's port
        client.close()

    def never(*args: object) -> set[int]:
        raise AssertionError(args)

    monkeypatch.setattr(listeners, "listening_inodes", never)
    process = await launcher.start(sleeper(f"http://127.0.0.1:{port}"), LogRing())

    assert not process.has_ended
