"""Ownership of a port: listeners of the tree, containers and root are accepted, no others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest
from tools.net import free_port, wait_until_async
from tools.rows import row

from swapchart.adapters.process import LocalLauncher, LocalProcess, container_engines, procfs
from swapchart.adapters.process.port import owner
from swapchart.runtime.log_ring import LogRing
from swapchart.runtime.ports import Command, Probe

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

#: Listens on all addresses and responds 200; needs no module, so it runs in an empty container.
ANSWER = "HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok"
PERL = f"""
$SIG{{TERM}} = sub {{ exit }};
socket(S, 2, 1, 6); setsockopt(S, 1, 2, pack("l", 1));
bind(S, pack("S n a4 x8", 2, $ARGV[0], "\\0\\0\\0\\0")) or die; listen(S, 64);
while (accept(C, S)) {{ sysread(C, $b, 4096); syswrite(C, "{ANSWER}"); close C }}
"""
_PERL = shutil.which("perl") or "perl"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


@contextmanager
def stranger(port: int, program: str = _PERL, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    """Answer 200 on *port* from a process that is none of the launcher's."""
    with subprocess.Popen((*before, program, "-e", PERL, str(port))) as process:
        try:
            deadline = time.monotonic() + 10
            while not _is_listening(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def _is_listening(port: int) -> bool:
    tables = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and " 0A " in line for line in tables)


async def start(launcher: LocalLauncher, *argv: str, label: str = "mine") -> LocalProcess:
    return await launcher.start(Command(argv=argv or ("sleep", "60"), label=label), LogRing())


async def probe(process: LocalProcess, port: int) -> Probe:
    return await process.probe(f"http://127.0.0.1:{port}/", timeout_s=10)


async def test_probe_foreign_process_of_the_same_user_is_refused_for_good(
    launcher: LocalLauncher,
) -> None:
    """One that binds the port after the launch does not count; the error names it and the key."""
    process, port = await start(launcher), free_port()
    with stranger(port) as other:
        found = await probe(process, port)

    assert found.is_final
    assert not found.is_ok
    assert f"port {port} is served by pid {other.pid} (perl)" in found.detail
    assert "`external: true`" in found.detail


async def test_probe_foreign_process_that_ends_soon_is_not_final(
    launcher: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is about to end is waited for before a start is given up."""
    monkeypatch.setattr(owner, "_EXIT_LIMIT_S", 3.0)
    process, port = await start(launcher), free_port()
    with stranger(port) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_end_later, other)
            with anyio.fail_after(20):
                found = await probe(process, port)

    assert not found.is_final


async def _end_later(other: subprocess.Popen[bytes]) -> None:
    await anyio.sleep(0.05)
    other.kill()
    await anyio.to_thread.run_sync(other.wait)


async def test_probe_daemon_of_the_command_counts(launcher: LocalLauncher) -> None:
    """A server that left session and environment is the command's own."""
    port = free_port()
    script = 'env -i setsid "$@" & exec sleep 60'
    process = await start(launcher, "sh", "-c", script, "sh", _PERL, "-e", PERL, str(port))
    await wait_until_async(lambda: _is_listening(port))

    assert await probe(process, port) == Probe(is_ok=True)


async def test_probe_listener_in_another_pid_namespace_counts(launcher: LocalLauncher) -> None:
    """What listens from inside a container on the host's network is not known to us as a child."""
    process, port = await start(launcher), free_port()
    isolated = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child")
    if subprocess.run((*isolated, "true"), capture_output=True).returncode:  # noqa: ASYNC221
        pytest.skip("no right to make a namespace")
    with stranger(port, _PERL, *isolated):
        found = await probe(process, port)

    assert found == Probe(is_ok=True)


@needs_root
@pytest.mark.parametrize("is_roots", [True, False])
async def test_probe_forwarder_counts_if_its_file_is_roots(
    launcher: LocalLauncher, tmp_path: Path, is_roots: bool
) -> None:
    """A program called as a forwarder proves nothing, unless only root could have put it there."""
    program = Path(shutil.copy(_PERL, tmp_path / "docker-proxy"))
    os.chown(program, 0 if is_roots else 65534, 0)
    process, port = await start(launcher), free_port()
    with stranger(port, str(program)):
        found = await probe(process, port)

    assert found.is_ok == is_roots
    assert found.is_final != is_roots


@needs_root
async def test_probe_container_older_than_the_start_is_waited_out(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """The command may be about to replace it: it does not count, and does not end the start."""
    program, port = shutil.copy(_PERL, tmp_path / "docker-proxy"), free_port()
    with stranger(port, str(program)):
        await anyio.sleep(0.05)  # starts are told apart by 10 ms
        found = await probe(await start(launcher), port)

    assert not found.is_ok
    assert not found.is_final
    assert "older than this start" in found.detail


def client(folder: Path, name: str = "docker") -> Path:
    """Create a program of that name that waits for the time in its argument."""
    return Path(shutil.copy(shutil.which("sleep") or "sleep", folder / name))


@pytest.mark.parametrize("lasts", ["60", "0.3"])
async def test_probe_container_client_in_a_script_accepts_its_container(
    launcher: LocalLauncher, tmp_path: Path, lasts: str
) -> None:
    """With a client in the tree, now or since the start, the listener is its container's."""
    command = f'"$0" {lasts}; exec sleep 60'
    process = await start(launcher, "sh", "-c", command, str(client(tmp_path)))
    port = free_port()
    await wait_until_async(lambda: any(p.ppid == process.pid for p in process.tree()))
    assert not (await probe(process, port)).is_ok
    await anyio.sleep(0.5)
    with stranger(port):
        found = await probe(process, port)

    assert found == Probe(is_ok=True)


async def test_probe_container_client_that_ended_is_known_from_the_script(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    """A client that ended before the first probe is found in the script."""
    script = tmp_path / "start"
    script.write_text("#!/bin/sh\n# starts it\nif docker start model; then :; fi\nexec sleep 60\n")
    script.chmod(0o755)
    process, port = await start(launcher, str(script)), free_port()
    with stranger(port):
        found = await probe(process, port)

    assert found == Probe(is_ok=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#!/bin/sh\ndocker start x\n", True),
        ("#!/bin/bash\nset -e\n  exec /usr/bin/podman run x\n", True),
        ("#!/bin/sh\n# docker run x\nexec server\n", False),
        ("#!/bin/sh\nexec server --model docker-image.gguf\n", False),
        ("#!/bin/sh\nexec ./my-podman run\n", False),
        ("docker run x\n", False),
        ("", False),
    ],
)
def test_names_client_script_counts_commands_and_no_comments(
    tmp_path: Path, text: str, expected: bool
) -> None:
    """Scripts are read, data is not, and a part of a word is no client."""
    script = tmp_path / "start"
    script.write_text(text)

    assert container_engines.names_client((str(script),)) == expected
    assert container_engines.names_client(("sh", str(script), "a\0b")) == expected


def test_names_client_pipe_or_folder_is_not_waited_for(tmp_path: Path) -> None:
    """Only files are read."""
    os.mkfifo(tmp_path / "pipe")

    assert not container_engines.names_client((str(tmp_path / "pipe"), str(tmp_path)))
    assert container_engines.names_client(("docker", "run"))
    assert container_engines.names_client(("sh", "-c", "podman run x"))


TWO_USERS = """
    import anyio, encodings.idna, os, pwd, signal, sys
    from swapchart.adapters.process import LocalLauncher
    from swapchart.runtime.log_ring import LogRing
    from swapchart.runtime.ports import Command

    port, model = int(sys.argv[1]), sys.argv[2:]

    async def main():
        async with LocalLauncher(guard=False, subreaper=True) as launcher:
            log = LogRing()
            process = await launcher.start(Command(argv=tuple(model), label="mine"), log)
            await anyio.sleep(0.5)
            os.setresuid(65534, 65534, 0)
            found = await process.probe(f"http://127.0.0.1:{port}/", timeout_s=10)
            os.setresuid(0, 0, 0)
            print(found.is_ok, found.is_final, found.detail)

    anyio.run(main)
"""


async def ask_as_nobody(port: int, *model: str) -> str:
    """Return what a proxy of user 65534 finds at *port*."""
    argv = (sys.executable, "-c", textwrap.dedent(TWO_USERS), str(port), *model)
    return (await anyio.run_process(argv)).stdout.decode()


@needs_root
@pytest.mark.parametrize("uid", [0, 65533])
async def test_probe_listener_of_another_user_counts_if_it_is_roots(uid: int) -> None:
    """Listeners of root, such as docker-proxy, are accepted; those of other users are not."""
    port = free_port()
    with stranger(port, _PERL, "setpriv", f"--reuid={uid}", "--clear-groups") as other:
        found = await ask_as_nobody(port, "sleep", "60")

    assert found.startswith("True" if uid == 0 else "False True")
    assert uid == 0 or f"pid {other.pid} (perl) of user 65533" in found


@needs_root
async def test_probe_model_that_became_another_user_counts() -> None:
    """What the command started with sudo is its own, though we cannot see what it holds."""
    port = free_port()
    model = ("setpriv", "--reuid=65533", "--clear-groups", _PERL, "-e", PERL, str(port))

    assert (await ask_as_nobody(port, *model)).startswith("True")


# ---- a real engine
IMAGE = "localhost/swapchart-test"
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with perl and the libraries that it needs, made from this machine's files."""
    if os.geteuid() != 0 or shutil.which("podman") is None:
        pytest.skip("needs rootful podman")
    tree = tmp_path_factory.mktemp("image")
    libraries = subprocess.run(("ldd", _PERL), capture_output=True, text=True, check=True).stdout
    for word in (_PERL, *libraries.split()):
        if word.startswith("/"):
            (tree / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, tree / word[1:])
    with subprocess.Popen(("tar", "-C", tree, "-c", "."), stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ("podman", "import", "-", IMAGE), stdin=tar.stdout, check=True, capture_output=True
        )
    works = ("podman", "run", "--rm", *LIMITS, IMAGE, _PERL, "-e", "1")
    if subprocess.run(works, capture_output=True).returncode:
        pytest.skip("podman cannot run a container here")
    return IMAGE


@pytest.fixture
def container(image: str) -> Iterator[str]:
    """The name of a container that is gone at the end."""
    name = f"swapchart-test-{os.getpid()}-{time.monotonic_ns()}"
    yield name
    subprocess.run(("podman", "rm", "-f", "-t", "0", "-i", name), capture_output=True)


def run_command(name: str, port: int, *options: str) -> str:
    words = ("podman", "run", "--rm", *options, *LIMITS, "--name", name)
    return " ".join((*words, "-p", f"127.0.0.1:{port}:80", IMAGE, _PERL, "-e", '"$0"', "80"))


def monitors(name: str) -> list[procfs.Proc]:
    return [p for p in procfs.scan() if container_engines.container(p.pid) == name and p.is_alive]


async def wait_ready(process: LocalProcess, port: int) -> None:
    with anyio.fail_after(30):
        while not (found := await probe(process, port)).is_ok:
            assert not found.is_final, found.detail
            await anyio.sleep(0.05)


@pytest.mark.parametrize("is_detached", [False, True])
@row("A13")
async def test_podman_container_of_a_wrapper_script_is_ready_and_ends_by_its_engine(
    launcher: LocalLauncher, container: str, is_detached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The port that conmon holds counts; after `podman stop` nothing has to be killed."""
    port = free_port()
    run = run_command(container, port, *(["-d"] if is_detached else []))
    script = f"{run}; exec sleep 60" if is_detached else f"{run} & wait $!; exit 0"
    process = await start(launcher, "sh", "-c", script, PERL)
    await wait_ready(process, port)
    (monitor,) = monitors(container)
    stop = Command(argv=("podman", "stop", "-t", "5", container))
    assert (await launcher.run(stop, LogRing())).is_clean
    process.terminate()
    await process.wait()

    assert await process.sweep(10) == 0
    assert not procfs.is_same(monitor)
    assert "left to its engine" not in caplog.text


async def test_podman_container_that_its_client_leaves_is_named_and_left(
    launcher: LocalLauncher, container: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a cmdStop it is its engine that ends it: no signal of ours reaches it."""
    port = free_port()
    process = await start(launcher, "sh", "-c", run_command(container, port) + "; :", PERL)
    await wait_ready(process, port)
    (monitor,) = monitors(container)
    process.kill()
    await process.wait()
    await process.sweep(0)

    assert procfs.is_same(monitor)
    assert f"container {container} is left to its engine (pid {monitor.pid}, conmon)" in caplog.text
    with suppress(ProcessLookupError):
        os.kill(monitor.pid, signal.SIGTERM)


async def test_podman_container_that_a_hook_started_outlives_the_hook(
    launcher: LocalLauncher, container: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A hook may start a container beside the model."""
    hook = Command(argv=("sh", "-c", run_command(container, free_port(), "-d"), PERL))
    assert (await launcher.run(hook, LogRing())).is_clean

    assert len(monitors(container)) == 1
    assert not caplog.records
