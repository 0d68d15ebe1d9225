"""Prefetch: the files of the next model are read ahead while the old one stops.

A swap is known from the moment its first eviction begins. Until the new process starts, the old
model drains, runs its hooks and ends, which leaves seconds in which the disk is idle. The files are
those that the command of a llama-server names. Never more is read than RAM has free.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from ...runtime import Supervisor, Transition
from ..config import Config, ModelConfig
from ..llama_cpp.gguf import shards
from ..llama_cpp.launch_args import LaunchLine
from ..memory.host import HostMemory
from ..system import threads
from ..system.read_ahead import read_ahead

log = logging.getLogger(__name__)

_LIMIT = threads.Limit("prefetch", 1)


def files_of(model: ModelConfig) -> tuple[Path, ...]:
    """Return the files that a start of *model* reads, with all parts of a split model."""
    line = LaunchLine.parse(model.argv)
    if model.external or model.nodes is not None or not line.is_llama_server:
        return ()
    named = (Path(path) for _, path in line.files())
    return tuple(dict.fromkeys(part for path in named for part in shards(path)))


class Prefetch:
    """Listens to a supervisor, and reads files ahead in a thread, for one swap at a time.

    Args:
        supervisor: Its swaps are those that count.
        config: Returns the configuration in force; without ``memory`` nothing is read.
        host: Reads the main memory.
    """

    def __init__(
        self, supervisor: Supervisor, config: Callable[[], Config], host: HostMemory | None = None
    ) -> None:
        self._supervisor, self._config = supervisor, config
        self._host = host or HostMemory()
        self._stop, self._target = threading.Event(), ""
        supervisor.listen(self._note)

    def close(self) -> None:
        """End the thread soon."""
        self._stop.set()

    def _note(self, record: Transition) -> None:
        config = self._config()
        if record.event != "stop" or config.memory.mode == "off":
            return
        for target, evicted in self._supervisor.scheduler.swaps.items():
            model = config.models.get(target)
            if record.service not in evicted or model is None or model.prefetch == "off":
                continue
            files = files_of(model)
            if files and (target != self._target or self._stop.is_set()):
                self._stop.set()  # an earlier swap must not delay this one
                self._stop, self._target = threading.Event(), target
                self._supervisor.spawn(self._run, target, files, self._stop)

    async def _run(self, target: str, files: tuple[Path, ...], stop: threading.Event) -> None:
        try:
            asked = await threads.run_or_fail(self._read, files, stop, limiter=_LIMIT.limiter())
            log.debug("%s: %d bytes of its files were read ahead", target, asked)
        except (threads.NoThreadError, OSError, KeyError) as error:
            log.debug("%s: its files are not read ahead: %s", target, error)
        finally:
            stop.set()

    def _read(self, files: tuple[Path, ...], stop: threading.Event) -> int:
        reading = self._host.read(())[0]
        free = reading.capacity - (reading.used or 0)
        return read_ahead(files, free, lambda: not stop.is_set())
