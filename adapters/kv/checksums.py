"""Checksums of files, computed beside everything else, each once.

A gigabyte takes more than a second: while the next model loads nobody waits for it, and while this
one loads, a check of what will be restored also brings the file into memory.
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
    """The checksums of one model's files.

    Args:
        files: Where they are.
        tasks: Where the work is done.
    """

    def __init__(self, files: SlotFiles, tasks: Fence) -> None:
        self._files, self._tasks = files, tasks
        self._jobs: dict[str, _Job] = {}

    def begin(self, name: str) -> None:
        """Begin to compute that of file *name*, unless its content is known or being read."""
        known = self._jobs.get(name)
        if known is None or (known.done.is_set() and known.mark != self._mark(name)):
            job = self._jobs[name] = _Job(self._mark(name))
            self._tasks.start_soon(self._work, name, job)

    async def of(self, name: str) -> str:
        """Return the SHA-256 of file *name*, in hexadecimal.

        Raises:
            OSError: It cannot be read.
            KvStoreError: There is no room in memory for it.
        """
        self.begin(name)
        job = self._jobs[name]
        await job.done.wait()
        if isinstance(job.result, Exception):
            raise job.result
        return job.result

    def forget(self, *names: str) -> None:
        """Forget what is known of *names*: they are gone."""
        for name in names:
            self._jobs.pop(name, None)

    async def _work(self, name: str, job: _Job) -> None:
        try:
            job.result = await threads.run(self._files.digest, name)
            job.mark = self._mark(name)  # it may have been fetched from the disk just now
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
