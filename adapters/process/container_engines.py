"""Programs of container engines: daemons, port forwarders and clients.

A container belongs to its engine. Its monitor (conmon) is started by the client and may outlive
it; killing the monitor would leave a container that its engine can no longer end. So programs of an
engine that left the session of a model are never signaled: the engine terminates them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress

from . import procfs, users
from .procfs import Proc

#: Programs that listen on ports for containers.
FORWARDERS = frozenset(
    {
        "docker-proxy", "dockerd", "rootlessport", "rootlesskit", "conmon", "pasta", "passt",
        "slirp4netns",
    }
)  # fmt: skip

#: Programs that an engine runs for one container or for all containers of a user.
DAEMONS = FORWARDERS | frozenset(
    {
        "conmonrs", "catatonit", "aardvark-dns", "fuse-overlayfs", "containerd", "buildkitd",
        "containerd-shim", "containerd-shim-runc-v2", "podman pause",
    }
)  # fmt: skip

_MONITORS = frozenset({"conmon", "conmonrs"})

#: Programs that request containers from an engine.
CLIENTS = frozenset({"docker", "docker-compose", "podman", "podman-compose", "nerdctl"})

_CLIENT_WORD = re.compile(rb"(?<![\w.-])(?:docker|docker-compose|podman|podman-compose|nerdctl)\s")
_SCRIPT_BYTES = 1 << 16


def is_forwarder(pid: int) -> bool:
    """Return True if *pid* is a port forwarder of an engine and root owns its program file."""
    return _stem(procfs.program(pid)) in FORWARDERS and _is_root_file(pid)


def is_daemon(pid: int) -> bool:
    """Return True if *pid* is a daemon of an engine and root owns its program file."""
    names = {_stem(procfs.program(pid)), _comm(pid)}
    return not names.isdisjoint(DAEMONS) and _is_root_file(pid)


def monitors(procs: Iterable[Proc]) -> list[Proc]:
    """Return those of *procs*, daemons of an engine, that run as long as one container."""
    return [p for p in procs if _stem(procfs.program(p.pid)) in _MONITORS and procfs.is_same(p)]


def container(monitor: int) -> str:
    """Return the name of the container of pid *monitor*; empty if it is unknown."""
    words = procfs.read_bytes(f"/proc/{monitor}/cmdline").split(b"\0")
    for option in (b"-n", b"-c"):
        if option in words[:-1]:
            return words[words.index(option) + 1].decode("utf-8", "replace")
    return ""


def is_client(pid: int) -> bool:
    """Return True if *pid* is a client of an engine, such as ``podman run``."""
    return _stem(procfs.program(pid)) in CLIENTS


def names_client(argv: tuple[str, ...]) -> bool:
    """Return True if *argv*, or a script named in it, runs a client of an engine.

    Only the first 64 KiB of each file are read. A client that has ended before the first scan of
    its processes is found in this way.
    """
    words = b" ".join(os.fsencode(item) for item in argv if "\0" not in item)
    if _CLIENT_WORD.search(words + b" "):
        return True
    if argv and os.path.basename(argv[0]) in CLIENTS:  # noqa: PTH119
        return True
    return any(_CLIENT_WORD.search(_script(item)) for item in argv if "\0" not in item)


def _script(path: str) -> bytes:
    """Return the text of a script without its comments; empty if *path* is not a script."""
    with suppress(OSError, ValueError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            text = os.read(fd, _SCRIPT_BYTES) if _is_file(fd) else b""
        finally:
            os.close(fd)
        if text.startswith(b"#!") or path.endswith(".sh"):
            lines = (line for line in text.split(b"\n") if not line.lstrip().startswith(b"#"))
            return b"\n".join(lines)
    return b""


def _comm(pid: int) -> str:
    return procfs.read_bytes(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()


def _is_file(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o100000


def _stem(program: str) -> str:
    return program.removesuffix(" (deleted)").partition(".")[0]  # pasta.avx2


def _is_root_file(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/exe").st_uid == 0  # noqa: PTH116
    except OSError:  # another user's process: judge by the owner of the process
        return users.uid(pid) == 0
