"""A real podman and a real dockerd with storages of their own, and an image for Python.

The image has only links; the folders of the machine are volumes. So nothing is downloaded, and the
demo server of the checkout runs in the container.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

from swapchart.runtime.container import ContainerEngine

from .documents import ROOT
from .net import wait_until

IMAGE = "localhost/swapchart-test:1"
#: An image in a container needs these limits where CAP_SYS_RESOURCE is dropped.
LIMITS = ("--ulimit", "nofile=1024:4096", "--ulimit", "nproc=4096:4096")


class Podman:
    """Podman as root by runc, with its own storage.

    Args:
        folder: Folder of its storage.

    Attributes:
        command: Program and global options.
        volumes: Volumes that give a container the Python and the checkout of this machine.
    """

    is_podman: ClassVar[bool] = True

    def __init__(self, folder: Path) -> None:
        self.command: tuple[str, ...] = (
            "podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"),
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc",
        )  # fmt: skip
        folders = {Path("/usr"), Path("/etc"), ROOT, Path(sys.prefix)}
        folders |= {Path(sys.base_prefix).resolve(), Path(sys.base_prefix)}
        self.volumes = tuple(f"{path}:{path}:ro" for path in sorted(folders))

    @property
    def engine(self) -> ContainerEngine:
        """The same as a value of the runtime."""
        return ContainerEngine(command=self.command, is_podman=self.is_podman)

    def close(self) -> None:
        """Remove all containers."""
        if which := shutil.which(self.command[0]):
            remove = [which, *self.command[1:], "rm", "--all", "--force", "--time", "0"]
            subprocess.run(remove, capture_output=True, timeout=120, check=False)

    def run(self, *argv: str) -> str:
        """Run a command that must succeed; return what it printed."""
        done = subprocess.run(
            [*self.command, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def names(self) -> list[str]:
        """Return the names of all containers, running or not, sorted."""
        return sorted(self.run("ps", "--all", "--format", "{{.Names}}").split())

    def container(self, *command: str, **keys: Any) -> dict[str, Any]:
        """Return the key ``container`` of a model that runs *command* in the image."""
        entrypoint, *args = command
        return {
            "image": IMAGE, "entrypoint": [entrypoint], "args": args, "network": "host",
            "volumes": list(self.volumes), "options": list(LIMITS), "pull": "never", **keys,
        }  # fmt: skip

    def demo(self, *options: str, listen: str = "${PORT}", **keys: Any) -> dict[str, Any]:
        """Return the key ``container`` of a model that runs the demo server on port *listen*."""
        argv = (sys.executable, "-m", "swapchart.adapters.demo", "--port", listen, *options)
        return self.container(*argv, **keys)


class Docker(Podman):
    """Docker with a daemon of its own, without networks but the host's."""

    is_podman: ClassVar[bool] = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder
        self.command = ("docker", "--host", f"unix://{folder}/docker.sock")
        argv = [
            "dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec",
            "--host", f"unix://{folder}/docker.sock", "--pidfile", f"{folder}/docker.pid",
            "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs",
            "--exec-opt", "native.cgroupdriver=cgroupfs",
        ]  # fmt: skip
        with (folder / "docker.log").open("w") as log:
            self._daemon = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        wait_until(self._is_up, what=lambda: (folder / "docker.log").read_text()[-2000:])

    def _is_up(self) -> bool:
        argv = [*self.command, "version"]
        return subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0

    def close(self) -> None:
        """Remove all containers, and end the daemon."""
        for name in self.names():
            self.run("rm", "--force", name)
        self._daemon.terminate()
        self._daemon.wait(60)
        subprocess.run(["umount", self._folder / "exec/netns/default"], check=False)


def _why_not(programs: Sequence[str]) -> str:
    """Return what no container can run without; empty if nothing is missing."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in programs if shutil.which(name) is None]
    return f"needs {' and '.join(missing)} in PATH" if missing else ""


def _prepare(engine: Podman, folder: Path) -> str:
    """Make the image; return why no container can run, empty if one can."""
    empty = folder / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        for link in ("bin", "lib", "lib64"):  # the init of Docker is put below /sbin
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{link}"
            tar.addfile(entry)
    engine.run("import", str(empty), IMAGE)
    works = ["run", "--rm", "--init", "--network", "host", "--pull", "never", *LIMITS]
    works += [word for volume in engine.volumes for word in ("-v", volume)]
    done = subprocess.run(
        [*engine.command, *works, IMAGE, sys.executable, "-c", "1"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return f"no container can run: {done.stderr[-300:]}" if done.returncode else ""


@cache
def _shared(name: str) -> tuple[Podman | None, str]:
    kind, programs = _KINDS[name]
    if reason := _why_not(programs):
        return None, reason
    folder = Path(tempfile.mkdtemp(prefix="swapchart-engine-"))
    engine = kind(folder)
    atexit.register(_end, engine, folder)
    return engine, _prepare(engine, folder)


_KINDS: dict[str, tuple[type[Podman], Sequence[str]]] = {
    "podman": (Podman, ("podman", "runc")),
    "docker": (Docker, ("docker", "dockerd", "containerd", "runc")),
}


def _end(engine: Podman, folder: Path) -> None:
    engine.close()
    shutil.rmtree(folder, ignore_errors=True)


def shared_engine(name: str) -> Podman:
    """Return ``podman`` or ``docker`` of this process, which has the image.

    It skips the test, loudly, where no container can run. Debian has dockerd in docker.io.
    """
    engine, reason = _shared(name)
    if engine is None or reason:
        pytest.skip(f"NOT TESTED: {name} {reason}")
    return engine


@pytest.fixture
def podman() -> Podman:
    """Podman with the image; skips the test, loudly, where no container can run."""
    return shared_engine("podman")
