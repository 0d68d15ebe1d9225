"""Parsers of the output of container engines: states, exits and errors. Pure.

Source: Docker Engine API 1.44, ContainerInspect; docker-run(1), section exit status; texts of
Podman 4.3 and Docker 28, as seen.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from ....dataclass import dataclass, field
from ....runtime.errors import EngineError, LaunchError, SpecError
from ....runtime.ports import Exit
from .arguments import MARK

_LONGEST = 300
_NO_IMAGE = re.compile(
    r"(?i)image not known|no such image|unable to find image|manifest unknown|short-name"
)
_NAME_TAKEN = re.compile(r"(?i)name \"?/?[^\" ]+\"? is already in use")
_NO_DAEMON = re.compile(
    r"(?i)cannot connect to the docker daemon|is the docker daemon running|dial unix"
    r"|permission denied while trying to connect|cannot connect to podman"
)
_PORT = re.compile(r"(?i)address already in use|port is already allocated")
_PERMANENT = re.compile(
    r"(?i)exec: \"|command (?:that was )?not found|executable file not found|unknown flag"
    r"|unknown shorthand|flag needs an argument|invalid |unresolvable cdi|no such network"
    r"|network not found|unable to find user|could not select device driver|names must match"
    r"|statfs /|bind source path does not exist|permission denied|must be absolute"
    r"|incorrect volume format"
)
_PREFIX = re.compile(
    r"^(?:Error(?: response from daemon)?|docker|podman): (?:Error response from daemon: )?"
)
_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_LOG_LINE = re.compile(r"^time=\"[^\"]*\" level=(?:debug|info|warning) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """State of a container.

    Attributes:
        is_running: Its first process runs, or it is paused.
        is_new: It was created and never started.
        pid: Process id of its first process, as the engine sees it; 0 if there is none.
        code: Exit code, 0 to 255; 0 while it runs.
        out_of_memory: The kernel killed it, out of memory.
        error: Why it could not be started; empty if it could.
        stop_signal: Number of the signal that asks it to end.
        labels: Its labels.
    """

    is_running: bool
    is_new: bool = False
    pid: int = 0
    code: int = 0
    out_of_memory: bool = False
    error: str = ""
    stop_signal: int = signal.SIGTERM
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit(self) -> Exit:
        """How it ended; 137 and 143 stand for signals."""
        return exit_of(self.code, out_of_memory=self.out_of_memory)


def exit_of(code: int, *, out_of_memory: bool = False) -> Exit:
    """Return the exit of a container with exit code *code*: 137 is SIGKILL, 143 is SIGTERM.

    Engines do not tell other signals from exit codes.
    """
    number = code - 128
    if number in (signal.SIGKILL, signal.SIGTERM):
        return Exit(signal=number, out_of_memory=out_of_memory)
    return Exit(code=code, out_of_memory=out_of_memory and code != 0)


def marked(output: str) -> Iterator[str]:
    """Yield the lines of *output* that begin with `MARK`, without it."""
    for line in output.splitlines():
        if line.startswith(MARK):
            yield line.removeprefix(MARK)


def parse_inspection(output: str) -> Inspection | None:
    """Return the state that `inspect` printed; None if it printed none."""
    for text in marked(output):
        try:
            state, config = json.loads(text)
            return Inspection(
                is_running=bool(state.get("Running") or state.get("Paused")),
                is_new=state.get("Status") in ("created", "configured", "initialized"),
                pid=int(state.get("Pid") or 0),
                code=int(state.get("ExitCode") or 0) & 255,
                out_of_memory=bool(state.get("OOMKilled")),
                error=str(state.get("Error") or ""),
                stop_signal=_signal(config.get("StopSignal")),
                labels={str(key): str(value) for key, value in (config["Labels"] or {}).items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    return None


def _signal(value: Any) -> int:
    """Return the number of a signal that Docker names (``SIGINT``) and Podman numbers."""
    text = str(value or "").upper()
    if text.isdecimal() and 0 < int(text) < signal.NSIG:
        return int(text)
    name = text if text.startswith("SIG") else f"SIG{text}"
    found = signal.Signals.__members__.get(name)
    return int(found if found is not None else signal.SIGTERM)


def reason(output: str) -> str:
    """Return the line of *output* that says what failed, without prefixes; empty if none does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not _LOG_LINE.match(line) and not line.startswith("See '")]
    telling = [line for line in lines if _PREFIX.match(line)] or lines[-1:]
    return _ID.sub(r"\1", _PREFIX.sub("", telling[0]))[:_LONGEST] if telling else ""


def is_name_taken(output: str) -> bool:
    """Return True if `create` failed since a container has that name."""
    return _NAME_TAKEN.search(output) is not None


def launch_error(engine: str, image: str, output: str, code: int | None) -> LaunchError:
    """Return the error of a `create` or `start` that failed.

    Args:
        engine: Name of the engine's program.
        image: The image.
        output: What the command printed.
        code: Its exit code; None means a signal or a time limit.
    """
    if code is None:
        why = reason(output)
        return EngineError(f"{engine} did not respond in time{': ' if why else ''}{why}")
    why = reason(output) or f"it ended with exit code {code}"
    if _NO_DAEMON.search(output):
        return EngineError(f"{engine} does not respond: {why}")
    if _NO_IMAGE.search(output):
        return SpecError(
            f"the image {image} is not on this machine: pull it with `{engine} pull {image}`, or "
            "set `container: {pull: missing}`"
        )
    if _PORT.search(output):
        return EngineError(f"{engine} cannot publish the port: {why}")
    kind = SpecError if code in (126, 127) or _PERMANENT.search(output) else EngineError
    return kind(f"{engine} cannot run {image}: {why}")
