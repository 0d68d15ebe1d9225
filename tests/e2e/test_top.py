"""`swapchart top`, in a real terminal against a real proxy."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator

import psutil
import pytest
from tools.net import LONG_S, port_block, wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model
from tools.terminal import CTRL_C, Terminal
from tools.user_place import Place

from swapchart.adapters.cli import main

pytestmark = pytest.mark.slow

TOP = (sys.executable, "-m", "swapchart", "top", "--interval", "0.2")
READY, STOPPED = r"hare +ready +0 +0 ", r"hare +stopped +0 +0 "


@pytest.fixture
def proxy(serve: Serve) -> SwapchartProcess:
    models = {
        # at the full rate a stream reaches the length of its context before it is seen
        "hare": demo_model("hare", "--load-seconds", "0.3", rate=100),
        "tortoise": demo_model("tortoise"),
        "broken": {"cmd": ["sh", "-c", "echo no such file; exit 3 # ${PORT}"]},
    }
    found = serve(models)
    found.may_log = "broken"
    return found


@pytest.fixture
def terminal(place: Place, proxy: SwapchartProcess) -> Iterator[Terminal]:
    """A terminal in which `top` runs."""
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    with place.terminal(command=TOP) as found:
        found.read_until(r"swapchart \S+ at http://\S+: 3 models, 0 in flight, 0 waiting")
        yield found


def quit_top(terminal: Terminal) -> None:
    terminal.type("q")
    assert terminal.wait() == 0
    assert terminal.is_restored()
    assert "Traceback" not in terminal.raw


def test_top_loads_and_unloads_the_selected_model(
    terminal: Terminal, proxy: SwapchartProcess
) -> None:
    """Models are in the order of their ids; arrows and j/k select, l loads, u unloads."""
    terminal.read_until(STOPPED)
    terminal.type("j")
    terminal.type("l")
    terminal.read_until(r"hare: ready after \d+\.\d s")
    terminal.read_until(READY + r".*loaded \d s ago")
    assert proxy.running()["hare"]["state"] == "ready"
    terminal.type("\x1b[B")
    terminal.type("l")
    terminal.read_until(r"tortoise: ready after")
    assert [*proxy.running()] == ["tortoise"]
    terminal.read_until(STOPPED + r".*unloaded \d s ago")
    terminal.type("u")
    terminal.read_until(r"tortoise: unloaded after")
    assert proxy.running() == {}
    terminal.type("k\x1b[A\x1b[A")
    terminal.type("l")
    terminal.read_until(r"broken: .*responded with 50\d: .*exit code 3")
    quit_top(terminal)


def test_top_shows_requests_and_rates(terminal: Terminal, proxy: SwapchartProcess) -> None:
    """In flight, waiting with the reason, and tokens per second of the last request."""
    assert proxy.chat("hare", 8).status == 200
    terminal.read_until(READY + r" +- +\d+\.\d +loaded")
    with proxy.open_stream("hare") as stream, proxy.open_chat("tortoise"):
        terminal.read_until(r"1 in flight, 1 waiting")
        terminal.read_until(r"hare +ready +1 +0 ")
        terminal.read_until(r"tortoise +stopped +0 +1 ")
        stream.close()
        terminal.read_until(r"tortoise +ready +0 +0 ")
    quit_top(terminal)


def test_top_survives_a_restart_of_the_proxy(place: Place, serve: Serve) -> None:
    """It says that the proxy is not reachable, keeps the last state, and goes on by itself."""
    port = port_block()
    first = serve({"hare": demo_model("hare")}, options=("--listen", f"127.0.0.1:{port}"))
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{port}"
    with place.terminal(command=TOP) as terminal:
        terminal.read_until(r": 1 model, 0 in flight")
        assert first.stop() == 0
        terminal.read_until(rf":{port} is not reachable, retrying: Connection refused")
        terminal.type("l")
        terminal.read_until(r"hare: no response from http://\S+: Connection refused")
        serve(
            {"hare": demo_model("hare"), "other": demo_model("other")},
            options=("--listen", f"127.0.0.1:{port}"),
        )
        terminal.read_until(r": 2 models, 0 in flight")
        terminal.read_until(r"other +stopped")
        quit_top(terminal)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_top_restores_the_terminal_when_a_signal_ends_it(
    terminal: Terminal, number: signal.Signals, code: int
) -> None:
    assert not terminal.is_restored()
    if number == signal.SIGINT:
        terminal.type(CTRL_C)
    else:
        terminal.process.send_signal(number)

    assert terminal.wait() == code
    assert terminal.is_restored()
    assert "Traceback" not in terminal.raw


def test_top_ctrl_z_gives_the_terminal_back_until_it_goes_on(terminal: Terminal) -> None:
    terminal.type("\x1a")
    process = psutil.Process(terminal.process.pid)
    wait_until(
        lambda: process.status() == psutil.STATUS_STOPPED, LONG_S, what=lambda: process.status()
    )
    terminal.type("")
    assert terminal.is_restored()
    os.kill(terminal.process.pid, signal.SIGCONT)
    terminal.read_until(r": 3 models, 0 in flight")
    quit_top(terminal)


def test_top_fits_the_size_of_the_terminal(place: Place, serve: Serve) -> None:
    """Of many models those around the selected one are shown, each in one line."""
    proxy = serve({f"model-{n:02}": demo_model("a", description="x" * 200) for n in range(40)})
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    with place.terminal(command=TOP) as terminal:
        terminal.resize(14, 60)
        terminal.type("j")
        terminal.read_until(r"q quit")
        terminal.type("j" * 30)
        terminal.read_until(r"model-31")
        terminal.type("\x1b[H")
        lines = terminal.read_until(r"(?s)40 models.*q quit")[0].splitlines()
        assert len(lines) <= 14
        assert max(map(len, lines)) <= 60
        assert sum("model-" in line for line in lines) >= 8
        quit_top(terminal)


def test_top_once_prints_one_frame(
    proxy: SwapchartProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So it does without a terminal; --json prints the same for programs."""
    monkeypatch.setenv("SWAPCHART_URL", f"http://127.0.0.1:{proxy.port}")
    assert proxy.chat("hare", 8).status == 200
    for arguments in (["top"], ["top", "--once"]):
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert re.search(
            r"^hare +ready +0 +0 +- +\d+\.\d +loaded \d+ s ago +the health check passed$",
            out, re.MULTILINE,
        )  # fmt: skip
        assert re.search(r"^tortoise +stopped +0 +0 +- +-+ +-", out, re.MULTILINE)
    assert main(["top", "--json"]) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["hare"]["tokens_per_second"] > 0
    assert rows["hare"]["last_swap"]["kind"] == "loaded"
    assert rows["tortoise"]["last_swap"] is None


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "1e9"])
def test_top_interval_out_of_range_is_a_usage_error(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", f"--interval={value}"])

    assert ended.value.code == 2
    assert f"expected seconds from 0.1 to 3600, got '{value}'" in capsys.readouterr().err


def test_top_without_a_proxy_in_a_terminal_is_one_line(place: Place) -> None:
    with place.terminal(command=TOP) as terminal:
        assert terminal.wait() == 1
        assert re.fullmatch(
            r"swapchart: no response from http://127.0.0.1:1: .*\n", terminal.text()
        )


def test_top_without_rich_names_the_extra(place: Place, proxy: SwapchartProcess) -> None:
    """In a terminal; one frame needs no rich."""
    place.env["SWAPCHART_URL"] = f"http://127.0.0.1:{proxy.port}"
    script = (
        "import sys; sys.modules['rich'] = None\nfrom swapchart.adapters.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = (sys.executable, "-c", script, "top")
    with place.terminal(command=command) as terminal:
        assert terminal.wait() == 1
        assert re.fullmatch(
            r"swapchart: this command needs the Python package rich\S*, which is not installed; "
            r".*pip install '\.\[cli\]'\n",
            terminal.text(),
        )
    with place.terminal("--once", command=command) as terminal:
        assert terminal.wait() == 0
        assert "hare" in terminal.text()
