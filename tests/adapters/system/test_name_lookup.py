"""Name lookup without libuv's threads, and blocking calls without any thread."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future
from pathlib import Path

import anyio
import pytest
from tools.net import wait_until_async

from swapchart.adapters.system import name_lookup, threads

#: Lets no thread be made: the limit of address space leaves no room for its stack.
NO_THREADS = """
    import asyncio, resource, sys, threading
    from swapchart.adapters.system import name_lookup, threads

    def forbid_threads():
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * resource.getpagesize() + (4 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


def without_threads(script: str) -> str:
    """Run *script* in a process where no thread can be made; returns what it printed."""
    text = textwrap.dedent(NO_THREADS) + textwrap.dedent(script)
    result = subprocess.run(
        (sys.executable, "-c", text), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result
    return result.stdout


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hosts"
    monkeypatch.setattr(name_lookup, "_HOSTS", str(path))
    return path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("fe80::1%lo", ["fe80::1%lo"]),
        ("localhost", ["127.0.0.1", "::1"]),
        ("LocalHost.", ["127.0.0.1", "::1"]),
        ("a.localhost", ["127.0.0.1", "::1"]),
        ("gpu", ["10.0.0.7", "10.0.0.8"]),
        ("GPU.lan", ["10.0.0.7"]),
        ("commented", []),
        ("notlocalhost", []),
        ("", []),
    ],
)
def test_near_addresses_name_is_found_in_hosts_or_is_loopback(
    hosts: Path, name: str, expected: list[str]
) -> None:
    """Addresses, names in /etc/hosts and `localhost` take no lookup."""
    hosts.write_text("10.0.0.7 gpu GPU.lan # commented\nnonsense x\n10.0.0.8\tgpu\n\n# ::1 y\n")

    assert name_lookup.near_addresses(name) == expected


def test_near_addresses_hosts_file_that_changes_is_read_again(hosts: Path) -> None:
    """The result follows the file when it appears, changes and disappears."""
    before = name_lookup.near_addresses("gpu")
    hosts.write_text("10.0.0.7 gpu\n")
    with_file = name_lookup.near_addresses("gpu")
    hosts.unlink()

    assert (before, with_file, name_lookup.near_addresses("gpu")) == ([], ["10.0.0.7"], [])
    assert name_lookup.near_addresses("localhost") == ["127.0.0.1", "::1"]


def test_getaddrinfo_near_name_equals_the_system_result() -> None:
    """The result for an address equals that of ``socket.getaddrinfo``."""

    async def ask() -> None:
        for family in (socket.AF_UNSPEC, socket.AF_INET):
            found = await name_lookup.getaddrinfo(
                "127.0.0.1", 80, family=family, type=socket.SOCK_STREAM
            )
            assert found == socket.getaddrinfo("127.0.0.1", 80, family, socket.SOCK_STREAM)
        assert {each[4][0] for each in await name_lookup.getaddrinfo(b"localhost", "80")} >= {
            "127.0.0.1"
        }
        with pytest.raises(socket.gaierror):
            await name_lookup.getaddrinfo("127.0.0.1", 80, family=socket.AF_INET6)
        with pytest.raises(socket.gaierror):
            await name_lookup.getaddrinfo("no-such-host.invalid", 80)
        with pytest.raises(socket.gaierror):
            await name_lookup.getaddrinfo("a..b", 80)

    asyncio.run(ask())


@pytest.mark.parametrize("has_uvloop", [True, False])
def test_loop_connection_by_name_reaches_the_second_address(
    hosts: Path, monkeypatch: pytest.MonkeyPatch, has_uvloop: bool
) -> None:
    """A connection is tried at each address of a name, by the loops that `serve` uses."""
    if not has_uvloop:
        monkeypatch.setitem(sys.modules, "uvloop", None)
    hosts.write_text("127.0.0.9 two\n127.0.0.1 two\n")

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        transport, _ = await loop.create_connection(asyncio.Protocol, "two", port)
        peer = transport.get_extra_info("peername")
        transport.close()
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(asyncio.Protocol, "two", 1)

        assert peer == ("127.0.0.1", port)

    with asyncio.Runner(loop_factory=name_lookup.loop_factory()) as runner:
        runner.run(connect())


def test_loop_without_threads_looks_up_localhost_and_fails_for_others() -> None:
    """Libuv would abort the process; here a name of the network is an error of its caller."""
    said = without_threads("""
        async def main():
            loop = asyncio.get_running_loop()
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            forbid_threads()
            transport, _ = await loop.create_connection(asyncio.Protocol, "localhost", port)
            print(transport.get_extra_info("peername")[0])
            transport.close()
            server.close()
            for ask in (loop.getaddrinfo, lambda *a: loop.create_connection(asyncio.Protocol, *a)):
                try:
                    await ask("example.invalid", 80)
                except OSError as error:
                    print(error)
            print(await threads.run(threading.active_count))

        with asyncio.Runner(loop_factory=name_lookup.loop_factory()) as runner:
            runner.run(main())
    """)

    refused = "example.invalid cannot be looked up: no memory for a thread"
    assert said.splitlines() == ["127.0.0.1", refused, refused, "1"]


class SlowLookups:
    """Stand-in for ``socket.getaddrinfo`` whose lookups last until ``release`` is set.

    Attributes:
        release: Ends all lookups.
        running: Number of lookups at present.
        peak: Largest number of lookups at a time.
    """

    def __init__(self) -> None:
        self.release = threading.Event()
        self.running = self.peak = 0
        self._lock = threading.Lock()

    def __call__(self, *how: object) -> list[object]:
        with self._lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
        self.release.wait(60)
        with self._lock:
            self.running -= 1
        return []


def test_getaddrinfo_many_slow_lookups_leave_threads_for_other_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that does not respond delays lookups, and nothing else."""
    slow = SlowLookups()
    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def ask() -> None:
        lookups = [asyncio.create_task(name_lookup.getaddrinfo(f"p{n}.example", 80))
                   for n in range(60)]  # fmt: skip
        try:
            async with asyncio.timeout(10):
                await wait_until_async(lambda: slow.peak > 1)
                await asyncio.sleep(0.1)
                assert await threads.run(int) == 0
        finally:
            slow.release.set()
        assert await asyncio.gather(*lookups) == [[]] * 60

    asyncio.run(ask())
    assert 1 < slow.peak <= name_lookup.LOOKUPS


def test_getaddrinfo_cancelled_lookups_count_until_their_threads_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clients that give up on a slow name do not pile up threads; lookups work again afterwards."""
    slow = SlowLookups()
    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def ask(count: int) -> list[asyncio.Task[object]]:
        lookups: list[asyncio.Task[object]] = [
            asyncio.create_task(name_lookup.getaddrinfo(f"p{n}.example", 80)) for n in range(count)
        ]
        for _ in range(20):
            await asyncio.sleep(0)
        return lookups

    async def main() -> None:
        try:
            async with asyncio.timeout(20):
                first = await ask(name_lookup.LOOKUPS)
                await wait_until_async(lambda: slow.running == name_lookup.LOOKUPS)
                for _ in range(4):
                    for lookup in first:
                        lookup.cancel()
                    await asyncio.gather(*first, return_exceptions=True)
                    assert all(lookup.cancelled() for lookup in first)
                    first = await ask(20)
        finally:
            slow.release.set()
        await wait_until_async(lambda: slow.running == 0)

        assert await asyncio.gather(*first, *await ask(60)) == [[]] * 80

    asyncio.run(main())
    assert slow.peak <= name_lookup.LOOKUPS


def test_run_or_fail_cancelled_before_its_thread_begins_frees_the_place() -> None:
    """Cancelled at any moment, a call gives its place back once, and never twice."""

    async def main() -> None:
        limiter = anyio.CapacityLimiter(2)
        for turns in range(12):
            calls = [asyncio.create_task(threads.run_or_fail(int, limiter=limiter))
                     for _ in range(5)]  # fmt: skip
            for _ in range(turns):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await wait_until_async(lambda: limiter.borrowed_tokens == 0)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*(threads.run_or_fail(int, limiter=limiter)
                                          for _ in range(9))) == [0] * 9  # fmt: skip

    asyncio.run(main())


def test_settled_many_futures_leave_threads_for_other_work() -> None:
    """A database that is locked delays those who wait for it, and nothing else."""

    async def ask() -> None:
        futures: list[Future[int]] = [Future() for _ in range(60)]
        waiting = [asyncio.create_task(threads.settled(future)) for future in futures]
        try:
            async with asyncio.timeout(10):
                await asyncio.sleep(0.1)
                assert await threads.run(int) == 0
        finally:
            for future in futures:
                future.set_result(7)
        await asyncio.gather(*waiting)

    asyncio.run(ask())


def test_run_thread_is_used_where_there_is_one() -> None:
    """Work is done beside the event loop, and its errors come out as they are."""

    async def ask() -> None:
        assert await threads.run(threading.get_ident) != threading.get_ident()
        assert await threads.run_or_fail(threading.get_ident) != threading.get_ident()
        with pytest.raises(RuntimeError, match="mine"):
            await threads.run(_fail)
        with pytest.raises(RuntimeError, match="mine"):
            await threads.run_or_fail(_fail)

    asyncio.run(ask())


def _fail() -> None:
    raise RuntimeError("mine: can't start new thread")


def test_settled_outcome_stays_in_the_future() -> None:
    """Waiting raises nothing, whether a thread waits or there is none."""

    async def ask() -> None:
        future: Future[int] = Future()
        asyncio.get_running_loop().call_later(0.05, future.set_exception, LookupError("mine"))
        await threads.settled(future)

        assert isinstance(future.exception(), LookupError)

    asyncio.run(ask())


def test_settled_without_threads_waits() -> None:
    """Without a further thread, `settled` polls the future of an existing one."""
    said = without_threads("""
        from concurrent.futures import Future

        async def main():
            forbid_threads()
            future = Future()
            asyncio.get_running_loop().call_later(0.05, future.set_result, 7)
            await threads.settled(future)
            print(future.result())

        asyncio.run(main())
    """)

    assert said == "7\n"
