"""Memory of a real llama-server: estimated before its first run, learned from it, and decided on.

The models are one file with three contexts, which is the worst case for an estimate: the constant
part of the process is a third of the smallest one.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tools.llama import LlamaServer, chat
from tools.make_tiny_gguf import write_tiny_gguf
from tools.net import LONG_S, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess

from swapchart.adapters.llama_cpp.gguf import read_gguf
from swapchart.adapters.memory.estimate import kv_bytes, server_line

pytestmark = [pytest.mark.llama, pytest.mark.slow]

MIB = 1 << 20
CONTEXTS = {"small": 512, "middle": 8192, "large": 32768}
MEMORY = {"memory": {"pools": {"RAM": {"limit": "1GiB"}}}}


def _models(server: LlamaServer, path: Path, folder: Path) -> dict[str, Any]:
    """Return the models; a server in a Python process is started by a program of its name."""
    if not server.is_real:
        program = folder / "llama-server"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(server.command)} "$@"\n')
        program.chmod(0o755)
        server = replace(server, command=(str(program),))
    models = {}
    for name, context in CONTEXTS.items():
        argv = server.argv(path, 0, ctx=context)
        argv[argv.index("--port") + 1] = "${PORT}"
        # A CPU with AMX would get a copy of the weights, and one without would not.
        variables = {**server.env, "LLAMA_ARG_REPACK": "0"}
        env = [f"{variable}={value}" for variable, value in variables.items()]
        models[name] = {"cmd": argv, "proxy": "http://127.0.0.1:${PORT}", "env": env}
    return models


def _chat(proxy: SwapchartProcess, model: str) -> None:
    value = {"model": model, **chat("Name three rivers.", 4)}
    answer = proxy.call("POST", CHAT, value=value, timeout_s=LONG_S)
    assert answer.status == 200, answer.body


def _learned(proxy: SwapchartProcess) -> dict[str, dict[str, Any]]:
    rows = proxy.get("/api/memory")["learned"]
    return {row["model"]: row for row in rows if row["pool"] == "RAM"}


def _pss(proxy: SwapchartProcess, context: int) -> int:
    """Return the proportional set size of the server with *context*; bytes."""
    (process,) = [
        found for found in proxy.find("--ctx-size") if str(context) in found.cmdline()
    ]  # fmt: skip
    return int(process.memory_full_info().pss)


def _estimate(proxy: SwapchartProcess, model: str) -> int:
    """Return what a start of *model* needs by `explain`; bytes."""
    lines = proxy.get(f"/api/models/{model}/explain")["memory"]
    (line,) = [line for line in lines if line.startswith("= ")]
    assert line.endswith("(estimated)"), lines
    number, unit = line.partition(" free, ")[2].split()[:2]
    return int(float(number) * {"MiB": 1, "GiB": 1024}[unit] * MIB)


@pytest.mark.parametrize("window", [0, 128])
@pytest.mark.parametrize(
    ("slots", "extra"), [(1, ()), (4, ()), (4, ("-kvu",)), (1, ("--swa-full",)), (1, ("-ub", "64"))]
)
def test_memory_kv_cache_by_arithmetic_is_what_the_server_allocates(
    llama_program: LlamaServer, tmp_path: Path, window: int, slots: int, extra: tuple[str, ...]
) -> None:
    """The server prints the size of each part of its cache, to 0.01 MiB.

    The server in a Python process takes no option for its log.
    """
    model = write_tiny_gguf(tmp_path / "model.gguf", window=window)
    options = {"slots": slots, "extra": ("-lv", "4", *extra)}
    with llama_program.start(model, cwd=tmp_path, **options) as server:  # type: ignore[arg-type]
        server.wait_healthy(LONG_S)
        output = server.output()
    printed = [float(size) for size in re.findall(r"KV buffer size = +([\d.]+) MiB", output)]
    argv = llama_program.argv(model, 1, **options)  # type: ignore[arg-type]
    line = server_line(argv)

    assert line is not None
    assert len(printed) == (2 if window else 1)
    assert kv_bytes(read_gguf(model), line) / MIB == pytest.approx(sum(printed), abs=0.02)


def test_memory_of_a_llama_server_is_estimated_learned_and_decided_on(
    smollm2_llama: LlamaServer, smollm2: Path, serve: Serve, tmp_path: Path
) -> None:
    """Case 23: two of the three fit into 1 GiB, the third one needs both gone."""
    models = _models(smollm2_llama, smollm2, tmp_path)
    state = ("--state-dir", str(tmp_path / "state"))
    proxy = serve(models, config=MEMORY, options=state)
    estimates = {name: _estimate(proxy, name) for name in models}

    for name, context in CONTEXTS.items():
        _chat(proxy, name)
        pss = _pss(proxy, context)
        wait_until(
            lambda name=name, pss=pss: (  # type: ignore[misc]
                name in _learned(proxy) and _learned(proxy)[name]["highest"] >= 0.99 * pss
            ),
            what=f"{name} learned",
        )
        learned = _learned(proxy)[name]
        assert learned["highest"] <= 1.01 * pss
        assert learned["claim"] == learned["highest"] + int(learned["highest"] * 0.03)
        assert learned["method"] == "process"
        error = estimates[name] / learned["highest"] - 1
        print(
            f"-c {context}: PSS {pss / MIB:.1f}, learned {learned['highest'] / MIB:.1f} "
            f"({learned['highest'] / pss - 1:+.2%}), estimated {estimates[name] / MIB:.0f} MiB "
            f"({error:+.1%})"
        )
        assert abs(error) <= (0.15 if smollm2_llama.is_real else 0.5)
        assert proxy.call("POST", f"/api/models/unload/{name}").status == 200

    for name in ("small", "middle"):
        _chat(proxy, name)
    assert {*proxy.running()} == {"small", "middle"}
    holders = proxy.get("/api/memory")["models"]
    assert {holder["source"] for holder in holders} == {"learned"}
    assert {*proxy.get("/api/models/large/explain")["evict"]} == {"small", "middle"}
    _chat(proxy, "large")
    assert {*proxy.running()} == {"large"}
    before = _learned(proxy)
    assert proxy.stop() == 0

    again = serve(models, config=MEMORY, options=state)
    assert {name: row["claim"] for name, row in _learned(again).items()} == {
        name: row["claim"] for name, row in before.items()
    }
    assert again.call("DELETE", "/api/memory/learned/large").json() == {
        "model": "large", "launches": 1
    }  # fmt: skip
    assert {*_learned(again)} == {"small", "middle"}
    assert abs(_estimate(again, "large") - estimates["large"]) < 2 * MIB


def test_llama_server_that_runs_out_of_memory_says_what_a_smaller_context_saves(
    smollm2_llama: LlamaServer, smollm2: Path, serve: Serve, tmp_path: Path
) -> None:
    """A limit of its address space makes the KV cache of 720 MiB fail."""
    model = _models(smollm2_llama, smollm2, tmp_path)["large"]
    limited = ["sh", "-c", 'ulimit -v 1100000; exec "$@"', "sh", *model["cmd"]]
    proxy = serve({"large": {**model, "cmd": limited}}, config=MEMORY)
    refused = proxy.call(
        "POST", CHAT, value={"model": "large", **chat("Name three rivers.", 4)}, timeout_s=LONG_S
    )
    error = refused.json()["error"]
    print(error["message"])
    assert (refused.status, error["code"]) == (502, "out_of_memory")
    assert "To run it: -c 32768 -> 16384 saves" in error["message"]
    if smollm2_llama.is_real:
        assert "an allocation of 720 MiB of main memory failed" in error["message"]
        assert "failed to allocate" in error["message"]
