"""Name lookup without libuv's thread pool, and event loops that use it.

uvloop leaves name lookup to libuv, which aborts the whole process if it cannot create its threads
(a cgroup's `pids.max`, `ulimit -v`). So the event loops of `serve` use the lookup of this module.
Addresses, `localhost` and names in /etc/hosts need no thread. Other names are looked up in a thread
of Python, and without one only that lookup fails. Lookups have a limit of their own, so that slow
ones leave threads for other work.

Source: RFC 6761 section 6.3 (localhost), hosts(5).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import Any

from . import threads

_HOSTS = "/etc/hosts"
_HOSTS_BYTES = 1 << 16
_LOOPBACK = ("127.0.0.1", "::1")

LOOKUPS = 32  # at once; a name server that does not respond blocks each thread for 10 s or more
_LIMIT = threads.Limit("swapchart_lookups", LOOKUPS)

AddressInfo = tuple[Any, Any, int, str, Any]


def near_addresses(name: str) -> list[str]:
    """Return the addresses of *name* if no name server is needed, else an empty list.

    None is needed for an address, a name in /etc/hosts, `localhost` and names that end in
    `.localhost`.
    """
    plain = name.partition("%")[0]
    with suppress(ValueError):
        ip_address(plain)
        return [name]
    wanted = name.lower().rstrip(".")
    with suppress(OSError):
        status = os.stat(_HOSTS)  # noqa: PTH116
        if found := _hosts(status.st_mtime_ns, status.st_ino).get(wanted):
            return list(found)
    is_local = wanted == "localhost" or wanted.endswith(".localhost")
    return list(_LOOPBACK) if is_local else []


@cache
def _hosts(changed: int, inode: int) -> dict[str, list[str]]:
    """Return name -> addresses from /etc/hosts, in its order; cached per version of the file."""
    del changed, inode
    with open(_HOSTS, "rb") as file:  # noqa: PTH123
        lines = file.read(_HOSTS_BYTES).decode("utf-8", "replace").splitlines()
    found: dict[str, list[str]] = {}
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        with suppress(ValueError):
            ip_address(address)
            for name in names:
                found.setdefault(name.lower(), []).append(address)
    return found


async def getaddrinfo(
    host: bytes | str | None, port: bytes | str | int | None, *, family: int = 0,
    type: int = 0, proto: int = 0, flags: int = 0,  # noqa: A002
) -> list[AddressInfo]:  # fmt: skip
    """Look up *host* as ``socket.getaddrinfo`` does.

    Raises:
        OSError: There is no such host, or no thread can be created to look it up.
    """
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    near: list[str | None] = [None] if name is None else [*near_addresses(name)]
    if near:
        return _static(near, port, (family, type, proto, flags))
    try:
        return await threads.run_or_fail(
            socket.getaddrinfo, host, port, family, type, proto, flags, limiter=_LIMIT.limiter()
        )
    except UnicodeError as error:  # an empty or too long label
        raise socket.gaierror(socket.EAI_NONAME, f"no such name: {error}") from error
    except threads.NoThreadError as error:
        raise OSError(f"{name} cannot be looked up: {error}") from error


def _static(
    addresses: list[str | None], port: bytes | str | int | None, how: tuple[int, int, int, int]
) -> list[AddressInfo]:
    """Return the results of ``socket.getaddrinfo`` for addresses, which does not block."""
    family, kind, proto, flags = how
    found: list[AddressInfo] = []
    problem: OSError | None = None
    for address in addresses:
        try:
            found += socket.getaddrinfo(
                address, port, family, kind, proto, flags | socket.AI_NUMERICHOST
            )
        except OSError as error:  # an address of another family
            problem = error
    if not found and problem is not None:
        raise problem
    return found


class _Lookup(asyncio.AbstractEventLoop):
    """Mixin for event loops with the lookup of this module."""

    async def getaddrinfo(
        self, host: bytes | str | None, port: bytes | str | int | None, **how: int
    ) -> list[AddressInfo]:
        return await getaddrinfo(host, port, **how)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        if flags & socket.NI_NUMERICHOST:
            return socket.getnameinfo(sockaddr, flags)
        return await threads.run_or_fail(
            socket.getnameinfo, sockaddr, flags, limiter=_LIMIT.limiter()
        )

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], asyncio.BaseProtocol], host: Any = None, port: Any = None,
        **more: Any,
    ) -> Any:  # fmt: skip
        if not host or more.get("sock") is not None:
            return await super().create_connection(factory, host, port, **more)
        how = {name: more.pop(name, 0) for name in ("family", "proto", "flags")}
        found = await self.getaddrinfo(host, port, type=socket.SOCK_STREAM, **how)
        if more.get("ssl"):
            more.setdefault("server_hostname", host)
        problem: OSError | None = None
        for _, _, _, _, address in found:
            try:
                return await super().create_connection(factory, address[0], address[1], **more)
            except OSError as error:
                problem = error
        raise problem if problem is not None else OSError(f"{host} has no address")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a factory of event loops with this lookup, based on uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:

        class Loop(_Lookup, asyncio.SelectorEventLoop):  # type: ignore[misc]
            """Selector event loop with the lookup of this module."""

        return Loop

    class FastLoop(_Lookup, uvloop.Loop):  # type: ignore[misc]
        """uvloop event loop with the lookup of this module."""

    return FastLoop
