"""Conversations that are kept, in a whole proxy, on demo servers: what is said, and reloads."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tools import raw
from tools.kv import is_free
from tools.net import LONG_S, port_block, wait_until
from tools.swapchart_process import CHAT, Edited, Serve, SwapchartProcess

from swapchart.adapters.cli import main

pytestmark = pytest.mark.slow

STORY = "the tree and the river wait for a red stone in the green time of the one queue " * 8
SMALL = {"mode": "keep", "minTokens": 10}


class Llama:
    """A program of llama-server's name, and models that it serves, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "llama-server"
        server = f"exec {sys.executable} -m swapchart.adapters.demo"
        self.program.write_text(f'#!/bin/sh\n{server} "$@"\n')
        self.program.chmod(0o755)
        self.weights = folder / "model.bin"
        self.weights.write_bytes(b"weights")

    def slots(self, name: str) -> Path:
        """Return where the slots of a model are saved."""
        return self.folder / f"slots-{name}"

    def model(self, name: str, *options: str, slots: bool = True, **keys: Any) -> dict[str, Any]:
        """Return a model that keeps its conversations, in `slots` unless told otherwise."""
        words = [
            str(self.program), "--model", str(self.weights), "--alias", "demo", "--parallel", "1",
            "--port", "${PORT}", "--prefill-tokens-per-second", "1000",
            "--tokens-per-second", "0", *options,
        ]  # fmt: skip
        words += ["--slot-save-path", str(self.slots(name))] if slots else []
        return {"cmd": words, "proxy": "http://127.0.0.1:${PORT}", "kv": SMALL, **keys}


@pytest.fixture
def llama(tmp_path: Path) -> Llama:
    folder = tmp_path / "llama"
    folder.mkdir()
    return Llama(folder)


def read(proxy: SwapchartProcess, model: str, text: str = STORY) -> int:
    """Ask *model* about *text*; returns how many of its tokens had to be read.

    While a model of that name still stops, the request is retried, as its response asks.
    """
    messages = [{"role": "user", "content": text}]
    value = {"model": model, "messages": messages, "max_tokens": 2, "temperature": 0}

    def answer() -> raw.Answer | None:
        found = proxy.call("POST", CHAT, value=value)
        is_leaving = found.status == 503 and b"model_removed" in found.body
        return None if is_leaving else found

    found = wait_until(answer, LONG_S, what=f"{model} back")
    assert found is not None
    assert found.status == 200, found
    return int(found.json()["timings"]["prompt_n"])


def kv_of(proxy: SwapchartProcess, model: str) -> Any:
    """Return what ``/running`` tells of the conversations of *model*."""
    return proxy.running()[model].get("kv")


# ---- a command without --slot-save-path
def test_command_without_manage_args_is_unchanged(
    serve: Serve, llama: Llama, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model starts plainly; log, /running and `config check` say exactly what to add."""
    edited = Edited(serve, {"m": llama.model("m", slots=False)})
    proxy = edited.proxy
    assert read(proxy, "m") > 100
    problem = kv_of(proxy, "m")["problem"]
    found = re.search("add `(--slot-save-path [^`]+)` to it, or `manageArgs: true`", problem)
    assert found is not None, problem
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(proxy.folder / "state"))
    assert main(["config", "check", str(edited.path)]) == 0
    said = capsys.readouterr().out

    assert "--slot-save-path" not in psutil.Process(edited.pid("m")).cmdline()
    proxy.wait_said(f"m: kv: {problem}")
    assert f"warning: models.m.kv: {problem}\n" in said
    assert "swapchart_kv_" not in proxy.call("GET", "/metrics").body.decode()

    edited.value["models"]["m"]["cmd"] += shlex.split(found[1])  # as it says
    assert edited.changes() == {"m": "restart"}
    assert read(proxy, "m") > 100
    proxy.unload("m")
    assert read(proxy, "m") < 5
    assert kv_of(proxy, "m")["problem"] is None
    assert main(["config", "check", str(edited.path)]) == 0
    assert "warning" not in capsys.readouterr().out


def test_command_with_manage_args_gets_the_folder(serve: Serve, llama: Llama) -> None:
    """And the log has a line of it."""
    keys = {"kv": {**SMALL, "manageArgs": True}}
    proxy = serve({"m": llama.model("m", slots=False, **keys)})
    assert read(proxy, "m") > 100
    proxy.unload("m")

    assert read(proxy, "m") < 5
    assert proxy.wait_said("m: kv: adding --slot-save-path ") == 1


def test_command_of_another_program_is_unchanged_and_the_reason_logged(
    llama: Llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container's command, say, may end with something else than options."""
    other = llama.program.rename(llama.folder / "server")
    model = llama.model("m", slots=False, kv={"manageArgs": True})
    model["cmd"][0] = str(other)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"startPort": port_block(), "models": {"m": model}}))
    assert main(["config", "check", str(path)]) == 0

    assert "manageArgs adds it only to a program that is called llama-server" in (
        capsys.readouterr().out
    )


def test_command_without_parallel_is_warned_of(
    llama: Llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --parallel, or its variable, idle slots cannot be saved."""
    told = []
    for env in ([], ["LLAMA_ARG_N_PARALLEL=2"]):
        model = llama.model("m", env=env)
        at = model["cmd"].index("--parallel")
        del model["cmd"][at : at + 2]
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps({"startPort": port_block(), "models": {"m": model}}))
        assert main(["config", "check", str(path)]) == 0
        told.append("only the last conversation is kept" in capsys.readouterr().out)

    assert told == [True, False]


def test_command_with_a_sleep_of_its_own_is_warned_of(
    llama: Llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It drops its caches without telling anybody; ours asks for them first."""
    path = tmp_path / "config.yaml"
    models = {"m": llama.model("m", "--sleep-idle-seconds", "60")}
    path.write_text(json.dumps({"startPort": port_block(), "models": models}))
    assert main(["config", "check", str(path)]) == 0

    assert "use `sleep` or `ttl` instead" in capsys.readouterr().out


# ---- reloads
@pytest.fixture
def edited(serve: Serve, llama: Llama) -> Edited:
    """A proxy for two models that exclude each other."""
    return Edited(serve, {name: llama.model(name) for name in ("one", "two")})


def swap(proxy: SwapchartProcess) -> None:
    """Let ``two`` take the place of ``one``."""
    read(proxy, "two", "hello")
    assert [*proxy.running()] == ["two"]


def test_reload_leaves_unchanged_models_alone(edited: Edited, llama: Llama) -> None:
    """Same process, same counts, and the conversation is saved and restored as ever."""
    assert read(edited.proxy, "one") > 100
    swap(edited.proxy)
    assert read(edited.proxy, "one") < 5
    pid, before = edited.pid("one"), kv_of(edited.proxy, "one")
    edited.value["models"]["three"] = llama.model("three")
    edited.value["models"]["one"]["ttl"] = 900
    assert edited.changes() == {"one": "live", "three": "added"}

    assert edited.pid("one") == pid
    assert kv_of(edited.proxy, "one") == before
    assert (before["restores"], before["verdict"]) == (1, "works")
    swap(edited.proxy)
    assert read(edited.proxy, "one") < 5
    timeline = edited.proxy.get("/api/timeline")
    swaps = {swap["id"]: swap["started"] for swap in timeline["swaps"]}
    assert [swaps[each["swap_id"]] for each in timeline["restored"]] == [["one"], ["one"]]
    assert timeline["restored_tokens"] > 200
    assert timeline["saved_ms"] > 0


def test_changed_command_drains_saves_stops_and_restores(edited: Edited) -> None:
    """A stream in flight ends well, and its words are in what is saved."""
    proxy, command = edited.proxy, edited.value["models"]["one"]["cmd"]
    command[command.index("--tokens-per-second") + 1] = "50"
    edited.reload()
    body = {"messages": [{"role": "user", "content": STORY}], "ignore_eos": True}
    with proxy.open_chat("one", 40, stream=True, **body) as stream:
        head = stream.read_head()
        assert stream.read_chunk()
        command += ["--host", "127.0.0.1"]
        assert edited.changes() == {"one": "restart"}
        assert stream.read_body(head).body.endswith(b"data: [DONE]\n\n")
    again = read(proxy, "one")

    assert again < 5
    facts = kv_of(proxy, "one")
    assert facts["saved_tokens_total"] == facts["restored_tokens_total"] > 140
    assert proxy.running()["one"]["incarnation"] == 2


def test_save_that_no_longer_fits_is_named_and_returns_with_the_old_command(edited: Edited) -> None:
    assert read(edited.proxy, "one") > 100
    edited.value["models"]["one"]["cmd"] += ["--ctx-size", "4096"]
    assert edited.changes() == {"one": "restart"}
    assert read(edited.proxy, "one") > 100
    del edited.value["models"]["one"]["cmd"][-2:]
    assert edited.changes() == {"one": "restart"}

    assert read(edited.proxy, "one") < 5
    text = (
        "one: kv: saved by another server, so not restored: options: none -> --ctx-size 4096; "
        "tokens per slot: 8192 -> 4096"
    )
    assert edited.proxy.wait_said(text) == 1


def test_kv_switched_off_saves_nothing_and_can_be_purged(
    edited: Edited, llama: Llama, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its process goes on; the folder is free at once, while the proxy still runs."""
    assert read(edited.proxy, "one") > 100
    swap(edited.proxy)
    assert read(edited.proxy, "one") < 5
    assert read(edited.proxy, "one", STORY * 2) > 100
    (old,) = llama.slots("one").glob("*.kv")
    pid = edited.pid("one")
    edited.value["models"]["one"]["kv"] = "off"
    assert edited.changes() == {"one": "next_start"}
    assert edited.pid("one") == pid
    assert kv_of(edited.proxy, "one") is None
    swap(edited.proxy)
    assert [*llama.slots("one").glob("*.kv")] == [old]

    assert read(edited.proxy, "one") > 100
    command = ["--config", str(edited.path), "one"]
    assert main(["kv", "list", *command]) == 0
    assert capsys.readouterr().out.endswith(", not used\n")
    assert main(["kv", "purge", *command]) == 0
    assert [*llama.slots("one").glob("*.kv")] == []


def test_kv_switched_on_saves_from_the_next_start_on(edited: Edited, llama: Llama) -> None:
    """The process that was started without is not asked to save."""
    edited.value["models"]["one"]["kv"] = "off"
    edited.reload()
    assert read(edited.proxy, "one") > 100
    edited.value["models"]["one"]["kv"] = SMALL
    assert edited.changes() == {"one": "next_start"}
    swap(edited.proxy)
    assert not [*llama.slots("one").glob("*.kv")]

    assert read(edited.proxy, "one") > 100
    swap(edited.proxy)
    assert read(edited.proxy, "one") < 5


def test_kv_switched_off_and_on_again_still_saves(edited: Edited) -> None:
    """Both while one process runs: it saves after all."""
    assert read(edited.proxy, "one") > 100
    for kv in ("off", SMALL):
        edited.value["models"]["one"]["kv"] = kv
        assert edited.changes() == {"one": "next_start"}
    swap(edited.proxy)

    assert read(edited.proxy, "one") < 5


@pytest.mark.parametrize("is_on", [False, True])
def test_kv_folder_added_or_removed_needs_a_restart_in_the_plan(
    serve: Serve, llama: Llama, is_on: bool
) -> None:
    """It is in the command: what is planned is what is done."""
    states: list[Any] = [{**SMALL, "manageArgs": True}, "off"]
    before, after = reversed(states) if is_on else states
    edited = Edited(serve, {"m": llama.model("m", slots=False, kv=before)})
    assert read(edited.proxy, "m") > 100
    pid = edited.pid("m")
    edited.value["models"]["m"]["kv"] = after
    assert edited.changes() == {"m": "restart"}
    wait_until(lambda: not psutil.pid_exists(pid), LONG_S, what="the old process gone")
    assert read(edited.proxy, "m") > 100
    edited.proxy.unload("m")

    assert (read(edited.proxy, "m") < 5) == is_on


def test_removed_model_is_saved_and_can_return(edited: Edited, llama: Llama) -> None:
    """It is drained, saved and stopped; its folder is free then, while the proxy still runs."""
    assert read(edited.proxy, "one") > 100
    model = edited.value["models"].pop("one")
    assert edited.changes() == {"one": "removed"}
    wait_until(lambda: not edited.proxy.find("--port"), LONG_S, what="its process gone")
    assert len([*llama.slots("one").glob("*.kv")]) == 1
    wait_until(lambda: is_free(llama.slots("one")), LONG_S, what="its folder free")
    edited.value["models"]["one"] = model
    assert edited.changes() == {"one": "added"}

    assert read(edited.proxy, "one") < 5


def test_files_of_a_removed_model_are_listed_and_purged(
    serve: Serve, llama: Llama, capsys: pytest.CaptureFixture[str]
) -> None:
    """List shows the files of removed models, and purge removes them."""
    kv = {**SMALL, "manageArgs": True}
    edited = Edited(serve, {name: llama.model(name, slots=False, kv=kv) for name in ("one", "two")})
    assert read(edited.proxy, "one") > 100
    swap(edited.proxy)
    del edited.value["models"]["one"]
    assert edited.changes() == {"one": "removed"}
    (state,) = (edited.proxy.folder / "state").glob("*/")
    command = ["--config", str(edited.path), "--state-dir", str(state)]
    assert main(["kv", "list", *command, "one"]) == 0
    assert capsys.readouterr().out.endswith(", not used\n")
    assert main(["kv", "purge", *command, "one"]) == 0
    assert "one: 1 saved slots" in capsys.readouterr().out
    assert not [*state.rglob("*.kv")]


# ---- while a proxy works in the folder
def test_list_and_verify_work_beside_a_proxy_and_purge_is_refused(
    edited: Edited, llama: Llama, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saves go on beneath them: no look ever finds fault, or is in the way."""
    command = ["--config", str(edited.path)]
    for name in ("one", "two") * 3:
        read(edited.proxy, name, STORY)
        assert main(["kv", "verify", *command]) == 0, capsys.readouterr()
        assert main(["kv", "list", *command]) == 0
    capsys.readouterr()
    assert main(["kv", "list", "--json", *command]) == 0
    rows = json.loads(capsys.readouterr().out)
    before = sorted(llama.slots("one").glob("*.kv"))
    assert main(["kv", "purge", *command]) == 1
    said = capsys.readouterr().err

    assert {(row["model"], row["verdict"]) for row in rows} == {("one", "works"), ("two", "works")}
    assert "another swapchart uses" in said
    assert sorted(llama.slots("one").glob("*.kv")) == before != []
    assert read(edited.proxy, "one") < 5
    assert kv_of(edited.proxy, "one")["failures"] == 0


def test_folder_used_by_two_proxies_is_not_damaged(serve: Serve, llama: Llama) -> None:
    """The second serves plainly and says why; once the first has ended, it keeps too."""
    models = {"one": llama.model("one")}
    first = serve(models)
    assert read(first, "one") > 100
    first.unload("one")
    second = serve(models)
    assert read(second, "one") > 100
    assert "another swapchart uses" in kv_of(second, "one")["problem"]
    assert read(first, "one") < 5
    assert first.stop() == 0
    second.unload("one")

    assert read(second, "one") < 5
    assert kv_of(second, "one")["problem"] is None


def test_server_that_is_killed_restores_its_last_save(edited: Edited) -> None:
    """Tokens since the save are lost with it; the saved ones are restored."""
    assert read(edited.proxy, "one") > 100
    swap(edited.proxy)
    assert read(edited.proxy, "one") < 5
    psutil.Process(edited.pid("one")).kill()
    edited.proxy.may_log = "one"
    wait_until(
        lambda: edited.proxy.running().get("one", {}).get("incarnation") != 2, LONG_S,
        what="its end noticed",
    )  # fmt: skip

    assert read(edited.proxy, "one") < 5
    assert kv_of(edited.proxy, "one")["restores"] == 2


def test_sleeping_model_that_is_stopped_keeps_its_save(serve: Serve, llama: Llama) -> None:
    """Its cache is gone by then: its stop saves nothing, and does not wake it for that."""
    url = "http://127.0.0.1:${PORT}"
    sleep = {
        "after": 0.5, "enter": {"http": {"url": f"{url}/sleep"}},
        "wake": {"http": {"url": f"{url}/wake_up"}},
    }  # fmt: skip
    proxy = serve({"m": llama.model("m", sleep=sleep)})
    assert read(proxy, "m") > 100
    proxy.wait_state("m", "asleep")
    assert read(proxy, "m") < 5  # woken
    proxy.wait_state("m", "asleep")
    proxy.unload("m")

    assert read(proxy, "m") < 5
    assert proxy.running()["m"]["incarnation"] == 2
    assert kv_of(proxy, "m")["failures"] == 0


def test_idle_limit_saves_and_the_next_request_restores(serve: Serve, llama: Llama) -> None:
    proxy = serve({"m": llama.model("m", ttl=1)})
    assert read(proxy, "m") > 100
    proxy.wait_state("m", "stopped")

    assert read(proxy, "m") < 5


def test_sigterm_of_the_proxy_saves_within_its_own_timeout(serve: Serve, llama: Llama) -> None:
    """Not within the grace period, which is over before that save is, here."""
    models = {"m": llama.model("m", unloadTimeout=1, beforeStop={"run": "sleep 2", "timeout": 9})}
    state = ["--state-dir", str(llama.folder / "state")]
    first = serve(models, options=state)
    assert read(first, "m") > 100
    assert first.stop() == 0
    second = serve(models, options=state)

    assert read(second, "m") < 5


# ---- memory
def test_slots_in_memory_survive_a_reboot(
    serve: Serve, llama: Llama, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server saves into memory; after its loss the copies on the disk are restored."""
    memory, state = llama.folder / "memory", llama.folder / "state"
    kv = {**SMALL, "manageArgs": True, "tmpfs": str(memory)}
    found = []
    for _ in range(2):
        proxy = serve(
            {"m": llama.model("m", slots=False, kv=kv)}, options=["--state-dir", str(state)]
        )
        found.append(read(proxy, "m"))
        assert str(memory) in " ".join(psutil.Process(proxy.running()["m"]["pid"]).cmdline())
        assert proxy.stop() == 0
        assert len([*memory.rglob("*.kv")]) == len([*state.rglob("*.kv")]) == 1
        shutil.rmtree(memory)
        config = str(proxy.folder / "config.yaml")
        assert main(["kv", "verify", "--config", config, "--state-dir", str(state)]) == 0

        assert capsys.readouterr().out.endswith(": ok\n")
        assert not memory.exists()
    assert found[0] > 100
    assert found[1] < 5
