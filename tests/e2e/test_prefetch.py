"""Prefetch with real processes: the next model's file is read while the old one stops."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tools import page_cache
from tools.swapchart_process import Serve, demo_model

pytestmark = pytest.mark.slow

POOLS = {"mode": "auto", "pools": {"BOX": {"capacity": "10GiB"}}}


def fake_llama(folder: Path, model: Path, notes: Path) -> list[str]:
    """Return a command named llama-server that notes how much of *model* is in memory."""
    program = folder / "llama-server"
    demo = f"{sys.executable} -m swapchart.adapters.demo --prefill-tokens-per-second 0"
    program.write_text(
        f"#!/bin/sh\n{sys.executable} -I -S {page_cache.__file__} {model} >> {notes}\n"
        f'exec {demo} --model b --port "$4"\n'
    )
    program.chmod(0o700)
    return [str(program), "-m", str(model), "--port", "${PORT}"]


@pytest.mark.parametrize(
    ("memory", "prefetch", "is_read"),
    [(POOLS, "auto", True), (POOLS, "off", False), ("off", "auto", False)],
)
def test_prefetch_reads_the_next_model_while_the_old_one_stops(
    serve: Serve, tmp_path: Path, memory: Any, prefetch: str, is_read: bool
) -> None:
    """With `auto` and memory on, all of the file is in memory before the new process begins."""
    model, notes = tmp_path / "model.gguf", tmp_path / "notes"
    model.write_bytes(os.urandom(16 << 20))
    page_cache.drop(str(model))
    if page_cache.resident(str(model)) > 0.1:
        pytest.skip("NOT TESTED: this file system keeps files in memory")
    amounts: dict[str, Any] = {} if memory == "off" else {"memory": {"BOX": "6GiB"}}
    command = fake_llama(tmp_path, model, notes)
    second = {"cmd": command, "proxy": "http://127.0.0.1:${PORT}", "prefetch": prefetch, **amounts}
    first = demo_model("a", beforeStop="sleep 2", **amounts)
    proxy = serve({"a": first, "b": second}, config={"memory": memory})

    assert proxy.chat("a").status == 200
    assert page_cache.resident(str(model)) < 0.1
    assert proxy.chat("b").status == 200

    (share,) = map(float, notes.read_text().split())
    assert (share > 0.9) if is_read else (share < 0.1)
