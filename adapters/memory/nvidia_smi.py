"""Memory of NVIDIA GPUs, read by nvidia-smi; takes hundreds of milliseconds.

It is used where the package ``nvidia-ml-py`` is not installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...runtime.ports import PoolReading
from .programs import split_by_owner

_MIB = 1 << 20
_LIMIT_S = 5.0
_GPU_FIELDS = ("index", "uuid", "memory.total", "memory.used")
_PROCESS_FIELDS = ("gpu_uuid", "pid", "used_memory")


class NvidiaSmi:
    """Reads the memory of NVIDIA GPUs by nvidia-smi.

    Args:
        root: Root of the file system, where names of programs are read.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._command = shutil.which("nvidia-smi")

    def is_available(self) -> bool:
        """Return True if there is an nvidia-smi."""
        return self._command is not None

    def read(self, pids: Iterable[int]) -> list[PoolReading]:
        """Return a reading of each GPU.

        Raises:
            OSError: nvidia-smi failed.
        """
        if self._command is None:
            return []
        services = frozenset(pids)
        processes = list(self._rows("--query-compute-apps", _PROCESS_FIELDS))
        readings = []
        for index, uuid, total, used in self._rows("--query-gpu", _GPU_FIELDS):
            listed = [row for row in processes if row[0] == uuid]
            is_known = all(pid.isdecimal() and held.isdecimal() for _, pid, held in listed)
            held = {int(pid): int(held) * _MIB for _, pid, held in listed} if is_known else {}
            own, others = split_by_owner(held, services, self._root)
            readings.append(
                PoolReading(
                    name=f"GPU{index}", capacity=_bytes(total) or 0, used=_bytes(used),
                    processes=own if is_known else None, source="nvidia-smi", device=uuid,
                    others=others, vendor="nvidia",
                )
            )  # fmt: skip
        return readings

    def _rows(self, query: str, fields: tuple[str, ...]) -> Iterator[list[str]]:
        assert self._command is not None, "checked by read()"
        try:
            done = subprocess.run(
                [self._command, f"{query}={','.join(fields)}", "--format=csv,noheader,nounits"],
                capture_output=True, text=True, timeout=_LIMIT_S, check=True,
            )  # fmt: skip
        except subprocess.SubprocessError as error:
            raise OSError(f"nvidia-smi failed: {error}") from error
        for line in done.stdout.splitlines():
            words = [word.strip() for word in line.split(",")]
            if len(words) == len(fields):
                yield words


def _bytes(mib: str) -> int | None:
    return int(mib) * _MIB if mib.isdecimal() else None  # else [N/A], [Not Supported]
