"""Programs that call models: how docs/clients.md sets each up, and how a prompt is given to it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import recipes
from .client_drivers import INSTALLED, KEY, skip_missing

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text("utf-8")
#: Address in the blocks of the page.
_SHOWN = "127.0.0.1:8080"
_EXPORT = re.compile(r"^export (\w+)=(\S+)$", re.MULTILINE)
_LIMIT_S = 150.0


def block(heading: str, language: str) -> str:
    """Return the block of *language* in the section *heading* of docs/clients.md."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks of {language} below {heading}"
    return str(found[0])


def _opencode(folder: Path, at: str, key: str) -> Mapping[str, str]:
    (text,) = recipes.blocks("opencode", "json")
    names = ", ".join(f'"{name}": {{}}' for name in ("a", "b", "small", "none", "broken"))
    text = text.replace('"chat": {}, "titles": {}', names).replace("swapchart/chat", "swapchart/a")
    (folder / "opencode.json").write_text(_placed(text, at, key))
    return {
        "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1", "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    }  # fmt: skip


def _claude(folder: Path, at: str, key: str) -> Mapping[str, str]:
    text = _placed(block("Claude Code", "sh").replace("=chat\n", "=a\n"), at, key)
    return {
        **dict(_EXPORT.findall(text)), "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1",
    }  # fmt: skip


def _codex(folder: Path, at: str, key: str) -> Mapping[str, str]:
    home = folder / ".codex"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(_placed(block("Codex", "toml"), at, key))
    return {"CODEX_HOME": str(home), "SWAPCHART_API_KEY": key}


def _aider(folder: Path, at: str, key: str) -> Mapping[str, str]:
    return dict(_EXPORT.findall(_placed(block("aider", "sh"), at, key)))


def _placed(text: str, at: str, key: str) -> str:
    assert _SHOWN in text
    return text.replace(_SHOWN, at).replace(KEY, key)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program that takes a prompt on its command line.

    Attributes:
        name: Name in the table.
        path: Where `.ci/clients all` installs it.
        set_up: Writes its configuration into a folder, for an address and a key, and returns its
            environment.
        options: Arguments before the prompt; ``{model}`` stands for the model.
        tool: Words that make the demo server list the folder by a tool; empty means no tools.
        splits: Give the prompt word by word: it quotes one that has blanks.
    """

    name: str
    path: str
    set_up: Callable[[Path, str, str], Mapping[str, str]]
    options: Sequence[str]
    tool: str = ""
    splits: bool = False

    def __str__(self) -> str:
        return self.name

    def run(self, folder: Path, at: str, model: str, prompt: str, key: str = KEY) -> Run:
        """Give *prompt* to *model*, in *folder*, and return its output and how long it took.

        Args:
            folder: Its home and working directory.
            at: Host and port of the proxy.
            model: The model.
            prompt: Words.
            key: API key.
        """
        program = INSTALLED / self.path
        if not program.exists():
            skip_missing(self.name, is_light=False)
        words = prompt.split(" ") if self.splits else [prompt]
        argv = [str(program), *(option.format(model=model) for option in self.options), *words]
        env = {
            **os.environ, "HOME": str(folder), "PWD": str(folder), "NO_PROXY": "*",
            **self.set_up(folder, at, key),
        }  # fmt: skip
        began = time.monotonic()
        done = subprocess.run(
            argv, cwd=folder, env=env, text=True, timeout=_LIMIT_S, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return Run(done.stdout, done.returncode, time.monotonic() - began)

    def version(self) -> str:
        """Return its version; empty if it is not installed."""
        program = INSTALLED / self.path
        if not program.exists():
            return ""
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
        found = re.search(r"\d+\.\d+\.\d+", done.stdout)
        return found[0] if found else ""


@dataclass(frozen=True)
class Run:
    """One run of a program: its output, its exit code, and its duration in seconds."""

    output: str
    code: int
    seconds: float


_BIN = "programs/node_modules/.bin"
PROGRAMS = (
    Program(
        name="opencode", path=f"{_BIN}/opencode", set_up=_opencode, splits=True,
        options=["run", "--model", "swapchart/{model}"],
        tool='call bash with {"command":"ls","description":"list"}',
    ),
    Program(
        name="Claude Code", path=f"{_BIN}/claude", set_up=_claude,
        options=["-p", "--model", "{model}", "--allowedTools=Bash"],
        tool='call Bash with {"command":"ls","description":"list"}',
    ),
    Program(
        name="Codex", path=f"{_BIN}/codex", set_up=_codex,
        options=["exec", "--skip-git-repo-check", "--model", "{model}"],
        tool='call exec_command with {"cmd":"ls"}',
    ),
    Program(
        name="aider", path="aider/bin/aider", set_up=_aider,
        options=[
            "--model", "openai/{model}", "--no-git", "--yes-always", "--no-pretty",
            "--no-check-update", "--analytics-disable", "--no-show-model-warnings",
            "--no-detect-urls", "--message",
        ],
    ),
)  # fmt: skip
