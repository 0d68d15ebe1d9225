"""Variables that hold keys of the proxy do not reach models and hooks."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from tools.swapchart_process import Edited, Journal, Serve, shell

pytestmark = pytest.mark.slow

KEYS = {"PROXY_KEY": "sk-one", "MACRO_KEY": "sk-two", "NAMED_KEY": "sk-three", "OTHER": "kept"}


def environment(pid: int) -> dict[str, str]:
    return psutil.Process(pid).environ()


def test_variables_of_api_keys_reach_no_model_and_no_hook(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models, hooks and stop commands get no variable of ours that is read into apiKeys."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    journal = Journal(tmp_path / "journal")
    seen = journal.path.with_name("seen")
    hook = shell(f"env >> {seen}; echo END >> {seen}")
    model = journal.model("a", beforeStart=hook, afterHealthy=hook, beforeStop=hook)
    given = journal.model("b", env=["PROXY_KEY=${env.PROXY_KEY}"])
    edited = Edited(
        serve, {"a": model, "b": given}, macros={"key": "${env.MACRO_KEY}"}, dropEnv=["NAMED_KEY"]
    )
    proxy = edited.proxy
    assert proxy.chat("a").status == 200  # no keys yet
    assert KEYS.items() - {("NAMED_KEY", "sk-three")} <= environment(edited.pid("a")).items()
    assert "NAMED_KEY" not in environment(edited.pid("a"))
    assert proxy.unload("a").status == 200
    seen.unlink()

    edited.value["apiKeys"] = ["${env.PROXY_KEY}", {"key": "${key}"}]
    edited.write()
    assert proxy.call("POST", "/api/config/reload").status == 200
    headers = {"x-api-key": "sk-two"}
    for name in ("a", "b"):
        answer = proxy.call(
            "POST", "/v1/chat/completions", value={"model": name, "messages": []}, headers=headers
        )
        assert answer.status == 200
        rows = proxy.call("GET", "/running", headers=headers).json()["running"]
        (pid,) = [row["pid"] for row in rows if row["model"] == name]
        found = environment(pid)
        assert found["OTHER"] == "kept"
        assert {key for key in KEYS if key in found} == (
            {"OTHER"} if name == "a" else {"OTHER", "PROXY_KEY"}  # which its own env names
        )
    answer = proxy.call("POST", "/api/models/unload", headers=headers)
    assert answer.status == 200
    text = seen.read_text()
    assert text.split("\n").count("END") == 3
    assert "OTHER=kept" in text
    for key in ("sk-one", "sk-two", "sk-three"):
        assert key not in text
