"""Reloads on real processes: what did not change is not touched, whatever comes and goes."""

from __future__ import annotations

import json
import random
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from tools.net import LONG_S, wait_until
from tools.rows import row
from tools.swapchart_process import (
    Edited,
    Journal,
    Serve,
    SwapchartProcess,
    demo_model,
    error_of,
    shell,
)

from swapchart.adapters.cli import main

pytestmark = pytest.mark.slow

EDITS = 30
QUICK = ("--load-seconds", "0", "--quiet")
TOGETHER = {"groups": {"all": {"swap": False, "exclusive": False, "members": ["keep", "b"]}}}


class Load(threading.Thread):
    """Asks one model again and again, until told to stop.

    Attributes:
        statuses: Of all answers.
    """

    def __init__(self, proxy: SwapchartProcess, model: str) -> None:
        super().__init__()
        self.statuses: list[int] = []
        self._proxy, self._model = proxy, model
        self._is_enough = threading.Event()

    def run(self) -> None:
        while not self._is_enough.is_set():
            self.statuses.append(self._proxy.chat(self._model).status)

    def stop(self) -> list[int]:
        self._is_enough.set()
        self.join(LONG_S)
        return self.statuses


def edit(dice: random.Random, value: dict[str, Any], number: int) -> None:
    """Change anything but the model ``keep``."""
    models = value["models"]
    match dice.randrange(7):
        case 0:
            models[f"a{number}"] = demo_model(f"a{number}", *QUICK)
        case 1:
            for name in [name for name in models if name not in ("keep", "b")][:1]:
                del models[name]
        case 2:
            models["b"]["ttl"] = number + 1
        case 3:
            models["b"] = demo_model("b", *QUICK, "--slots", str(1 + number % 3))
        case 4:
            models["b"]["beforeStop"] = f"true {number}"
        case 5:
            value["queue"] = {"limit": 100 + number}
        case 6:
            value["apiKeys"] = []
            value["macros"] = {"unused": number}


@row("C40")
def test_unchanged_models_serve_on_through_thirty_reloads(serve: Serve) -> None:
    """Under load, no request to the unchanged model fails, and its process is the same after."""
    seed = random.randrange(1 << 30)
    dice = random.Random(seed)
    models = {name: demo_model(name, *QUICK) for name in ("keep", "b")}
    edited = Edited(serve, models, **TOGETHER)
    assert edited.proxy.chat("keep").status == 200
    pid, port = edited.pid("keep"), edited.proxy.running()["keep"]["proxy"]
    loads = [Load(edited.proxy, "keep"), Load(edited.proxy, "b")]
    for load in loads:
        load.start()
    try:
        for number in range(EDITS):
            edit(dice, edited.value, number)
            assert "keep" in edited.reload()["plan"]["unchanged"], seed
    finally:
        kept, changed = (load.stop() for load in loads)

    assert set(kept) == {200}, seed
    assert set(changed) == {200}, seed
    assert (edited.pid("keep"), edited.proxy.running()["keep"]["proxy"]) == (pid, port)
    assert edited.proxy.running()["keep"]["incarnation"] == 1


def test_changed_model_drains_while_requests_wait_for_the_new_version(
    serve: Serve, journal: Journal
) -> None:
    """A stream of the old process ends well, and what comes meanwhile is served by the new one."""
    edited = Edited(serve, {"w": journal.model("w")})
    with edited.proxy.open_chat("w", events=20, every_s=0.05) as stream:
        head = stream.read_head()
        port = edited.value["models"]["w"]["cmd"]
        edited.value["models"]["w"] = journal.model("w", env=["NEW=1"])
        assert edited.value["models"]["w"]["cmd"] == port
        assert edited.changes() == {"w": "restart"}
        with edited.proxy.open_chat("w") as waiting:
            assert stream.read_body(head).body.endswith(b"data: [DONE]\n\n")
            assert waiting.read_answer().status == 200
    row = edited.proxy.running()["w"]
    environment = psutil.Process(row["pid"]).environ()

    assert (row["incarnation"], environment["NEW"]) == (2, "1")


def test_ports_of_unchanged_models_are_kept(serve: Serve) -> None:
    """New models before and after the old ones in the alphabet move no port."""
    edited = Edited(serve, {"m": demo_model("m", *QUICK)})
    assert edited.proxy.chat("m").status == 200
    start, where = edited.value["startPort"], edited.proxy.running()["m"]["proxy"]
    edited.value["models"].update({name: demo_model(name, *QUICK) for name in ("a", "z")})

    assert edited.changes() == {"a": "added", "z": "added"}
    assert edited.proxy.running()["m"]["proxy"] == where == f"http://127.0.0.1:{start}"
    assert edited.proxy.chat("a").status == 200
    assert edited.proxy.running()["a"]["proxy"] == f"http://127.0.0.1:{start + 1}"


@pytest.mark.parametrize("text", ["models: [", "models: {a: {ttl: x}}", "- 1", "startPort: -1"])
@row("C40")
def test_invalid_file_is_reported_and_changes_nothing(serve: Serve, text: str) -> None:
    """API, log and status report it; the next valid file works."""
    edited = Edited(serve, {"m": demo_model("m", *QUICK)})
    edited.proxy.may_log = "reload|config.yaml"
    assert edited.proxy.chat("m").status == 200
    pid = edited.pid("m")
    edited.path.write_text(text)
    for what in ("reload", "plan"):
        answer = edited.proxy.call("POST", f"/api/config/{what}")
        assert answer.status == 400
        error = error_of(answer)
        assert error["code"] == "config_invalid"
        assert error["problems"][0]["file"].endswith("config.yaml")
    last = edited.proxy.get("/api/config")["last_reload"]

    assert (last["ok"], last["why"]) == (False, "asked by API")
    edited.proxy.wait_said("the old one stays")
    assert edited.pid("m") == pid
    assert edited.changes() == {}


def test_sighup_reloads_the_configuration(serve: Serve) -> None:
    """As llama-swap: the signal reads the files again, and the process lives."""
    edited = Edited(serve, {"m": demo_model("m", *QUICK)})
    edited.value["models"]["n"] = demo_model("n", *QUICK)
    edited.write()
    edited.proxy.signal(signal.SIGHUP)
    wait_until(lambda: edited.reloads() == 1, LONG_S, what="one reload")

    assert edited.proxy.chat("n").status == 200
    edited.proxy.wait_said("reload (SIGHUP)")


@row("C40")
def test_watched_file_is_read_after_it_rests(serve: Serve) -> None:
    """Twenty saves, half of them broken, make one reload, of the last."""
    edited = Edited(serve, {"m": demo_model("m", *QUICK)}, "--watch-config")
    for number in range(20):
        edited.path.write_text("models: {" if number % 2 else "")
    edited.value["models"]["n"] = demo_model("n", *QUICK)
    edited.write()
    wait_until(lambda: edited.reloads() >= 1, LONG_S, what="one reload")

    assert edited.proxy.chat("n").status == 200
    assert edited.reloads() == 1


@row("D07")
def test_removed_model_refuses_waiting_requests_and_finishes_its_streams(
    serve: Serve, journal: Journal
) -> None:
    """A start is cancelled with 503 model_removed, a stream is finished; then the name is gone."""
    models = {"keep": journal.model("keep"), "b": demo_model("b", "--load-seconds", "30")}
    edited = Edited(serve, models, **TOGETHER)
    with (
        edited.proxy.open_chat("keep", events=20, every_s=0.05) as stream,
        edited.proxy.open_chat("b") as waiting,
    ):
        head = stream.read_head()
        edited.proxy.wait_state("b", "health_checking")
        edited.value.pop("groups")
        edited.value["models"] = {"other": demo_model("other", *QUICK)}
        assert edited.changes() == {"keep": "removed", "b": "removed", "other": "added"}
        refused = waiting.read_answer()
        assert refused.status == 503
        assert error_of(refused)["code"] == "model_removed"
        assert edited.proxy.chat("keep").status == 404
        assert stream.read_body(head).body.endswith(b"data: [DONE]\n\n")
    wait_until(lambda: not edited.proxy.running(), LONG_S, what="nothing running")

    assert edited.proxy.chat("other").status == 200


@row("B19")
def test_running_model_keeps_the_hooks_of_its_own_version(serve: Serve, journal: Journal) -> None:
    """Reloaded while afterHealthy runs, it still ends with the beforeStop it began with."""

    def model(version: str, gate: Path) -> dict[str, Any]:
        def note(point: str) -> dict[str, Any]:
            return shell(f"echo {version} {point} >> $JOURNAL")

        wait = shell(f"until test -e {gate}; do sleep 0.02; done")
        hooks = {"afterHealthy": [note("afterHealthy"), wait], "beforeStop": note("beforeStop")}
        return journal.model("w", **hooks)

    gate = journal.path.with_name("gate")
    edited = Edited(serve, {"w": model("old", gate)})
    with edited.proxy.open_chat("w") as first:
        journal.wait("old afterHealthy")
        edited.value["models"]["w"] = model("new", gate)
        assert edited.changes() == {"w": "next_start"}
        gate.touch()
        assert first.read_answer().status == 200
    assert edited.proxy.unload("w").status == 200
    assert edited.proxy.chat("w").status == 200
    assert edited.proxy.unload("w").status == 200

    hooks = ["old afterHealthy", "old beforeStop", "new afterHealthy", "new beforeStop"]
    assert journal.words("^(old|new) ") == hooks


def test_preload_loads_at_the_start_and_new_models(serve: Serve) -> None:
    """One after the other, in the background; what is running already is left alone."""
    preload = {"hooks": {"on_startup": {"preload": ["keep", "b"]}}}
    models = {name: demo_model(name, *QUICK) for name in ("keep", "b")}
    edited = Edited(serve, models, **TOGETHER, **preload)
    for name in models:
        edited.proxy.wait_state(name, "ready")
    edited.proxy.unload("keep")
    edited.value["models"]["c"] = demo_model("c", *QUICK)
    edited.value["groups"]["all"]["members"].append("c")
    edited.value["hooks"]["on_startup"]["preload"].append("c")
    assert edited.changes() == {"c": "added"}
    edited.proxy.wait_state("c", "ready")

    assert edited.proxy.state("keep") == "stopped"


def test_idle_loader_loads_its_model_again(serve: Serve) -> None:
    """A second after the last request the default model is back; a reload may change which."""
    models = {name: demo_model(name, *QUICK) for name in ("keep", "b")}
    edited = Edited(serve, models, onIdle="keep", onIdleAfter=0.5)
    edited.proxy.wait_state("keep", "ready")
    assert edited.proxy.chat("b").status == 200
    edited.proxy.wait_state("keep", "ready")
    edited.value["onIdle"] = "b"
    edited.reload()
    edited.proxy.wait_state("b", "ready")


def test_changed_hook_limit_applies_at_once(serve: Serve, journal: Journal) -> None:
    """With ``hookLimit`` 1 the second hook waits for the first; with 2 it is let in beside it."""
    hook = shell('echo hook >> "$JOURNAL"; exec sleep 4321')
    models = {name: journal.model(name, beforeStart=hook) for name in ("a", "b")}
    groups = {"all": {"members": ["a", "b"], "swap": False}}
    edited = Edited(serve, models, groups=groups, hookLimit=1, shutdownTimeout=2)

    def told() -> set[str]:
        return {*edited.proxy.call("GET", "/metrics").body.decode().splitlines()}

    with edited.proxy.open_chat("a"), edited.proxy.open_chat("b"):
        journal.wait("hook")
        edited.proxy.wait_state("a", "before_start")
        edited.proxy.wait_state("b", "before_start")
        assert len(journal.words("hook")) == 1
        assert told() >= {
            "swapchart_hook_commands_limit 1.0", 'swapchart_hook_commands{state="running"} 1.0',
            'swapchart_hook_commands{state="waiting"} 1.0',
        }  # fmt: skip
        edited.value["hookLimit"] = 2
        assert [row["key"] for row in edited.reload()["plan"]["settings"]] == ["hookLimit"]
        assert "swapchart_hook_commands_limit 2.0" in told()
        journal.wait("hook", count=2)
        edited.proxy.unload("a")
        edited.proxy.unload("b")


def test_changed_api_keys_apply_at_once(serve: Serve) -> None:
    """From the answer on, the new keys are asked for."""
    edited = Edited(serve, {"m": demo_model("m", *QUICK)}, apiKeys=[])
    edited.value["apiKeys"] = ["secret-key"]
    report = edited.reload()

    assert "secret-key" not in json.dumps(report)
    assert [row["key"] for row in report["plan"]["settings"]] == ["apiKeys"]
    assert edited.proxy.call("GET", "/running").status == 401
    headers = {"Authorization": "Bearer secret-key"}
    assert edited.proxy.call("GET", "/running", headers=headers).status == 200
    assert edited.proxy.call("POST", "/api/config/reload").status == 401


def test_config_commands_plan_and_reload_a_running_proxy(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    """Edited files are planned without touching anything, then reloaded; mistakes end in 1."""
    edited = Edited(serve, {"m": demo_model("m", *QUICK)})
    edited.proxy.may_log = "reload|config.yaml"
    url = ["--url", f"http://127.0.0.1:{edited.proxy.port}"]
    edited.value["models"]["n"] = demo_model("n", *QUICK)
    edited.write()
    for what in ("plan", "reload"):
        assert main(["config", what, *url]) == 0
        assert capsys.readouterr().out == "+ n: starts on demand\n1 model unchanged\n"
    assert main(["config", "plan", *url]) == 0
    assert capsys.readouterr().out == "nothing changes; 2 models unchanged\n"
    edited.path.write_text("models: [")
    for what in ("plan", "reload"):
        assert main(["config", what, *url]) == 1
        captured = capsys.readouterr().err
        assert "not valid YAML" in captured
        assert captured.endswith("swapchart: nothing was changed\n")
