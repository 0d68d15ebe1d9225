"""`swapchart service install`: the unit, as text and as systemd sees it."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.net import LONG_S
from tools.units import settings, words_of

from swapchart.adapters.cli import main
from swapchart.adapters.cli.defaults import EXIT_CONFIG
from swapchart.adapters.cli.parsers import build_parser
from swapchart.adapters.cli.service import install
from swapchart.adapters.cli.service.command_line import search_path, serve_words
from swapchart.adapters.cli.service.unit import Unit, UnitError

CONFIG = "models: {a: {cmd: 'swapchart demo-server --model a --port ${PORT}'}}\n"
FILE = "systemd/user/swapchart.service"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory whose path has characters that a unit must quote; its configuration."""
    home = tmp_path / "a home, 100 %n $HOME"
    for name in ("SWAPCHART_CONFIG", "XDG_CONFIG_HOME", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(install, "_SYSTEM", tmp_path / "system")
    monkeypatch.setattr(install, "_SYSTEM_VARIABLES", tmp_path / "variables")
    config = home / ".config/swapchart/config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return home


def test_service_install_writes_a_unit_of_the_user_once(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The unit comes with the next commands; an existing one is overwritten only with --force."""
    assert main(["service", "install", "--user"]) == 0

    path = home / ".config" / FILE
    text = path.read_text()
    said = capsys.readouterr().out
    assert said.startswith(f"wrote {path}\nnext:\n  systemctl --user daemon-reload\n")
    assert "  systemctl --user enable --now swapchart\n" in said
    assert settings(text)["WantedBy"] == "default.target"
    assert settings(text)["RestartPreventExitStatus"] == f"{EXIT_CONFIG} 3"
    assert "User" not in settings(text)
    assert "ProtectSystem" not in settings(text)  # needs a user name space in a user's manager

    path.write_text("mine")
    assert main(["service", "install", "--user"]) == 1
    assert capsys.readouterr().err == (
        f"swapchart: {path} exists; use --force to overwrite it, or --print to see the unit\n"
    )
    assert path.read_text() == "mine"
    assert main(["service", "install", "--user", "--force"]) == 0
    assert path.read_text() == text


def test_service_install_prints_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install", "--print"]) == 0

    unit = settings(capsys.readouterr().out)
    assert unit["User"] == getpass.getuser()
    assert unit["WantedBy"] == "multi-user.target"
    assert unit["ExecStart"].endswith(" --state-dir /var/lib/swapchart/state")
    assert unit["ProtectSystem"] == "full"
    assert not list(home.parent.rglob("swapchart.service"))


@pytest.mark.parametrize(
    ("arguments", "config", "message"),
    [
        (["--config", "nowhere.yaml"], CONFIG, "nowhere.yaml: error: "),
        (["--user"], "models: {a: {cmd: [}}", "config.yaml:1:"),
        (["--user", "--listen", "0.0.0.0:80"], CONFIG, "0.0.0.0:80 can be reached"),
        (["--user", "--root-path", "/v1"], CONFIG, "--root-path: "),
        (["--run-as", "no-such-user"], CONFIG, "--run-as no-such-user: this machine has no"),
        ([], CONFIG, "system/swapchart.service cannot be written: No such file or directory; "
         "use sudo, or --user"),
        (["--user", "--config", "line\nbreak.yaml"], CONFIG, "cannot stand in a unit"),
    ],
)  # fmt: skip
def test_service_install_failure_is_one_line_and_writes_nothing(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    config: str,
    message: str,
) -> None:
    (home / ".config/swapchart/config.yaml").write_text(config)
    (home.parent / "line\nbreak.yaml").write_text(CONFIG)

    assert main(["service", "install", *arguments]) == 1

    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(home.parent.rglob("*swapchart.service*"))


def test_service_install_without_configuration_names_the_places(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".config/swapchart/config.yaml").unlink()

    assert main(["service", "install", "--user"]) == 1
    assert "swapchart: no configuration: expected --config FILE" in capsys.readouterr().err


def test_service_install_into_a_place_that_is_no_folder_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / ".config/systemd").write_text("")

    assert main(["service", "install", "--user"]) == 1
    assert capsys.readouterr().err.endswith("cannot be written: Not a directory\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root, to act as another user")
def test_service_install_for_a_user_without_access_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service would fail at its start; whether the user may is tried as that user."""
    monkeypatch.setattr(install, "program", lambda: ["/bin/true"])
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        config = folder / "config.yaml"
        config.write_text(CONFIG)
        words = ["service", "install", "--print", "--run-as", "nobody", "--config", str(config)]
        assert main(words) == 0
        assert settings(capsys.readouterr().out)["User"] == "nobody"

        config.chmod(0o600)
        assert main(words) == 1
        assert capsys.readouterr() == (
            "",
            f"swapchart: nobody, who runs the service, cannot read {config}; "
            "change the owner or the mode of the file and of the folders above it\n",
        )
        config.chmod(0o644)
        for command, problem in ((str(config), "Permission denied"), ("/bin/false", "exit code 1")):
            monkeypatch.setattr(install, "program", lambda command=command: [command])
            assert main(words) == 1
            assert f"nobody, who runs the service, cannot run {command}: {problem}; install " in (
                capsys.readouterr().err
            )


def test_service_install_names_variables_that_the_service_lacks(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell's variables are not those of a service; those of its file count for the check."""
    config = home / ".config/swapchart/config.yaml"
    config.write_text("apiKeys: ['${env.SWAPCHART_TEST_KEY}']\n" + CONFIG)
    variables = config.with_name("environment")
    assert main(["service", "install", "--user"]) == 1
    assert "SWAPCHART_TEST_KEY" in capsys.readouterr().err

    monkeypatch.setenv("SWAPCHART_TEST_KEY", "sk-1")
    assert main(["service", "install", "--user"]) == 0
    assert f"put SWAPCHART_TEST_KEY into {variables}, one" in capsys.readouterr().out

    monkeypatch.delenv("SWAPCHART_TEST_KEY")
    variables.write_text("# keys\nSWAPCHART_TEST_KEY='sk-2'\n")
    assert main(["service", "install", "--user", "--force"]) == 0
    monkeypatch.delenv("SWAPCHART_TEST_KEY", raising=False)
    assert "put " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "is_confined"),
    [
        ("swapchart demo-server --port ${PORT}", True),
        ("docker run -p ${PORT}:80 x", True),
        ("podman run -p ${PORT}:80 x", False),
        ("/usr/bin/sudo nice x ${PORT}", False),
    ],
)
def test_service_install_confines_only_what_needs_no_privileges(
    command: str,
    is_confined: bool,
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rootless podman, sudo and CUDA's setuid helper need privileges that the user lacks."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    Path("c.yaml").write_text(f"models: {{a: {{cmd: '{command}'}}}}")
    arguments = ["service", "install", "--user", "--print", "--config", "c.yaml"]
    assert main(arguments) == 0

    assert ("NoNewPrivileges=yes" in capsys.readouterr().out) == is_confined
    helper = Path("nvidia-modprobe")
    helper.touch()
    helper.chmod(0o4755)
    monkeypatch.setattr(
        shutil, "which", lambda name, path=None: str(helper) if name == helper.name else None
    )
    assert main(arguments) == 0
    assert "NoNewPrivileges" not in capsys.readouterr().out


def test_service_unit_has_each_option_of_serve(home: Path) -> None:
    """The words of the unit are parsed into what was given, so no option of `serve` is lost."""
    values: dict[str, list[str]] = {
        "--config": ["/a.yaml", "--config", "/b"], "--config-dir": ["/c"], "--listen": ["[::1]:1"],
        "--tls-cert-file": ["/d"], "--tls-key-file": ["/e"], "--server": ["uvicorn"], "--stock": [],
        "--watch-config": [], "--lenient": [], "--allow-unauthenticated": [], "--root-path": ["/x"],
        "--state-dir": ["/s"], "--log-format": ["json"],
    }  # fmt: skip
    given = [word for name, words in values.items() for word in (name, *words)]
    options = build_parser().parse_args(["service", "install", *given])
    parsed = build_parser().parse_args(serve_words(options))
    defaults = build_parser().parse_args(["serve"])

    names = set(vars(defaults)) - {"command", "run"}
    assert {name.removeprefix("--").replace("-", "_") for name in values} == names
    assert {name: getattr(parsed, name) for name in names} == {
        name: getattr(options, name) for name in names
    }
    assert [name for name in names if getattr(parsed, name) == getattr(defaults, name)] == []
    assert serve_words(argparse.Namespace(**(vars(defaults) | {"config": [Path("x")]}))) == [
        "serve", "--config", str(Path.cwd() / "x"),
    ]  # fmt: skip


def a_unit(options: list[str], stop_limit_s: float = 5.0) -> Unit:
    return Unit(
        program=["/opt/my $files/swapchart"], options=options, folder=Path("/"), search_path="/bin",
        environment_file="/e", stop_limit_s=stop_limit_s, user=None, is_confined=True,
    )  # fmt: skip


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]))))
def test_service_unit_words_are_those_that_systemd_reads(options: list[str]) -> None:
    """Whatever is printable comes back; line breaks and control characters are refused."""
    try:
        line = settings(a_unit(options).text())["ExecStart"]
    except UnitError:
        assert any(not word.isprintable() for word in options)
        return

    assert words_of(line)[1:] == options
    assert line.startswith('"/opt/my $files/swapchart"')


@pytest.mark.parametrize(("stop_limit_s", "expected"), [(0.5, 120), (105.5, 121), (600.0, 615)])
def test_service_unit_lets_the_longest_shutdown_finish(stop_limit_s: float, expected: int) -> None:
    assert settings(a_unit([], stop_limit_s).text())["TimeoutStopSec"] == str(expected)


def test_service_search_path_holds_absolute_folders_and_this_program(tmp_path: Path) -> None:
    """A relative one has no meaning in a service; an own copy of swapchart stays first."""
    own = str(Path(sys.executable).parent)
    (tmp_path / "swapchart").touch(0o755)

    assert search_path("/bin:.::bin:/usr/bin:/bin") == f"{own}:/bin:/usr/bin"
    assert search_path(f"{tmp_path}:/bin") == f"{tmp_path}:/bin"


def test_service_unit_that_keeps_models_has_a_socket(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the proxy is signaled, and its address belongs to a unit of its own."""
    config = home / ".config/swapchart/config.yaml"
    config.write_text("keepModels: true\n" + CONFIG)
    arguments = ["service", "install", "--user", "--keep-models", "--listen", "localhost:9001"]
    assert main(arguments) == 0

    folder = home / ".config/systemd/user"
    unit = settings((folder / "swapchart.service").read_text())
    sock = settings((folder / "swapchart.socket").read_text())
    assert unit["KillMode"] == "process"
    assert unit["Requires"] == unit["After"] == unit["Also"] == "swapchart.socket"
    assert sock["ListenStream"] == "127.0.0.1:9001"
    assert sock["FileDescriptorName"] == "swapchart"
    said = capsys.readouterr().out
    assert said.startswith(f"wrote {folder}/swapchart.service\nwrote {folder}/swapchart.socket\n")
    (folder / "swapchart.service").unlink()
    assert main(arguments) == 1
    assert "swapchart.socket exists" in capsys.readouterr().err
    assert not (folder / "swapchart.service").exists()


@pytest.mark.parametrize(
    ("keep", "arguments", "message"),
    [
        ("", ["--keep-models"], "--keep-models needs `keepModels: true` in the configuration"),
        ("keepModels: true\n", [], "`keepModels` is set: add --keep-models"),
        ("keepModels: {lease: 5}\napiKeys: [k]\n", ["--keep-models", "--listen", "name.lan:1"],
         "--listen name.lan:1: systemd expects an IP address"),
    ],
)  # fmt: skip
def test_service_unit_and_configuration_must_agree_on_keeping(
    home: Path, capsys: pytest.CaptureFixture[str], keep: str, arguments: list[str], message: str
) -> None:
    (home / ".config/swapchart/config.yaml").write_text(keep + CONFIG)

    assert main(["service", "install", "--user", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("manager", ["--user", "--system"])
def test_service_units_that_keep_models_are_valid_for_systemd(
    manager: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both together, as systemd reads them."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("NOT TESTED: no systemd-analyze; on Debian: apt-get install systemd")
    (home / ".config/swapchart/config.yaml").write_text("keepModels: true\n" + CONFIG)
    user = [manager] if manager == "--user" else []
    assert main(["service", "install", "--print", "--keep-models", *user]) == 0
    _, *parts = re.split(r"^# (swapchart\.\w+)$", capsys.readouterr().out, flags=re.M)
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        (home.parent / name).write_text(text)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.parent))
    paths = [str(home.parent / name) for name in parts[::2]]
    assert len(paths) == 2
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", manager, *paths], capture_output=True,
        text=True, timeout=LONG_S, check=False,
    )  # fmt: skip

    assert [line for line in done.stderr.splitlines() if "swapchart" in line] == []


@pytest.mark.parametrize("manager", ["--user", "--system"])
def test_service_unit_is_valid_for_systemd(
    manager: str, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No setting is unknown to systemd, and the program of the command is found."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("NOT TESTED: no systemd-analyze; on Debian: apt-get install systemd")
    main(["service", "install", "--print", *([manager] if manager == "--user" else [])])
    path = home.parent / "swapchart.service"
    path.write_text(capsys.readouterr().out)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home.parent))

    def problems() -> list[str]:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", manager, str(path)], capture_output=True,
            text=True, timeout=LONG_S, check=False,
        )  # fmt: skip
        return [line for line in done.stderr.splitlines() if "swapchart" in line or "Fail" in line]

    assert problems() == []
    path.write_text(path.read_text().replace("Delegate=yes", "Delegates=yes\nKillMode=none of it"))
    assert len(problems()) == 2
