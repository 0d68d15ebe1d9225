"""Ports, and waiting for a condition by a deadline."""

from __future__ import annotations

import os
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio

T = TypeVar("T")
_PAUSE_S = 0.01
LONG_S = 30.0  # a deadline, not a measure: the machine may be busy with other things
LATE_S = 4.0  # how much longer than its limit anything may take on a busy machine


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    return port_block(1)


def port_block(count: int = 8) -> int:
    """Return the first of *count* free ports in a row, below those that connections are given.

    Among those, any client's connection could take the second one before a model does. Processes
    that share the tests (``-n 2``) draw from ranges of their own, so none takes another's; so do
    runs beside each other, by SWAPCHART_TEST_PORTS, whose value is a range in percent.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    first, last = 10_000, max(low, 10_000 + 100 * count)
    begin, end = map(int, (os.environ.get("SWAPCHART_TEST_PORTS") or "0-100").split("-"))
    first, last = (first + (last - first) * percent // 100 for percent in (begin, end))
    worker = re.search(r"\d+", os.environ.get("PYTEST_XDIST_WORKER", ""))
    if worker:
        share = (last - first) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        first += int(worker[0]) * share
        last = first + share
    while True:
        port = random.randrange(first, last - count)
        if all(_is_free(each) for each in range(port, port + count)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def is_listening(port: int) -> bool:
    """Return True if something accepts connections at *port*."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    predicate: Callable[[], T], deadline: float = LONG_S, *, what: str | Callable[[], str] = ""
) -> T:
    """Call *predicate* until it returns something true; returns that.

    It is called once more after the deadline, so a pause of this process fails no test.

    Args:
        predicate: Quick, and without lasting effects.
        deadline: How long it may take; seconds from now.
        what: What is being waited for, for the error's text; a function is called at the deadline.

    Raises:
        TimeoutError: It was still false at the deadline.
    """
    end = time.monotonic() + deadline
    is_last = False
    while not (value := predicate()):
        if is_last:
            raise _late(deadline, what, value)
        time.sleep(_PAUSE_S)
        is_last = time.monotonic() > end
    return value


async def wait_until_async(
    predicate: Callable[[], T], deadline: float = LONG_S, *, what: str | Callable[[], str] = ""
) -> T:
    """Do as ``wait_until`` does, and let other tasks run meanwhile."""
    end = time.monotonic() + deadline
    is_last = False
    while not (value := predicate()):
        if is_last:
            raise _late(deadline, what, value)
        await anyio.sleep(_PAUSE_S)
        is_last = time.monotonic() > end
    return value


def _late(deadline: float, what: str | Callable[[], str], value: object) -> TimeoutError:
    what = what if isinstance(what, str) else what()
    return TimeoutError(f"{what or 'condition'}: still {value!r} after {deadline} s")


@contextmanager
def takes(least_s: float) -> Iterator[None]:
    """Check that the block takes *least_s* seconds, and not much longer."""
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    assert least_s * 0.9 <= took <= least_s + LATE_S
