"""Machines of a cluster on this one: network, pid, mount and host name namespaces, and a bridge.

A `Site` is a network of hosts at private addresses. No host has a route out of it, and the bridge
has no link of a real network. This machine is part of it, for proxies. A host can lose its power or
be cut off: no packet tells the others of it, and each has memory files and a folder for Ray of its
own. Needs root and iproute2.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from .net import LONG_S
from .ray_cluster import QUIET, TUNED

PORT = 6379  # of heads
_NUMBERS = itertools.count()  # of sites of this process
_MEMORY = 80_000_000  # bytes that Ray takes for its objects on each host
#: Becomes process 1 of a host, and reaps what is left to it.
_INIT = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
print("up", flush=True)
while True:
    signal.sigwait({signal.SIGCHLD})
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""
_BOOT = """
set -e
hostname "$1"
mount -t tmpfs -o size=32m tmpfs "$2"
mount -t tmpfs -o size=256m tmpfs /dev/shm
ip link set lo up
exec "$3" -I -S -c "$4"
"""


def why_not() -> str:
    """Return why hosts cannot be simulated here, in words; empty if they can."""
    if os.geteuid() != 0:
        return "NOT TESTED: simulated hosts need root"
    for program in ("ip", "unshare", "nsenter", "hostname"):
        if shutil.which(program) is None:
            return f"NOT TESTED: simulated hosts need {program}: apt-get install iproute2"
    namespaces = ("--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc")
    done = subprocess.run(
        ("unshare", *namespaces, "ip", "link", "add", "name", "b", "type", "bridge"),
        capture_output=True, text=True,
    )  # fmt: skip
    return f"NOT TESTED: no simulated hosts: {done.stderr.strip()}" if done.returncode else ""


class Host:
    """One simulated machine, which is on.

    Args:
        site: Its network.
        name: Its host name.
        number: Last part of its address.
    """

    def __init__(self, site: Site, name: str, number: int) -> None:
        self.name, self.address = name, f"{site.prefix}.{number}"
        self._site, self._link = site, f"{site.bridge}h{number}"
        self._init: subprocess.Popen[bytes] | None = None
        self.boot()

    def boot(self) -> None:
        """Turn it on: nothing of an earlier life is left."""
        arguments = (self.name, self._site.folder, sys.executable, _INIT)
        self._init = subprocess.Popen(
            (
                "unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child",
                "--mount-proc", "sh", "-c", _BOOT, "sh", *arguments,
            ),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"up\n", f"host {self.name} does not boot"
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._pid)
        _ip("link", "set", self._link, "master", self._site.bridge, "up")
        inside = ("nsenter", "--net", "--target", self._pid, "ip")
        _run(*inside, "address", "add", f"{self.address}/24", "dev", "eth0")
        _run(*inside, "link", "set", "eth0", "up")

    @property
    def _pid(self) -> str:
        """Process 1 of this host, as this machine sees it."""
        assert self._init is not None, "it is off"
        (child,) = psutil.Process(self._init.pid).children()
        return str(child.pid)

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, limit_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here until it ends."""
        enter = ("nsenter", "--net", "--pid", "--mount", "--uts", "--ipc", "--target", self._pid)
        return subprocess.run(
            (*enter, "--", *argv), env={**os.environ, **(env or {})}, capture_output=True,
            text=True, timeout=limit_s, check=False,
        )  # fmt: skip

    # ---- faults
    def cut_off(self) -> None:
        """Lose all packets from and to it; what runs there goes on."""
        _ip("link", "set", self._link, "down")

    def reconnect(self) -> None:
        """Deliver packets again."""
        _ip("link", "set", self._link, "up")

    def power_off(self) -> None:
        """End all its processes at once, without a packet to anyone; a no-op if it is off."""
        if self._init is None:
            return
        self.cut_off()
        os.kill(int(self._pid), signal.SIGKILL)
        self._init.wait()
        assert self._init.stdout is not None
        self._init.stdout.close()
        self._init = None
        with suppress(RuntimeError):  # the kernel may have removed it with its other end
            _ip("link", "delete", self._link)

    # ---- facts
    def processes(self, variable: str) -> list[int]:
        """Return the running processes of this host that have *variable* in their environment."""
        if self._init is None:
            return []
        own = Path(f"/proc/{self._pid}/ns/pid").readlink()
        return [pid for pid in _with(variable) if _namespace(pid) == own]


class Site:
    """A bridge, its hosts, and the cluster of Ray on them; a context manager.

    Attributes:
        prefix: First three parts of all addresses.
        hosts: Hosts by name, also those that are off.
        folder: Folder of Ray on each host, and on this machine.
    """

    def __init__(self) -> None:
        self.bridge = f"sc{os.getpid() % 100_000}{chr(97 + next(_NUMBERS) % 26)}"
        self.prefix = _free_prefix()
        # Sockets of Ray lie below, and their paths may have 107 characters.
        self.folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self.hosts: dict[str, Host] = {}
        self._marker = f"SWAPCHART_SITE={self.bridge}-{time.time_ns()}"
        self._head = ""

    def __enter__(self) -> Site:
        _ip("link", "add", self.bridge, "type", "bridge")
        try:
            _ip("address", "add", f"{self.prefix}.1/24", "dev", self.bridge)
            _ip("link", "set", self.bridge, "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for host in self.hosts.values():
            host.power_off()
        for pid in _with(self._marker):
            with suppress(psutil.NoSuchProcess):  # its children have names for environments
                own = psutil.Process(pid)
                for process in (*own.children(recursive=True), own):
                    process.kill()
        _ip("link", "delete", self.bridge)
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, *names: str) -> None:
        """Add hosts."""
        for name in names:
            self.hosts[name] = Host(self, name, 10 + len(self.hosts))

    # ---- Ray
    @property
    def address(self) -> str:
        """Address of the head of the cluster."""
        return f"{self._head}:{PORT}"

    def start_head(self, name: str) -> None:
        """Start the head of the cluster on a host."""
        self._head = self.hosts[name].address
        self._ray(
            name, "--head", f"--port={PORT}", f"--temp-dir={self.folder}",
            "--include-dashboard=false",
        )  # fmt: skip

    def start_node(self, name: str, *, vram: Sequence[float] = ()) -> None:
        """Let a host join the cluster; *vram* is the memory of each GPU in GiB."""
        memory = {f"VRAM_{number}": size for number, size in enumerate(vram)}
        options = (f"--num-gpus={len(vram)}", f"--resources={json.dumps(memory)}")
        self._ray(name, f"--address={self.address}", *options)

    def has_node(self, name: str) -> bool:
        """Return True if a host is part of the cluster, by its raylet."""
        pids = self.hosts[name].processes(self._marker)
        return any(b"/raylet\0" in _command(pid) for pid in pids)

    def join(self) -> None:
        """Let this machine join the cluster, without GPUs."""
        self._ray("", f"--address={self.address}", "--num-gpus=0")

    def _ray(self, name: str, *options: str) -> None:
        address = self.hosts[name].address if name else f"{self.prefix}.1"
        argv = (
            str(Path(sys.executable).with_name("ray")), "start", f"--node-ip-address={address}",
            f"--node-name={name or 'proxy'}", "--num-cpus=0", "--disable-usage-stats",
            f"--object-store-memory={_MEMORY}", *options,
        )  # fmt: skip
        variable, _, value = self._marker.partition("=")
        env = {**QUIET, **TUNED, variable: value}
        if name:
            done = self.hosts[name].run(*argv, env=env)
        else:
            done = subprocess.run(
                argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def _with(variable: str) -> Iterator[int]:
    wanted = f"\0{variable}".encode()
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            with suppress(OSError):
                if wanted in b"\0" + (path / "environ").read_bytes():
                    yield int(path.name)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _namespace(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink()
    except OSError:
        return None


def _free_prefix() -> str:
    """Return a private network that this machine has no route to."""
    routes = _run("ip", "-4", "route", "show", "table", "all")
    for number in range(1, 255):
        prefix = f"10.213.{number}"
        if f"{prefix}." not in routes:
            return prefix
    raise RuntimeError("all networks are in use")


def _ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LONG_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
