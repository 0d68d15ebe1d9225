"""A memory pool whose free bytes a command prints: remote devices, NPUs, licenses."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Sequence

from ...runtime.ports import PoolReading

_LIMIT_S = 1.5  # less than the time of one reading
_SHOWN = 80  # characters of a wrong output


class CommandPool:
    """Reads one pool by a command.

    Args:
        name: Name of the pool.
        capacity: Size of the pool in bytes.
        argv: Program and arguments; its standard output is one number, the free bytes.
        limit_s: Time limit of the command in seconds.
    """

    def __init__(
        self, name: str, capacity: int, argv: Sequence[str], *, limit_s: float = _LIMIT_S
    ) -> None:
        self._name, self._capacity, self._argv = name, capacity, tuple(argv)
        self._limit_s = limit_s

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return the reading of the pool.

        Raises:
            OSError: The command failed, took too long, or printed no number.
        """
        free = self._free()
        return [
            PoolReading(
                name=self._name, capacity=self._capacity, used=max(self._capacity - free, 0),
                source="check",
            )
        ]  # fmt: skip

    def _free(self) -> int:
        problem = f"`check` of memory pool {self._name} ({' '.join(self._argv)})"
        status, output, errors = run_named(problem, self._argv, self._limit_s)
        if status:
            raise OSError(f"{problem} failed with status {status}: {_shown(errors)}")
        text = output.strip()
        if not text.isdigit() or len(text) > 18:
            raise OSError(f"{problem} printed {_shown(text)}, expected the free bytes as a number")
        return int(text)


def run_named(name: str, argv: Sequence[str], limit_s: float) -> tuple[int, bytes, bytes]:
    """Run a command as `run_command` does; errors begin with *name*.

    Raises:
        OSError: It cannot run, or has not ended within *limit_s* seconds.
    """
    try:
        return run_command(argv, limit_s)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{name} took more than {limit_s:g} s") from error
    except (OSError, ValueError) as error:
        raise OSError(f"{name} cannot run: {error}") from error


def run_command(argv: Sequence[str], limit_s: float) -> tuple[int, bytes, bytes]:
    """Return status, output and error output of a command.

    Raises:
        TimeoutExpired: It took too long; it and its children were killed.
    """
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output, errors


def _shown(text: bytes) -> str:
    return repr(text[:_SHOWN].decode("utf-8", "replace").strip())
