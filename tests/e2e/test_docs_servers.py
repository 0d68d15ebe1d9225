"""Servers as the documents start, signal and configure them; only addresses and paths differ."""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tools import shown, tls
from tools.documents import DOCUMENTS, PAGES, blocks
from tools.net import LONG_S, free_port, wait_until
from tools.notify_socket import Systemd
from tools.swapchart_process import Edited, Serve, demo_model

from swapchart.adapters.cli.service.unit import Unit

pytestmark = pytest.mark.slow

_PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
_KEY = "sk-of-the-tests"


def config_for(page: str, command: str) -> str:
    """Return the configuration of *page* for *command*: one with keys if others can reach it.

    A page without configurations is read after docs/getting-started.md.
    """
    configurations = blocks(DOCUMENTS[page], "yaml")
    configurations = configurations or blocks(DOCUMENTS["docs/getting-started.md"], "yaml")
    with_keys = [text for text in configurations if "apiKeys" in text]
    return with_keys[0] if "0.0.0.0" in command else configurations[0]


def on_port(command: str, port: int) -> str:
    """Return *command* so that it listens on *port* of the loopback interface."""
    if command.startswith("SWAPCHART_CONFIG"):
        return re.sub(r"^(\S+) ", r"\1 exec ", command) + f" --bind 127.0.0.1:{port}"
    if "listen" not in command:
        command += " --listen 127.0.0.1:0"
    return "exec " + re.sub(r"(-listen) \S+", rf"\1 127.0.0.1:{port}", command)


def status(url: str, **headers: str) -> int:
    """Return the status of a GET, 0 if there is no response; certificates are not checked."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=LONG_S, context=context) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize(("page", "command"), shown.items(shown.SERVES))
def test_docs_serve_command_serves_until_it_is_stopped(
    page: str, command: str, serve: Serve
) -> None:
    """Each command that serves responds with a configuration of its page, and ends with code 0."""
    text = config_for(page, command)
    variables = dict.fromkeys(re.findall(r"\$\{env\.(\w+)\}", text), _KEY)
    port = free_port()
    scheme = "https" if "--tls-cert-file" in command else "http"
    certificate, _, key = tls.PEM.partition("-----BEGIN PRIVATE")
    files = f"echo {shlex.quote(certificate)} >server.crt; "
    files += f"echo {shlex.quote(f'-----BEGIN PRIVATE{key}')} >server.key; "
    proxy = serve(
        config=text, argv=["bash", "-c", files + on_port(command, port)], wait=False,
        env={"PATH": _PATH, **variables},
    )  # fmt: skip
    health = f"{scheme}://127.0.0.1:{port}/health"
    wait_until(
        lambda: proxy.process.poll() is not None or status(health), LONG_S,
        what="a response or the end",
    )  # fmt: skip

    assert status(health) == 200, proxy.output()
    models = f"{scheme}://127.0.0.1:{port}/v1/models"
    assert status(models) == (401 if "apiKeys" in text else 200)
    if variables:
        assert status(models, Authorization=f"Bearer {_KEY}") == 200


def unit_of(folder: Path) -> tuple[str, dict[str, str]]:
    """Return the unit of docs/operations.md with paths below *folder*, and its section Service."""
    (text,) = blocks(PAGES["operations.md"], "ini")
    text = text.replace("/usr/local/bin/", f"{Path(sys.executable).parent}/")
    text = text.replace("/etc/", f"{folder}/").replace("/var/lib/swapchart", str(folder))
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return text, dict(parser["Service"])


def test_docs_systemd_unit_starts_reloads_and_stops(serve: Serve, tmp_path: Path) -> None:
    """Its commands do in order what systemd makes of them: notify, watchdog, reload, stop."""
    _, service = unit_of(tmp_path)
    (tmp_path / "swapchart.yaml").write_text(blocks(PAGES["getting-started.md"], "yaml")[0])
    systemd = Systemd(tmp_path / "notify")
    watchdog = str(int(service["WatchdogSec"]) * 1_000_000)
    start = service["ExecStart"] + f" --listen 127.0.0.1:{free_port()}"
    env = {"PATH": _PATH, "NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": watchdog}
    proxy = serve(argv=shlex.split(start), env=env)
    assert service["Type"] == "notify"
    assert systemd.hear() == "READY=1"
    subprocess.run(
        ["sh", "-c", service["ExecReload"]], check=True,
        env={"MAINPID": str(proxy.pid), "PATH": _PATH},
    )  # fmt: skip
    assert proxy.wait_said("reload (SIGHUP)")
    assert (tmp_path / "state" / "journal.db").exists()
    assert proxy.stop(float(service["TimeoutStopSec"])) == 0

    assert {*systemd.hear_until("STOPPING=1")} <= {"WATCHDOG=1"}
    systemd.close()


def test_docs_systemd_unit_has_the_settings_that_the_page_explains(tmp_path: Path) -> None:
    """Each setting of the table is in the unit with the value that the table has."""
    _, service = unit_of(tmp_path)
    rows = re.findall(r"^\| `(\w+)(?:=(\w+))?` \| ", PAGES["operations.md"], re.MULTILINE)
    explained = {name: value for name, value in rows if name[0].isupper()}

    assert set(explained) >= {"TimeoutStopSec", "OOMPolicy", "Delegate", "WatchdogSec", "KillMode"}
    assert {name: service[name] for name in explained if explained[name]} == {
        name: value for name, value in explained.items() if value
    }
    assert set(explained) <= set(service)


def test_docs_systemd_unit_is_what_is_installed() -> None:
    """The page has the unit that `service install` makes of the page's values."""
    state = "/var/lib/swapchart/state"
    unit = Unit(
        program=["/usr/local/bin/swapchart"],
        options=["serve", "--config", "/etc/swapchart.yaml", "--state-dir", state],
        folder=Path("/etc"), search_path="/usr/local/bin:/usr/bin:/bin",
        environment_file="/etc/default/swapchart", stop_limit_s=60, user="swapchart",
        is_confined=True,
    )  # fmt: skip

    assert unit.text() in blocks(PAGES["operations.md"], "ini")


def test_docs_systemd_unit_is_valid(tmp_path: Path) -> None:
    """Systemd finds nothing wrong with it."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("NOT TESTED: no systemd-analyze; on Debian: apt-get install systemd")
    text, _ = unit_of(tmp_path)
    path = tmp_path / "swapchart.service"
    path.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True,
        timeout=LONG_S, check=False,
    )  # fmt: skip
    about = [line for line in done.stderr.splitlines() if "swapchart.service" in line]

    assert about == []


@pytest.mark.parametrize("command", ["kill -HUP PID", "mv new.yaml config.yaml"])
def test_docs_edited_file_is_read_again(command: str, serve: Serve) -> None:
    """After each command of the page about reloads the new model is there."""
    assert f"`{command}`" in PAGES["configuration.md"]
    options = ["--watch-config"] if command.startswith("mv") else []
    edited = Edited(serve, {"m": demo_model("m")}, *options)
    value = {**edited.value, "models": {**edited.value["models"], "n": demo_model("n")}}
    folder = edited.proxy.folder
    new = folder / ("new.yaml" if command.startswith("mv") else "config.yaml")
    new.write_text(json.dumps(value))
    subprocess.run(
        command.replace("PID", str(edited.proxy.pid)), shell=True, cwd=folder, check=True
    )

    wait_until(lambda: edited.reloads() == 1, LONG_S, what="one reload")
    assert edited.proxy.get("/api/config")["models"] == ["m", "n"]


def test_docs_plan_has_the_shape_that_is_shown(serve: Serve) -> None:
    """The plan of a change of `cmd` and `queue` has the keys of the page and their types."""
    shown_plan = json.loads(blocks(PAGES["configuration.md"], "json")[0])
    edited = Edited(serve, {"qwen": demo_model("qwen"), "llama": demo_model("llama")})
    assert edited.proxy.chat("qwen").status == 200
    edited.value["models"]["qwen"] = demo_model("qwen", "--quiet")
    edited.value["queue"] = {"limit": 7}
    edited.write()
    answer = edited.proxy.call("POST", "/api/config/plan")
    assert answer.status == 200
    plan = answer.json()
    report = edited.reload()

    assert plan | {"text": "..."} == shown_plan | {
        "models": [{**shown_plan["models"][0], "effect": plan["models"][0]["effect"]}]
    }
    assert re.match("drains and stops ", plan["models"][0]["effect"])
    assert {*report} >= {"plan", "ok", "why", "seconds", "problems"}
    assert report["plan"] == plan


def test_docs_key_is_given_as_its_hash(serve: Serve) -> None:
    """What the command prints, behind `sha256:`, admits the key."""
    command = "printf %s KEY | sha256sum"
    assert command.replace("|", "\\|") in PAGES["security.md"]
    printed = subprocess.run(
        command.replace("KEY", _KEY), shell=True, check=True, capture_output=True, text=True
    ).stdout.split()[0]
    assert printed == hashlib.sha256(_KEY.encode()).hexdigest()
    proxy = serve({"m": demo_model("m")}, config={"apiKeys": [f"sha256:{printed}"]})

    assert proxy.call("GET", "/v1/models").status == 401
    proxy.headers = {"Authorization": f"Bearer {_KEY}"}
    assert proxy.call("GET", "/v1/models").status == 200
