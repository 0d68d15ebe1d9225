"""A proxy that watches its files: half-written ones stop no model."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools.net import LONG_S, wait_until
from tools.swapchart_process import Edited, Serve, demo_model

pytestmark = pytest.mark.slow

MODELS = 6
QUICK = ("--load-seconds", "0", "--quiet")


@pytest.fixture
def watched(serve: Serve) -> Iterator[Edited]:
    """A proxy with one running model of several; whatever is done, it must go on."""
    models = {f"m{number}": demo_model(f"m{number}", *QUICK) for number in range(MODELS)}
    edited = Edited(serve, models, "--watch-config")
    edited.proxy.may_log = "the old one stays|models are gone|empty where|found a named pipe"
    assert edited.proxy.chat("m0").status == 200
    pid = edited.pid("m0")
    yield edited
    assert edited.pid("m0") == pid


def models_of(edited: Edited) -> list[str]:
    found: list[str] = edited.proxy.get("/api/config")["models"]
    return found


def wait_refused(edited: Edited, before: int, text: str) -> dict[str, Any]:
    """Wait for a reload that changes nothing, and says *text*."""
    wait_until(lambda: edited.reloads() > before, LONG_S, what="a reload")
    facts: dict[str, Any] = edited.proxy.get("/api/config")
    assert not facts["last_reload"]["ok"]
    assert text in facts["last_reload"]["problems"][0]["text"]
    assert len(facts["models"]) == MODELS
    edited.proxy.wait_said(text)
    return facts


EMPTY: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: os.truncate(path, 0),
    "replaced": lambda path: _new(path).replace(path),
    "blanks": lambda path: path.write_text("\n   \n"),
    "comments": lambda path: path.write_text("# models:\n---\n"),
}


def _new(path: Path) -> Path:
    new = path.with_name("new")
    new.touch()
    return new


@pytest.mark.parametrize("kind", EMPTY)
def test_watch_file_is_empty_is_a_mistake(watched: Edited, kind: str) -> None:
    """No model stops, however the file was emptied, also on request; the next valid file works."""
    before = watched.reloads()
    EMPTY[kind](watched.path)
    facts = wait_refused(watched, before, "empty where models were")
    assert facts["held_back"] is None
    answer = watched.proxy.call("POST", "/api/config/reload")
    assert answer.status == 400
    assert b"empty where models were" in answer.body

    watched.value["models"]["new"] = demo_model("new", *QUICK)
    watched.write()
    wait_until(lambda: "new" in models_of(watched), LONG_S)


def test_watch_file_is_truncated_waits_for_an_explicit_reload(watched: Edited) -> None:
    """More than half of the models are gone: that is said, with the command that confirms it."""
    before = watched.reloads()
    fewer = {name: watched.value["models"][name] for name in ("m0", "m1")}
    watched.path.write_text(json.dumps({**watched.value, "models": fewer}))
    facts = wait_refused(watched, before, "4 of 6 models are gone")
    assert facts["held_back"]["removed"] == ["m2", "m3", "m4", "m5"]
    command = facts["held_back"]["command"]
    assert command == f"kill -HUP {watched.proxy.pid}"
    watched.proxy.wait_said(command)

    os.kill(watched.proxy.pid, signal.SIGHUP)
    wait_until(lambda: models_of(watched) == ["m0", "m1"], LONG_S)
    assert watched.proxy.get("/api/config")["held_back"] is None


def test_watch_file_is_held_open_waits_for_an_explicit_reload(watched: Edited) -> None:
    """A program that does not close the file is waited for: that is said, with the way out."""
    value = {**watched.value, "models": {**watched.value["models"], "new": demo_model("new")}}
    with watched.path.open("w") as file:
        file.write(json.dumps(value))
        file.flush()
        wait_until(lambda: watched.proxy.get("/api/config")["held_back"], LONG_S)
        held_back = watched.proxy.get("/api/config")["held_back"]
        assert str(watched.path) in held_back["message"]
        assert held_back["command"] == f"kill -HUP {watched.proxy.pid}"
        watched.proxy.wait_said(held_back["message"])
        assert "new" not in models_of(watched)

        os.kill(watched.proxy.pid, signal.SIGHUP)
        wait_until(lambda: "new" in models_of(watched), LONG_S)
        assert watched.proxy.get("/api/config")["held_back"] is None


@pytest.mark.parametrize("kind", ["half in place", "rename", "api"])
def test_watch_change_is_complete_is_applied(watched: Edited, kind: str) -> None:
    """Half of the models may go in place, and any number by a rename or on request."""
    count = 3 if kind == "half in place" else 1
    names = [f"m{number}" for number in range(count)]
    watched.value["models"] = {name: watched.value["models"][name] for name in names}
    if kind == "rename":
        watched.write()
    else:
        watched.path.write_text(json.dumps(watched.value))
    if kind == "api":
        assert watched.proxy.call("POST", "/api/config/reload").status == 200

    wait_until(lambda: models_of(watched) == names, LONG_S)


def test_watch_file_is_written_slowly_is_read_once_when_it_is_whole(watched: Edited) -> None:
    """A writer that pauses for seconds is waited for: no reload in between, nothing stops."""
    before = watched.reloads()
    watched.value["models"]["new"] = demo_model("new", *QUICK)
    lines = json.dumps(watched.value, indent=1).splitlines(keepends=True)
    with watched.path.open("w") as file:
        file.write("models:\n")  # a whole document, and one without any model
        file.flush()
        time.sleep(4.0)
        assert watched.reloads() == before
        file.seek(0)
        file.writelines(lines)

    wait_until(lambda: "new" in models_of(watched), LONG_S)
    assert watched.reloads() == before + 1


def test_watch_file_is_a_named_pipe_is_refused(watched: Edited) -> None:
    """Nothing waits for its writer; the proxy goes on and can be reloaded and ended."""
    before = watched.reloads()
    watched.path.unlink()
    os.mkfifo(watched.path)
    wait_refused(watched, before, "found a named pipe")
    assert watched.proxy.call("POST", "/api/config/reload").status == 400
    watched.path.unlink()
    watched.value["models"]["new"] = demo_model("new", *QUICK)
    watched.write()
    wait_until(lambda: "new" in models_of(watched), LONG_S)
