"""A user with a working directory, a home, and engines in PATH, who runs commands."""

from __future__ import annotations

import secrets
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .children import Child
from .net import LONG_S, wait_until
from .terminal import Terminal

RUN = (sys.executable, "-m", "swapchart", "run")
FAST = "--prefill-tokens-per-second 0 --tokens-per-second 0"
_MARKER = "SWAPCHART_TEST"


@dataclass
class Place:
    """A user with a working directory, a home, and engines that are demo servers.

    Attributes:
        folder: Working directory.
        bin: The only folder in PATH.
        env: Variables of commands.
        marker: In the environment of all processes.
    """

    folder: Path
    bin: Path
    env: dict[str, str]
    marker: str = field(default_factory=lambda: secrets.token_hex(8))

    def engine(self, name: str, script: str) -> None:
        """Put a program into PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def llama_server(self, options: str = FAST) -> None:
        """Put a demo server into PATH that is called llama-server."""
        demo = f"{sys.executable} -m swapchart.adapters.demo --alias tiny {options}"
        self.engine("llama-server", f'exec {demo} "$@"')

    def run(self, *arguments: str, typed: str = "") -> tuple[int, str, str]:
        """Run the command without a terminal; return its exit code and what it printed."""
        done = subprocess.run(
            [*RUN, *arguments], cwd=self.folder, env=self._variables(), input=typed,
            capture_output=True, text=True, timeout=LONG_S, check=False,
        )  # fmt: skip
        self.assert_nothing_left()
        return done.returncode, done.stdout, done.stderr

    def terminal(self, *arguments: str, command: tuple[str, ...] = RUN) -> Terminal:
        """Run the command in a terminal."""
        return Terminal([*command, *arguments], cwd=self.folder, env=self._variables())

    def child(self, *arguments: str) -> Child:
        """Run the command in the background."""
        return Child([*RUN, *arguments], cwd=self.folder, env=self._variables())

    def _variables(self) -> dict[str, str]:
        return {**self.env, _MARKER: self.marker}

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that commands have started, themselves included."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARKER) == self.marker:
                    found.append(process)
        return found

    def assert_nothing_left(self) -> None:
        """Wait until all processes of commands have ended."""
        wait_until(lambda: not self.processes(), LONG_S, what=lambda: f"none of {self.processes()}")

    def close(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


def make_place(folder: Path) -> Place:
    """Return a user who has nothing but a demo server that is called llama-server."""
    work, programs = folder / "work", folder / "bin"
    for each in (work, programs, folder / "home", folder / "tmp"):
        each.mkdir()
    env = {
        "HOME": str(folder / "home"), "PATH": str(programs), "TMPDIR": str(folder / "tmp"),
        "XDG_CONFIG_HOME": "", "SWAPCHART_CONFIG": "", "SWAPCHART_API_KEY": "",
        "SWAPCHART_URL": "http://127.0.0.1:1", "SWAPCHART_STATE_DIR": str(folder / "state"),
        "OLLAMA_MODELS": "",
    }  # fmt: skip
    found = Place(work, programs, env)
    found.llama_server()
    return found
