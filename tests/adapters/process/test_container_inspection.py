"""What container engines print: states, exits and errors, as seen from Podman 4.3 and Docker 28."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.adapters.process.container.inspection import (
    Inspection,
    exit_of,
    is_name_taken,
    launch_error,
    parse_inspection,
    reason,
)
from swapchart.runtime import EngineError, Exit, LaunchError, SpecError

ID = "f42eb898f9a2246126a7caf175cc680e824ac8ddaf6ee57104af1fd9e5e65ee6"


def printed(state: dict[str, Any], config: dict[str, Any]) -> str:
    noise = 'time="2026-01-01T00:00:00Z" level=warning msg="swapchart: noise"\n'
    return f"{noise}swapchart:{json.dumps([state, config])}\n"


@pytest.mark.parametrize(
    ("state", "config", "expected"),
    [
        (
            {"Status": "running", "Running": True, "Pid": 42, "ExitCode": 0},
            {"StopSignal": 2, "Labels": {"a": "b"}},  # podman numbers signals
            Inspection(is_running=True, pid=42, stop_signal=signal.SIGINT, labels={"a": "b"}),
        ),
        (
            {"Status": "created", "Running": False, "Pid": 0, "ExitCode": 127, "Error": "exec"},
            {"StopSignal": "SIGQUIT", "Labels": None},  # docker names them
            Inspection(
                is_running=False, is_new=True, code=127, error="exec", stop_signal=signal.SIGQUIT
            ),
        ),
        (
            {"Status": "exited", "Running": False, "ExitCode": 137, "OOMKilled": True},
            {"Labels": {}},
            Inspection(is_running=False, code=137, out_of_memory=True),
        ),
        (
            {"Status": "paused", "Running": False, "Paused": True, "Pid": 7, "ExitCode": 0},
            {"StopSignal": "nonsense", "Labels": {}},
            Inspection(is_running=True, pid=7),
        ),
    ],
)  # fmt: skip
def test_inspection_is_read_from_both_engines(
    state: dict[str, Any], config: dict[str, Any], expected: Inspection
) -> None:
    """Warnings of the engine before it do no harm."""
    assert parse_inspection(printed(state, config)) == expected


@given(st.text())
def test_inspection_of_other_output_is_none(text: str) -> None:
    """An engine that does not respond prints no state, whatever else it prints."""
    assert parse_inspection(text) is None
    assert parse_inspection(f"swapchart:{text}") is None


@pytest.mark.parametrize(
    ("code", "oom", "expected", "words"),
    [
        (0, False, Exit(code=0), "exit code 0"),
        (3, False, Exit(code=3), "exit code 3"),
        (137, False, Exit(signal=9), "killed by signal 9"),
        (137, True, Exit(signal=9, out_of_memory=True), "killed by signal 9 by the kernel, out of"),
        (143, False, Exit(signal=15), "killed by signal 15"),
        (139, False, Exit(code=139), "exit code 139"),
        (130, False, Exit(code=130), "exit code 130"),
        (1, True, Exit(code=1, out_of_memory=True), "exit code 1; the kernel killed a process"),
        (0, True, Exit(code=0), "exit code 0"),
        (255, False, Exit(code=255), "exit code 255"),
    ],
)
def test_exit_code_of_sigkill_and_sigterm_stands_for_the_signal(
    code: int, oom: bool, expected: Exit, words: str
) -> None:
    """Other codes stay codes, since a server may end with them by itself."""
    found = Inspection(is_running=False, code=code, out_of_memory=oom).exit

    assert found == expected == exit_of(code, out_of_memory=oom)
    assert str(found).startswith(words)


#: Program, output, exit code -> kind of error and words of it.
FAILURES: list[tuple[str, str, int | None, type[LaunchError], str]] = [
    ("podman", "Error: img: image not known", 125, SpecError,
     "the image img is not on this machine: pull it with `podman pull img`"),
    ("docker", "Error response from daemon: No such image: img", 1, SpecError,
     "the image img is not on this machine: pull it with `docker pull img`"),
    ("docker", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker "
     "daemon running?", 1, EngineError, "docker does not respond: Cannot connect to the Docker"),
    ("docker", "permission denied while trying to connect to the Docker daemon socket", 1,
     EngineError, "docker does not respond: permission denied"),
    ("podman", f"Error: unable to start container {ID}: runc: runc create failed: unable to start "
     'container process: exec: "/nope": stat /nope: no such file or directory: OCI runtime '
     "attempted to invoke a command that was not found", 125, SpecError,
     "podman cannot run img: unable to start container f42eb898f9a2: runc"),
    ("docker", 'docker: Error response from daemon: failed to create task: exec: "/nope": stat '
     "/nope: no such file", 127, SpecError, "docker cannot run img: failed to create task"),
    ("podman", "hello\n", 126, SpecError, "podman cannot run img: hello"),
    ("podman", "Error: unknown flag: --wrong\nSee 'podman create --help'", 125, SpecError,
     "podman cannot run img: unknown flag: --wrong"),
    ("podman", "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all", 125,
     SpecError, "podman cannot run img: setting up CDI devices"),
    ("docker", "Error response from daemon: could not select device driver \"\" with capabilities: "
     "[[gpu]]", 125, SpecError, "docker cannot run img: could not select device driver"),
    ("docker", "Error response from daemon: driver failed: Bind for 127.0.0.1:80 failed: port is "
     "already allocated", 125, EngineError, "docker cannot publish the port: driver failed"),
    ("podman", "Error: rootlessport listen tcp 127.0.0.1:80: bind: address already in use", 126,
     EngineError, "podman cannot publish the port"),
    ("podman", "Error: no space left on device", 125, EngineError,
     "podman cannot run img: no space left on device"),
    ("podman", "", 125, EngineError, "podman cannot run img: it ended with exit code 125"),
    ("podman", "", None, EngineError, "podman did not respond in time"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "output", "code", "kind", "words"), FAILURES)
def test_launch_error_is_permanent_only_for_what_a_retry_cannot_mend(
    engine: str, output: str, code: int | None, kind: type[LaunchError], words: str
) -> None:
    """It is one line that names the engine, the image and what to do."""
    error = launch_error(engine, "img", output, code)

    assert type(error) is kind
    assert error.permanent == (kind is SpecError)
    assert str(error).startswith(words)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "output",
    [
        f'Error: creating container storage: the container name "x" is already in use by {ID}. You '
        "have to remove that container to be able to reuse that name: that name is already in use",
        'Error response from daemon: Conflict. The container name "/x" is already in use by '
        f'container "{ID}".',
    ],
)
def test_taken_name_is_recognized_in_both_engines(output: str) -> None:
    """Other errors are not taken for one."""
    assert is_name_taken(output)
    assert not any(is_name_taken(other) for _, other, _, _, _ in FAILURES)


def test_reason_is_the_line_of_the_error_without_prefixes() -> None:
    """Log lines of podman and hints to its help are left out, and ids are shortened."""
    text = f'time="x" level=warning msg="a"\nError: cannot remove {ID}\nSee \'podman --help\'\n'

    assert reason(text) == "cannot remove f42eb898f9a2"
    assert reason("") == ""
    assert reason("just this\n\n") == "just this"
