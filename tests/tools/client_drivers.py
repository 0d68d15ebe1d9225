"""Libraries of other projects as clients: what is installed, and a process that drives each.

``.ci/clients`` installs what is not among the packages of the tests, into ``.clients/``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .net import LONG_S

_ROOT = Path(__file__).parents[2]
#: Where .ci/clients installs.
INSTALLED = _ROOT / ".clients"
_DRIVERS = _ROOT / "tests" / "clients" / "drivers"
KEY = "sk-example"


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library that calls models.

    Attributes:
        name: Name in the table.
        driver: File of `tests/clients/drivers` that drives it.
        package: The package that must be installed.
        does: What it has, of ``listed``, ``chat``, ``stream``, ``tools`` and ``embeddings``.
        place: Folder of ``.clients`` that it is installed in; empty means the tests' environment.
        argument: Further argument of the driver.
        is_light: CI tests it; the others are for ``./dev clients``.
    """

    name: str
    driver: str
    package: str
    does: frozenset[str]
    place: str = ""
    argument: str = ""
    is_light: bool = True

    def __str__(self) -> str:
        return self.name


_CHAT = frozenset({"chat", "stream", "tools"})
_ALL = _CHAT | {"embeddings", "listed"}
LIBRARIES = (
    Library(name="openai (Python)", driver="openai_python.py", package="openai", does=_ALL),
    Library(
        name="openai (Node)", driver="openai_node.mjs", package="openai", does=_ALL, place="node"
    ),
    Library(
        name="anthropic (Python)", driver="anthropic_python.py", package="anthropic",
        does=_CHAT | {"listed"},
    ),
    Library(
        name="@anthropic-ai/sdk (Node)", driver="anthropic_node.mjs", package="@anthropic-ai/sdk",
        does=_CHAT | {"listed"}, place="node",
    ),
    Library(
        name="ai, @ai-sdk/openai-compatible", driver="ai_sdk.mjs",
        package="@ai-sdk/openai-compatible", does=_CHAT | {"embeddings"}, place="node",
        argument="openai",
    ),
    Library(
        name="ai, @ai-sdk/anthropic", driver="ai_sdk.mjs", package="@ai-sdk/anthropic", does=_CHAT,
        place="node", argument="anthropic",
    ),
    Library(name="ollama (Python)", driver="ollama_python.py", package="ollama", does=_ALL),
    Library(
        name="litellm", driver="litellm_python.py", package="litellm", does=_ALL, place="python",
        is_light=False,
    ),
    Library(
        name="langchain-openai", driver="langchain_python.py", package="langchain_openai",
        does=_CHAT | {"embeddings"}, place="python", is_light=False,
    ),
)  # fmt: skip


def version(library: Library) -> str:
    """Return the installed version of *library*; empty if it is not installed."""
    if library.place == "node":
        path = INSTALLED / "node" / "node_modules" / library.package / "package.json"
        return str(json.loads(path.read_text())["version"]) if path.exists() else ""
    python = python_of(library)
    if not python.exists():
        return ""
    code = f"from importlib.metadata import version; print(version({library.package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def python_of(library: Library) -> Path:
    """Return the interpreter of the environment that *library* is installed in."""
    return INSTALLED / library.place / "bin" / "python" if library.place else Path(sys.executable)


class Driver:
    """One process that drives *library* against a proxy; a context manager.

    Args:
        library: The library.
        base: URL of the proxy, without a path.
        folder: An empty folder: its home.

    Raises:
        pytest.skip.Exception: It is not installed.
    """

    def __init__(self, library: Library, base: str, folder: Path) -> None:
        if not version(library):
            skip_missing(library.name, is_light=library.is_light)
        for path in _DRIVERS.glob("*"):
            shutil.copy(path, folder)
        argv = [str(python_of(library)), "-P", library.driver]
        env = {**os.environ, "HOME": str(folder), "NO_PROXY": "*", "no_proxy": "*"}
        if library.place == "node":
            (folder / "node_modules").symlink_to(INSTALLED / "node" / "node_modules")
            argv = ["node", library.driver]
        else:
            env["PYTHONPATH"] = str(folder)
        arguments = [base, KEY, *([library.argument] if library.argument else [])]
        self._errors = (folder / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            [*argv, *arguments], cwd=folder, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def call(self, do: str, **order: str) -> dict[str, Any]:
        """Carry out one order, within a minute, and return its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        limit = threading.Timer(60 + LONG_S, self._process.kill)
        limit.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **order}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        finally:
            limit.cancel()
        if not line:
            self._errors.seek(0)
            raise AssertionError(f"the driver has ended:\n{self._errors.read()[-3000:]}")
        result: dict[str, Any] = json.loads(line)
        return result


def skip_missing(name: str, *, is_light: bool) -> None:
    """Skip the test of a client that is not installed; in CI, a light one fails it."""
    if is_light and os.environ.get("REQUIRE_CLIENTS"):
        pytest.fail(f"{name} is not installed, and REQUIRE_CLIENTS is set")
    pytest.skip(f"{name} is not installed; ./dev clients installs it")
