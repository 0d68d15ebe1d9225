"""Checksums of slot files, each computed once, concurrently with other work.

A gigabyte takes more than a second. A saved file is read while the next model loads, and a file
that will be restored is read while its server loads, which also brings it into the page cache.
"""

from __future__ import annotations

import anyio

from ...runtime.fence import Fence
from ..system import threads
from .files import KvStoreError, SlotFiles


class _Job:
    def __init__(self, mark: tuple[int, int, int]) -> None:
        self.mark, self.done = mark, anyio.Event()
        self.result: str | Exception = OSError("cut short")


class Checksums:
    """Checksums of the files of one model.

    Args:
        files: Files of the model.
        tasks: Task group for the computations.
    """

    def __init__(self, files: SlotFiles, tasks: Fence) -> None:
        self._files, self._tasks = files, tasks
        self._jobs: dict[str, _Job] = {}

    def begin(self, name: str) -> None:
        """Start to compute the checksum of *name*, unless it is known or being computed."""
        known = self._jobs.get(name)
        if known is None or (known.done.is_set() and known.mark != self._mark(name)):
            job = self._jobs[name] = _Job(self._mark(name))
            self._tasks.start_soon(self._work, name, job)

    async def of(self, name: str) -> str:
        """Return the SHA-256 of file *name*, in hexadecimal.

        Raises:
            OSError: It cannot be read.
            KvStoreError: It does not fit into memory.
        """
        self.begin(name)
        job = self._jobs[name]
        await job.done.wait()
        if isinstance(job.result, Exception):
            raise job.result
        return job.result

    def forget(self, *names: str) -> None:
        """Drop the checksums of *names*, which were deleted."""
        for name in names:
            self._jobs.pop(name, None)

    async def _work(self, name: str, job: _Job) -> None:
        try:
            job.result = await threads.run(self._files.digest, name)
            job.mark = self._mark(name)  # the file may just have been copied from the disk
        except (OSError, KvStoreError) as error:
            job.result = error
            self._jobs.pop(name, None)
        finally:
            job.done.set()

    def _mark(self, name: str) -> tuple[int, int, int]:
        try:
            about = self._files.path(name).lstat()
        except OSError:
            return (0, 0, 0)
        return about.st_ino, about.st_size, about.st_mtime_ns
