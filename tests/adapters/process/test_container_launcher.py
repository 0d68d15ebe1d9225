"""Containers of a real podman: starts, exits, signals, leftovers, and engines that fail."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest
from tools.net import LONG_S, free_port
from tools.podman import IMAGE, LIMITS, Podman, podman

from swapchart.adapters.process import LocalLauncher
from swapchart.adapters.process.container import ContainerLauncher, ContainerProcess
from swapchart.runtime import Command, EngineError, Exit, LaunchError, LogRing, SpecError
from swapchart.runtime.container import Container, ContainerEngine

__all__ = ["podman"]

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

OWNER = "0123456789abcdef"
#: Shell script that says when it is ready, and ends with code 3 by SIGTERM and 4 by SIGINT.
SERVER = "trap 'echo bye; exit 3' TERM; trap 'exit 4' INT; echo ready; while :; do sleep 0.02; done"


@pytest.fixture
async def containers(launcher: LocalLauncher, podman: Podman) -> AsyncIterator[ContainerLauncher]:
    async with ContainerLauncher(launcher, OWNER) as containers:
        yield containers
    assert podman.names() == []


def command(podman: Podman, *argv: str, label: str = "m", **fields: object) -> Command:
    engine = ContainerEngine(command=podman.command, is_podman=True)
    keys = {"network": "host", "options": LIMITS, "volumes": ("/usr:/usr:ro",), **fields}
    container = replace(Container(image=IMAGE, engine=engine), **keys)  # type: ignore[arg-type]
    return Command(argv=argv, label=label, container=container, launcher="container")


def shell(podman: Podman, script: str = SERVER, *, label: str = "m", **fields: object) -> Command:
    return command(podman, "/bin/sh", "-c", script, label=label, **fields)


async def ready(log: LogRing) -> None:
    """Wait until the script has said that it is ready."""
    with anyio.fail_after(LONG_S):
        while "ready" not in log.tail(9):  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def ended(process: ContainerProcess) -> Exit:
    with anyio.fail_after(LONG_S):
        found = await process.wait()
        await process.sweep(1)
    return found


def kill_client(process: ContainerProcess) -> None:
    """Kill the client that is attached to the container."""
    for child in psutil.Process(os.getpid()).children(recursive=True):
        with suppress(psutil.Error):
            if child.cmdline()[-3:] == ["start", "--attach", process.id]:
                child.kill()


async def test_container_runs_with_its_variables_labels_and_name(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """Values of variables are not in the command line of a client, and the container has them."""
    log = LogRing()
    given = replace(shell(podman, f'echo "$A $HOME"; {SERVER}'), env={"A": "b c", "HOME": "/x"})
    process = await containers.start(given, log)
    await ready(log)

    assert log.tail(9) == ["b c /x", "ready"]
    assert process.name == "swapchart-01234567-m"
    assert psutil.Process(process.pid).cmdline()[0] == "/bin/sh"
    assert process.pid in process.pids()
    assert await process.presence() == "alive"
    labels = podman.run("inspect", "--format", "{{json .Config.Labels}}", process.name)
    assert f'"swapchart.owner":"{OWNER}"' in labels
    assert '"swapchart.model":"m"' in labels
    process.terminate()
    assert await ended(process) == Exit(code=3)
    assert log.tail(9)[-1] == "bye"
    assert process.pids() == ()
    assert await process.presence() == "gone"
    process.terminate()
    process.kill()


async def test_command_runs_inside_with_its_exit_code(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """Output goes to the log that it is given; a program that is not there has code 127."""
    log, inside = LogRing(), LogRing()
    process = await containers.start(shell(podman), log)
    await ready(log)
    say = Command(argv=("/bin/sh", "-c", "echo $A $$; exit 7"), env={"A": "x y"})
    found = await process.run(say, inside)
    missing = await process.run(Command(argv=("/no/such",)), inside)
    process.kill()

    assert found == Exit(code=7)
    assert inside.tail(9)[0].startswith("x y ")
    assert missing.code == 127
    assert await ended(process) == Exit(signal=signal.SIGKILL)


async def test_exit_code_of_a_container_that_ends_at_once(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """All its output is in the log, though it ended before its start was seen."""
    log = LogRing()
    process = await containers.start(shell(podman, "echo out; exit 9"), log)

    assert await ended(process) == Exit(code=9)
    assert log.tail(9) == ["out"]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 4), ("", 3)])
async def test_stop_signal_of_the_container_is_sent(
    containers: ContainerLauncher, podman: Podman, name: str, code: int
) -> None:
    """That of the key, else that of the image."""
    log = LogRing()
    process = await containers.start(shell(podman, stop_signal=name), log)
    await ready(log)
    process.terminate()

    assert await ended(process) == Exit(code=code)


async def test_container_that_ignores_its_stop_signal_is_killed(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """Process 1 without a handler ignores SIGTERM; with an init process it does not."""
    log = LogRing()
    process = await containers.start(shell(podman, "echo ready; exec sleep 99"), log)
    await ready(log)
    process.terminate()
    with anyio.move_on_after(0.3):
        await process.wait()
    assert not process.has_ended
    process.kill()
    assert await ended(process) == Exit(signal=9)


#: What is wrong -> kind of the error and words of it.
WRONG: dict[str, tuple[Callable[[Podman], Command], type[LaunchError], str]] = {
    "image": (
        lambda podman: shell(podman, image="localhost/no-such:1"), SpecError,
        "the image localhost/no-such:1 is not on this machine: pull it with `podman pull",
    ),
    "program": (
        lambda podman: command(podman, "/no/such"), SpecError, 'exec: "/no/such": stat /no/such',
    ),
    "not executable": (
        lambda podman: command(podman, "/usr/share"), SpecError, "permission denied",
    ),
    "option": (
        lambda podman: shell(podman, options=("--no-such",)), SpecError, "unknown flag: --no-such",
    ),
    "volume": (
        lambda podman: shell(podman, volumes=("/no/such:/x",)), SpecError, "no such file or direct",
    ),
    "gpu": (
        lambda podman: shell(podman, gpus=("all",)), SpecError, "unresolvable CDI devices",
    ),
    "engine": (
        lambda podman: shell(podman, engine=ContainerEngine(command=("no-such-engine",))),
        SpecError, "cannot start no-such-engine",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
async def test_start_that_cannot_succeed_leaves_nothing_behind(
    containers: ContainerLauncher, podman: Podman, what: str
) -> None:
    """One error with one clear line."""
    make, kind, words = WRONG[what]
    with pytest.raises(kind) as caught:
        await containers.start(make(podman), LogRing())

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert podman.names() == []


async def test_engine_without_its_daemon_is_retried(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """The error of the real client of Docker is passed on in one line."""
    if shutil.which("docker") is None:
        pytest.skip("NOT TESTED: no docker")
    docker = ContainerEngine(command=("docker", "--host", "unix:///no/such.sock"))
    with pytest.raises(EngineError, match=r"docker does not respond: .*unix:///no/such\.sock"):
        await containers.start(shell(podman, engine=docker), LogRing())


async def test_name_of_a_container_that_is_not_ours_is_left_alone(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """Also one of another proxy: its label names another owner."""
    for label in ("other=1", "swapchart.owner=fedcba9876543210"):
        podman.run("create", "--name", "mine", "--label", label, "--pull", "never", IMAGE, "/x")
        with pytest.raises(SpecError, match=r"the name 'mine' is taken.*`podman rm -f mine`"):
            await containers.start(shell(podman, name="mine"), LogRing())
        assert podman.names() == ["mine"]
        podman.run("rm", "mine")


async def test_two_services_with_one_name_do_not_replace_each_other(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """The second one is refused while the first one runs, and starts after it."""
    log = LogRing()
    first = await containers.start(shell(podman, name="one", label="a"), log)
    with pytest.raises(SpecError, match="the name 'one' is taken"):
        await containers.start(shell(podman, name="one", label="b"), LogRing())
    first.kill()
    await ended(first)
    second = await containers.start(shell(podman, name="one", label="b"), LogRing())
    second.kill()
    assert (await ended(second)).signal == 9


async def test_leftovers_of_the_same_owner_are_removed(
    launcher: LocalLauncher, podman: Podman
) -> None:
    """Running or not; those of other owners stay, whatever their names."""
    run = ["run", "--detach", "--pull", "never", "--network", "host", *LIMITS]
    run += ["-v", "/usr:/usr:ro"]
    ours = ("--label", f"swapchart.owner={OWNER}", "--label", "swapchart.instance=old")
    podman.run(*run, *ours, "--name", "left", IMAGE, "/bin/sleep", "99")
    podman.run("create", "--pull", "never", *ours, "--name", "dead", IMAGE, "/x")
    podman.run(*run, "--name", f"swapchart-{OWNER[:8]}-x", IMAGE, "/bin/sleep", "99")
    try:
        async with ContainerLauncher(launcher, OWNER) as containers:
            process = await containers.start(shell(podman), LogRing())
            names = {process.name, f"swapchart-{OWNER[:8]}-x"}
            assert set(podman.names()) == names
    finally:
        podman.run("rm", "--force", "--time", "0", f"swapchart-{OWNER[:8]}-x")
    assert podman.names() == []


async def test_container_outlives_its_client(
    containers: ContainerLauncher, podman: Podman, caplog: pytest.LogCaptureFixture
) -> None:
    """Another client is attached; later output and the exit code are those of the container."""
    log = LogRing()
    ticking = SERVER.replace("sleep", "echo tick; sleep")
    process = await containers.start(shell(podman, ticking), log)
    await ready(log)
    kill_client(process)
    with anyio.fail_after(LONG_S):
        while "attaching another" not in caplog.text:  # noqa: ASYNC110
            await anyio.sleep(0.02)
        size = log.total_bytes
        while log.total_bytes == size:  # noqa: ASYNC110
            await anyio.sleep(0.02)
    process.terminate()

    assert await ended(process) == Exit(code=3)
    assert "bye" in log.tail(9)


async def test_end_of_the_launcher_kills_and_removes_containers(
    launcher: LocalLauncher, podman: Podman
) -> None:
    """Whatever they do."""
    async with ContainerLauncher(launcher, OWNER) as containers:
        processes = [
            await containers.start(shell(podman, "exec sleep 99", label=label), LogRing())
            for label in ("a", "b")
        ]
        assert len(podman.names()) == 2
    assert podman.names() == []
    assert [(await process.wait()).signal for process in processes] == [9, 9]
    with pytest.raises(EngineError, match="closed"):
        await containers.start(shell(podman), LogRing())


@pytest.mark.parametrize("after_s", [0.05, 0.3])
async def test_start_that_is_cancelled_leaves_nothing_behind(
    containers: ContainerLauncher, podman: Podman, after_s: float
) -> None:
    """At whatever moment: a container that was created is removed."""
    with anyio.move_on_after(after_s):
        process = await containers.start(shell(podman), LogRing())
        process.kill()
        await ended(process)
    process = await containers.start(shell(podman), LogRing())
    process.kill()
    assert (await ended(process)).signal == 9


async def test_probe_by_a_command_in_the_container(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """It passes by exit code 0, and the last line of its output is the detail."""
    log = LogRing()
    health = ("/bin/sh", "-c", "test -e /tmp/up && exit 0; echo not yet; exit 5")
    script = f"mkdir /tmp; {SERVER}"
    process = await containers.start(shell(podman, script, health=health), log)
    await ready(log)
    url = f"http://127.0.0.1:{free_port()}/"

    first = await process.probe(url, timeout_s=LONG_S)
    await process.run(Command(argv=("/bin/touch", "/tmp/up")), LogRing())
    second = await process.probe(url, timeout_s=LONG_S)
    late = await process.probe(url, timeout_s=0.001)
    process.kill()
    await ended(process)

    assert (first.is_ok, first.detail) == (False, "exit code 5: not yet")
    assert second.is_ok
    assert (late.is_ok, late.detail) == (False, "timeout")


async def test_server_on_a_published_port_is_probed(
    containers: ContainerLauncher, podman: Podman
) -> None:
    """The listener of a container counts as the model's, through the bridge too."""
    port = free_port()
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=80, bind='0.0.0.0')"
    server = command(
        podman, "/usr/bin/python3", "-c", serve, network="", publish=(f"127.0.0.1:{port}:80",)
    )
    if shutil.which("python3", path="/usr/bin") is None:
        pytest.skip("NOT TESTED: no /usr/bin/python3 for the container")
    process = await containers.start(server, LogRing())
    url = f"http://127.0.0.1:{port}/"
    with anyio.fail_after(LONG_S):
        while not (await process.probe(url, timeout_s=5)).is_ok:  # noqa: ASYNC110
            await anyio.sleep(0.05)
    process.kill()
    assert (await ended(process)).signal == 9


# ---- engines that fail


async def test_name_without_a_container_is_freed(
    containers: ContainerLauncher, podman: Podman, tmp_path: Path
) -> None:
    """A creation that was killed leaves a name of ours that cannot be inspected."""
    blind = f'case "$*" in *inspect*) test -e {tmp_path}/seen || {{ touch {tmp_path}/seen; exit 1; '
    engine = wrapper(tmp_path, podman, blind + '};; esac\npodman "$@"')
    name = f"swapchart-{OWNER[:8]}-m"
    podman.run("create", "--name", name, "--pull", "never", IMAGE, "/x")
    process = await containers.start(shell(podman, engine=engine), LogRing())
    process.kill()

    assert (await ended(process)).signal == 9
    assert process.name == name


def wrapper(folder: Path, podman: Podman, script: str) -> ContainerEngine:
    """Return an engine that runs *script* first, which may print in place of podman or edit it."""
    path = folder / "podman-wrapper"
    words = " ".join(podman.command)
    path.write_text(f'#!/bin/sh\npodman() {{ command {words} "$@"; }}\n{script}\n')
    path.chmod(0o755)
    return ContainerEngine(command=(str(path),), is_podman=True)


async def test_container_whose_process_is_hidden_is_signaled_by_the_engine(
    containers: ContainerLauncher, podman: Podman, tmp_path: Path
) -> None:
    """As with an engine on another machine, whose process ids mean nothing here."""
    hide = 'case "$*" in *inspect*) podman "$@" | sed \'s/"Pid":[0-9]*/"Pid":1/\';; '
    engine = wrapper(tmp_path, podman, hide + '*) podman "$@";; esac')
    log = LogRing()
    process = await containers.start(shell(podman, engine=engine), log)
    await ready(log)
    assert process.pid == 0
    assert process.pids() == ()
    assert await process.presence() == "alive"
    process.terminate()
    assert await ended(process) == Exit(code=3)

    process = await containers.start(shell(podman, "exec sleep 99", engine=engine), log)
    process.kill()
    process.kill()
    assert (await ended(process)).signal in (9, None)


async def test_container_that_the_kernel_killed_ran_out_of_memory(
    containers: ContainerLauncher, podman: Podman, tmp_path: Path
) -> None:
    """The engine says so; on this machine a wrapper does."""
    tell = 'case "$*" in *inspect*) podman "$@" | sed \'s/"OOMKilled":false/"OOMKilled":true/\';; '
    engine = wrapper(tmp_path, podman, tell + '*) podman "$@";; esac')
    process = await containers.start(shell(podman, "exec sleep 99", engine=engine), LogRing())
    os.kill(process.pid, signal.SIGKILL)

    assert await ended(process) == Exit(signal=9, out_of_memory=True)


async def test_container_is_lost_with_its_engine(
    containers: ContainerLauncher, podman: Podman, tmp_path: Path
) -> None:
    """If nothing says whether it runs, its exit is not certain; the engine is back later."""
    down = tmp_path / "down"
    script = (
        f'test -e {down} && {{ echo "Cannot connect to the Docker daemon"; exit 1; }}\n'
        'case "$*" in *inspect*) podman "$@" | sed \'s/"Pid":[0-9]*/"Pid":1/\';; '
        '*) podman "$@";; esac'
    )
    engine = wrapper(tmp_path, podman, script)
    log = LogRing()
    process = await containers.start(shell(podman, engine=engine), log)
    await ready(log)
    down.touch()
    assert await process.presence() == "unknown"
    with pytest.raises(EngineError, match="podman-wrapper does not respond: Cannot connect"):
        await containers.start(shell(podman, engine=engine, label="other"), LogRing())
    kill_client(process)
    found = await ended(process)
    down.unlink()
    podman.run("rm", "--force", "--time", "0", process.name)

    assert (found.certain, found.reason) == (False, "engine-lost")
    assert str(found) == "its engine was lost; the process may still run"
