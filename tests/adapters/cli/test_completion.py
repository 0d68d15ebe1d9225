"""`swapchart completion`: bash accepts the script and completes with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import bare_check
import pytest
from tools import shown

from swapchart.adapters.cli import main

needs_shtab = pytest.mark.skipif(
    importlib.util.find_spec("shtab") is None,
    reason="NOT TESTED: no shtab; ./dev setup installs it",
)
_WORDS = """
source ./script
COMP_WORDS=(swapchart "$@")
COMP_CWORD=$#
_shtab_swapchart
printf '%s\\n' "${COMPREPLY[@]}"
"""


def bash(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        ["bash", "--norc", *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@needs_shtab
def test_completion_in_bash_completes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, commands below them, options, choices, files and folders."""
    monkeypatch.setenv("SWAPCHART_API_KEY", "sk-secret")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "config.yaml").touch()
    (tmp_path / "configs").mkdir()

    def completed(*words: str) -> list[str]:
        return bash(tmp_path, "-c", _WORDS, "bash", *words)

    assert bash(tmp_path, "-n", "script") == []
    assert completed("sta") == ["status"]
    assert completed("config", "ch") == ["check"]
    assert completed("load", "--ur") == ["--url"]
    assert completed("completion", "z") == ["zsh"]
    assert completed("serve", "--server", "u") == ["uvicorn"]
    assert {*completed("config", "check", "conf")} == {"config.yaml", "configs"}
    assert completed("serve", "--config-dir", "conf") == ["configs"]
    assert {*completed("run", "conf")} == {"config.yaml", "configs"}
    assert completed("run", "--engine", "v") == ["vllm"]
    assert completed("top", "--on") == ["--once"]
    assert "sk-secret" not in (tmp_path / "script").read_text()


@needs_shtab
@pytest.mark.parametrize(("page", "command"), shown.items(shown.COMPLETION))
def test_docs_completion_command_writes_a_script(page: str, command: str, tmp_path: Path) -> None:
    target = tmp_path / command.partition(" > ~/")[2]
    target.parent.mkdir(parents=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "HOME": str(tmp_path), "PATH": path}
    subprocess.run(["bash", "-c", command], env=env, check=True)

    assert "unload" in target.read_text()
    assert target.name != "_swapchart" or target.read_text().startswith("#compdef swapchart\n")


def test_completion_without_its_package_is_one_line(tmp_path: Path) -> None:
    assert bare_check.problem(("completion", "bash"), str(tmp_path)) is None


def test_completion_for_an_unknown_shell_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["completion", "csh"])
    assert "invalid choice: 'csh'" in capsys.readouterr().err
