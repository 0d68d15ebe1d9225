"""Processes under measurement: pinned to a core, their CPU time and memory read from /proc.

CPU time is the main figure of all benchmarks: it holds up on a machine that others use too,
where times on the clock do not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType

import psutil

#: Part of the command line of processes that only stand behind a proxy and are not its cost.
UPSTREAM_MARK = "lab/upstream.py"
_PAUSE_S = 0.002


def cache_folder() -> Path:
    """Return where programs for comparison, and bytecode, are kept; outside of the project."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(base).expanduser() / "swapchart-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def bytecode_env() -> dict[str, str]:
    """Return variables that let Python keep its bytecode, as an installed package has it.

    Without, a start where that is switched off, or a folder read-only, compiles every module.
    """
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_folder() / "pycache")}


def cores() -> tuple[int, int]:
    """Return the core for load and upstreams, and the one for what is measured."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]


def pinned(core: int, argv: Sequence[str]) -> list[str]:
    """Return *argv* so that it, its threads and its children run on *core* alone."""
    return ["taskset", "--cpu-list", str(core), *argv]


def cpu_ns(pids: Iterable[int]) -> int:
    """Return the CPU time that the living threads of *pids* have used; nanoseconds."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  (called in a window)
                with (
                    contextlib.suppress(OSError),
                    open(f"/proc/{pid}/task/{task}/schedstat", "rb") as file,  # noqa: PTH123
                ):
                    total += int(file.read().split()[0])
    return total


def rss_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of *pids* together."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += int(psutil.Process(pid).memory_info().rss)
    return total


def pss_bytes(pid: int) -> int:
    """Return the resident memory of *pid*, shared pages by the share of each process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) * 1024


def free_ports(count: int) -> int:
    """Return the first of *count* free ports in a row, below those given to connections."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    start = 10_000 + (os.getpid() * 97 + time.monotonic_ns() // 1000) % 8_000
    for first in range(start, low - count, count):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise RuntimeError(f"no {count} free ports in a row from {start} to {low}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False


def wait_until(predicate: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until *predicate* holds.

    Raises:
        TimeoutError: It did not within *limit_s* seconds.
    """
    end = time.monotonic() + limit_s
    while not predicate():
        if time.monotonic() > end:
            raise TimeoutError(f"not {what} within {limit_s} s")
        time.sleep(_PAUSE_S)


class Process:
    """A started command, leader of its own session; a context manager that ends all of it.

    Args:
        argv: The command.
        folder: Its working directory; its output is kept there.
        core: Where it runs; None: anywhere.
        env: Variables on top of our own.

    Attributes:
        started: When it was spawned; seconds on the monotonic clock.
    """

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed in stop)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            argv if core is None else pinned(core, argv),
            cwd=folder,
            env={**os.environ, **bytecode_env(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the leader."""
        return self.process.pid

    def output(self) -> str:
        """Return what it has written so far."""
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def pids(self) -> list[int]:
        """Return the ids of the leader and its descendants, upstreams left out."""
        found = [self.pid]
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if UPSTREAM_MARK not in " ".join(child.cmdline()):
                        found.append(child.pid)
        return found

    def wait_port(self, port: int, limit_s: float = 20.0) -> float:
        """Wait until *port* accepts; returns the seconds since the spawn.

        Raises:
            TimeoutError: It does not.
            RuntimeError: The process ended.
        """
        wait_until(lambda: self._accepts(port), limit_s, f"listening at {port}")
        return time.monotonic() - self.started

    def check(self) -> None:
        """Check that it still runs.

        Raises:
            RuntimeError: It has ended; the text holds its output.
        """
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with {self.process.returncode}:\n{self.output()}")

    def wait_answering(self, port: int, limit_s: float = 30.0) -> float:
        """Wait until ``GET /health`` is answered with 200; returns the seconds since the spawn.

        Raises:
            TimeoutError: It is not.
            RuntimeError: The process ended.
        """
        wait_until(lambda: self._answers(port), limit_s, f"answering at {port}")
        return time.monotonic() - self.started

    def _answers(self, port: int) -> bool:
        self.check()
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _accepts(self, port: int) -> bool:
        self.check()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def stop(self, limit_s: float = 15.0) -> int:
        """Terminate it, then kill whatever of its session is left; returns the exit code."""
        if self.process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                family = psutil.Process(self.pid).children(recursive=True)
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(limit_s)
                for child in psutil.wait_procs(family, timeout=2.0)[1]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self.process.wait()
        self._log.close()
        return code
