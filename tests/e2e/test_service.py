"""The unit of `swapchart service install`, run as systemd would: a real notify socket, a stop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tools import shown
from tools.documents import PAGES, blocks, commands
from tools.net import LONG_S, free_port
from tools.notify_socket import Systemd
from tools.swapchart_process import Serve
from tools.units import settings, words_of

from swapchart.adapters.cli.service.install import next_commands

pytestmark = pytest.mark.slow

_COMMAND = Path(sys.executable).with_name("swapchart")


def test_service_unit_starts_reloads_and_stops_the_proxy(serve: Serve, tmp_path: Path) -> None:
    """With nothing but the unit: ready, reload, a model, a stop with code 0, and no restart."""
    home = tmp_path / "a home, 100 %n $HOME"
    home.mkdir()
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "SWAPCHART_STATE_DIR": str(home / "s")}
    config = home / "config.yaml"
    config.write_text('models: {m: {cmd: "swapchart demo-server --model m --port ${PORT}"}}')
    listen = ["--listen", f"127.0.0.1:{free_port()}"]
    printed = subprocess.run(
        [_COMMAND, "service", "install", "--user", "--print", "--config", config, *listen],
        env=env, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    unit = settings(printed)
    systemd = Systemd(tmp_path / "notify")
    watchdog = f"{unit['WatchdogSec']}000000"
    argv = ["env", "-C", unit["WorkingDirectory"].replace("%%", "%")]
    argv += [*words_of(unit["Environment"]), *words_of(unit["ExecStart"])]
    env |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": watchdog}
    proxy = serve(argv=argv, env=env)
    assert unit["Type"] == "notify"
    assert systemd.hear() == "READY=1"
    assert proxy.chat("m").status == 200
    subprocess.run(["sh", "-c", unit["ExecReload"]], env={"MAINPID": str(proxy.pid)}, check=True)
    assert proxy.wait_said("reload (SIGHUP)")

    assert proxy.stop(float(unit["TimeoutStopSec"])) == 0
    assert {*systemd.hear_until("STOPPING=1")} <= {"WATCHDOG=1"}
    systemd.close()
    config.write_text("models: 1")
    again = subprocess.run(
        words_of(unit["ExecStart"]), env=env, capture_output=True, timeout=LONG_S, check=False
    )
    assert str(again.returncode) in unit["RestartPreventExitStatus"].split()
    assert b"config.yaml:1:9: error" in again.stderr


@pytest.mark.parametrize(("page", "command"), shown.items(shown.SERVICE))
def test_docs_service_command_prints_a_unit(page: str, command: str, tmp_path: Path) -> None:
    """Each command of the pages makes a unit with the configuration that it names or finds."""
    keep = "keepModels: true\n" if "--keep-models" in command else ""
    (tmp_path / "config.yaml").write_text(keep + blocks(PAGES["getting-started.md"], "yaml")[0])
    command = command.replace("sudo ", "").replace("/etc/swapchart.yaml", "config.yaml")
    path = f"{_COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{command} --print"], cwd=tmp_path, check=True,
        env={**os.environ, "PATH": path, "HOME": str(tmp_path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    unit = settings(done.stdout.partition("# swapchart.socket")[0])

    assert f" serve --config {tmp_path}/config.yaml" in unit["ExecStart"]
    assert ("User" in unit) == ("--user" not in command)


def test_docs_next_commands_are_those_that_are_printed() -> None:
    """The page has what `service install` says, but for the command that shows the log."""
    said = next_commands(is_user=True)

    assert [line for line in said if not line.startswith("journalctl")] == [
        line for line in commands(PAGES["operations.md"]) if line in said
    ]
