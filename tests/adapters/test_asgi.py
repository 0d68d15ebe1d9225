"""`create_app` as a factory of ASGI servers: an error of the user ends in a text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swapchart.adapters.app.application import Application
from swapchart.adapters.asgi import create_app
from swapchart.adapters.cli import main
from swapchart.adapters.config import ConfigProblems
from swapchart.machine import ChartError

FACTORY = "swapchart.adapters.asgi:create_app"
GOOD = "models: {a: {cmd: 's ${PORT}'}}\n"
BAD_CHART = f"{GOOD}lifecycle: {{states: {{nowhere: {{x: 1}}}}}}\n"
BAD_KEY = "models: {a: {cmd: 's ${PORT}', ttl: soon}}\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Path of the configuration, which the environment names."""
    path = tmp_path / "config.yaml"
    monkeypatch.setenv("SWAPCHART_CONFIG", str(path))
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(tmp_path / "state"))
    return path


@pytest.mark.parametrize("text", [BAD_CHART, BAD_KEY, None], ids=["lifecycle", "key", "missing"])
def test_create_app_configuration_is_wrong_ends_as_serve_does(
    config: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    """Each kind of error has the text of `swapchart serve`, in place of a traceback."""
    if text is not None:
        config.write_text(text)
    assert main(["serve", "--config", str(config), "--listen", "127.0.0.1:0"]) == 78
    said = capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        create_app()

    assert f"{ended.value.code}\n" == said
    assert "error" in said
    assert "Traceback" not in said


def test_create_app_state_directory_is_a_file_or_in_use_is_said(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither starts without its state."""
    config.write_text(GOOD)
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(config))
    with pytest.raises(SystemExit, match=f"expected a folder at {config}, found something"):
        create_app()
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(tmp_path / "state"))
    first = create_app()

    assert isinstance(first, Application)
    with pytest.raises(SystemExit, match=f"pid {os.getpid()}\\) runs with this configuration"):
        create_app()


def test_create_app_without_a_file_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names what to set."""
    monkeypatch.delenv("SWAPCHART_CONFIG", raising=False)
    with pytest.raises(SystemExit, match="SWAPCHART_CONFIG"):
        create_app()


def test_create_app_configuration_has_a_warning_prints_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `swapchart serve` does."""
    config.write_text("models: {a: {cmd: 's ${PORT}', ttll: 3}}\n")

    create_app()
    assert "ttll" in capsys.readouterr().err


def test_create_app_given_a_file_raises_what_a_program_can_catch(config: Path) -> None:
    """An embedding program does not end."""
    config.write_text(BAD_CHART)
    with pytest.raises(ChartError, match=r"lifecycle\.states\.nowhere\.x: unknown key"):
        create_app(config)
    config.write_text(BAD_KEY)
    with pytest.raises(ConfigProblems, match="ttl"):
        create_app(str(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [["hypercorn", f"{FACTORY}()", "--bind"], ["uvicorn", "--factory", FACTORY, "--port"]],
    ids=["hypercorn", "uvicorn"],
)
def test_create_app_under_a_server_bad_lifecycle_ends_without_a_traceback(
    config: Path, command: list[str]
) -> None:
    """The server prints the text and ends. hypercorn's exit code is 0 after any failed start."""
    config.write_text(BAD_CHART)
    port = "127.0.0.1:0" if command[0] == "hypercorn" else "0"
    ended = subprocess.run(
        [sys.executable, "-m", *command, port],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 1 or command[0] == "hypercorn"
    assert "error: lifecycle.states.nowhere.x: unknown key" in ended.stderr
    assert "Traceback" not in ended.stderr


#: Calls the factory as if a package were not installed.
_WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from swapchart.adapters.asgi import create_app
create_app()
"""


@pytest.mark.parametrize("missing", ["msgspec", "prometheus_client"])
def test_create_app_without_a_package_names_the_extra(config: Path, missing: str) -> None:
    """As the commands do; the module itself can be imported."""
    config.write_text(GOOD)
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT, missing],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"needs the Python package {missing}, which is not installed" in line
    assert line.endswith("pip install '.[proxy]'")
