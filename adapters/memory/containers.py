"""Containers that models run in: their processes, which lie outside of the tree of the command.

A command such as ``docker run`` is a client, and the container belongs to the engine. The engine is
asked for the container that the client has named, by ``--name``, by ``--cidfile``, or under Docker
by its published port. Its processes are those of its cgroup, whose name contains the id of the
container; a process without that is not on this machine. What they hold counts for the client.

Source: Docker and Podman command line references; Linux kernel documentation, cgroup-v2.rst.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ...dataclass import dataclass
from ...runtime.ports import PoolReading
from .command import run_command

log = logging.getLogger(__name__)

_CLIENTS = frozenset({"docker", "podman", "nerdctl"})
_LIMIT_S = 1.5  # of one question to the engine; less than the time of one reading
_RETRY_S = 5.0
_PATIENCE_S = 60.0  # for which a container may be missing without a warning: images are pulled
_ID_LENGTH = 64


@dataclass(slots=True)
class _Client:
    """A client of a container engine, and the cgroup of its container."""

    since: float
    asked_at: float = -_RETRY_S
    folder: Path | None = None
    has_warned: bool = False


class Containers:
    """Finds the processes of containers whose clients are processes of models.

    Args:
        root: Root of the file system, for tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._clients: dict[int, _Client] = {}

    def processes(self, pids: Iterable[int]) -> dict[int, frozenset[int]]:
        """Return the processes of the container of each client among *pids*; may block for 1.5 s.

        A container stays known after the end of its client.
        """
        wanted = set(pids)
        self._clients = {pid: each for pid, each in self._clients.items() if pid in wanted}
        found = {}
        for pid in wanted:
            client = self._client(pid)
            if client is not None and client.folder is not None:
                found[pid] = frozenset(_members(client.folder))
        return found

    def _client(self, pid: int) -> _Client | None:
        known = self._clients.get(pid)
        if known is not None and known.folder is not None:
            return known
        argv = self._argv(pid)
        if not argv or Path(argv[0]).name not in _CLIENTS or "run" not in argv:
            return None
        now = time.monotonic()
        client = self._clients.setdefault(pid, _Client(now))
        if now >= client.asked_at + (_PATIENCE_S if client.has_warned else _RETRY_S):
            client.asked_at = now
            try:
                client.folder = self._folder(argv)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                self._warn(client, argv, str(error), now)
        return client

    def _warn(self, client: _Client, argv: Sequence[str], why: str, now: float) -> None:
        is_final = _container_of(argv) is None
        if not client.has_warned and (is_final or now >= client.since + _PATIENCE_S):
            client.has_warned = True
            log.warning(
                "the container of %s run cannot be found (%s): what its model holds is not measured"
                " apart; give it a --name", Path(argv[0]).name, why,
            )  # fmt: skip

    def _argv(self, pid: int) -> list[str]:
        with suppress(OSError):
            raw = (self._root / f"proc/{pid}/cmdline").read_bytes()
            return raw.decode("utf-8", "replace").split("\0")[:-1]
        return []

    def _folder(self, argv: Sequence[str]) -> Path:
        """Return the folder of the cgroup of the container that a client runs.

        Raises:
            OSError: The engine does not respond, or the container is not on this machine.
            ValueError: There is no such container.
        """
        program, name = Path(argv[0]).name, _container_of(argv)
        if name is None:
            raise ValueError("it has no name")
        kind, value = name
        if kind == "port":
            (value,) = _ask([program, "ps", "-q", "--filter", f"publish={value}"], 1)
        elif kind == "cidfile":
            value = Path(value).read_text("ascii").strip()
        container, pid = _ask([program, "inspect", "-f", "{{.Id}} {{.State.Pid}}", value], 2)
        if len(container) != _ID_LENGTH or not pid.isdigit():
            raise ValueError(f"{program} inspect printed {container[:80]!r} {pid[:20]!r}")
        lines = (self._root / f"proc/{pid}/cgroup").read_text("utf-8", "replace").splitlines()
        for line in lines:
            _, controllers, path = line.split(":", 2)
            end = path.find("/", path.find(container)) if container in path else 0
            part = path[1:] if end < 0 else path[1:end]
            base = self._root / "sys/fs/cgroup" / controllers.split(",")[0].removeprefix("name=")
            if part and (base / part / "cgroup.procs").is_file():
                return base / part
        raise OSError(f"no process of container {container[:12]} is on this machine")


def with_containers(
    readings: Iterable[PoolReading], containers: Mapping[int, frozenset[int]]
) -> list[PoolReading]:
    """Return *readings* in which what containers hold counts for their clients."""
    return [
        reading if reading.processes is None else replace(
            reading, processes=_moved(reading.processes, containers),
            files=_moved(reading.files, containers),
            whole_files=_moved(reading.whole_files, containers),
        )
        for reading in readings
    ]  # fmt: skip


def _moved(
    amounts: Mapping[int, int], containers: Mapping[int, frozenset[int]]
) -> Mapping[int, int]:
    moved = dict(amounts)
    for client, members in containers.items():
        held = sum(moved.pop(pid, 0) for pid in members if pid != client)
        if held:
            moved[client] = moved.get(client, 0) + held
    return moved


def _container_of(argv: Sequence[str]) -> tuple[str, str] | None:
    """Return how a client names its container, as (kind, value); None if it does not."""
    words = argv[argv.index("run") + 1 :]
    for kind in ("name", "cidfile"):
        for value in _values(words, f"--{kind}"):
            return kind, value
    if Path(argv[0]).name == "docker":
        for value in (*_values(words, "-p"), *_values(words, "--publish")):
            ports = value.partition("/")[0].split(":")
            if len(ports) > 1 and ports[-2].isdigit():
                return "port", ports[-2]
    return None


def _values(words: Sequence[str], option: str) -> Iterator[str]:
    for index, word in enumerate(words):
        if word == option and index + 1 < len(words):
            yield words[index + 1]
        elif word.startswith(f"{option}="):
            yield word.partition("=")[2]


def _ask(argv: Sequence[str], count: int) -> list[str]:
    """Return the *count* words that a command prints."""
    status, output, errors = run_command(argv, _LIMIT_S)
    words = output.decode("utf-8", "replace").split()
    if status or len(words) != count:
        problem = errors.decode("utf-8", "replace").strip()[:200] or "no such container"
        raise ValueError(problem)
    return words


def _members(folder: Path) -> set[int]:
    """Return the processes of a cgroup and of those below it; empty if it is gone."""
    members: set[int] = set()
    for path in (folder / "cgroup.procs", *folder.glob("**/*/cgroup.procs")):
        with suppress(OSError, ValueError):
            members.update(map(int, path.read_text("ascii").split()))
    return members
