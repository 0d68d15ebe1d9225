"""A real podman with a storage of its own, and an image that runs this machine's Python.

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
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from .documents import ROOT

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

    def __init__(self, folder: Path) -> None:
        self.command = (
            "podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"),
            "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", "runc",
        )  # fmt: skip
        folders = {Path("/usr"), Path("/etc"), ROOT, Path(sys.prefix)}
        folders |= {Path(sys.base_prefix).resolve(), Path(sys.base_prefix)}
        self.volumes = tuple(f"{path}:{path}:ro" for path in sorted(folders))

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


def _why_not(engine: Podman, folder: Path) -> str:
    """Make the image; return why no container can run here, empty if one can."""
    if os.geteuid() != 0:
        return "needs podman as root"
    if missing := [name for name in ("podman", "runc") if shutil.which(name) is None]:
        return f"needs {' and '.join(missing)}: apt-get install podman runc catatonit"
    empty = folder / "empty.tar"
    with tarfile.open(empty, "w") as tar:
        for link in ("bin", "lib", "lib64", "sbin"):
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
    return f"podman can run no container: {done.stderr[-300:]}" if done.returncode else ""


@cache
def _shared() -> tuple[Podman, str]:
    folder = Path(tempfile.mkdtemp(prefix="swapchart-podman-"))
    engine = Podman(folder)
    reason = _why_not(engine, folder)
    atexit.register(_end, engine, folder)
    return engine, reason


def _end(engine: Podman, folder: Path) -> None:
    if shutil.which("podman") is not None:
        remove = [*engine.command, "rm", "--all", "--force", "--time", "0"]
        subprocess.run(remove, capture_output=True, timeout=120, check=False)
    shutil.rmtree(folder, ignore_errors=True)


def shared_podman() -> Podman:
    """Return the podman of this process, which has the image.

    It skips the test, loudly, where no container can run.
    """
    engine, reason = _shared()
    if reason:
        pytest.skip(f"NOT TESTED: {reason}")
    return engine


@pytest.fixture
def podman() -> Podman:
    """Podman with the image; skips the test, loudly, where no container can run."""
    return shared_podman()
