"""Models leave memory to real programs that take it, and come back when these have ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tools.net import wait_until
from tools.swapchart_process import Serve, SwapchartProcess, demo_model

from swapchart.adapters.cli.main import main

pytestmark = pytest.mark.slow

MIB = 1 << 20
BOX_MIB = 700
STRANGER = """
import sys, time
taken = bytearray(int(sys.argv[1]) << 20)
taken[::4096] = b"x" * len(taken[::4096])
print("taken", flush=True)
time.sleep(600)
"""
#: Prints the bytes of a box of 700 MiB that no marked process holds.
CHECK = """
import pathlib, sys
mark, held = ("BOX=" + sys.argv[1]).encode(), 0
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if mark in (folder / "environ").read_bytes().split(b"\\0"):
            text = (folder / "smaps_rollup").read_text()
            held += int(text.split("\\nPss:")[1].split()[0]) << 10
    except (OSError, IndexError):
        pass
print((int(sys.argv[2]) << 20) - held)
"""


@contextmanager
def stranger(name: str, mib: int, mark: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program of that name, which holds *mib* MiB of real memory."""
    with subprocess.Popen(
        [name, "-c", STRANGER, str(mib)], executable=sys.executable, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "BOX": mark},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "taken\n"
            yield process
        finally:
            process.kill()


def _pool(proxy: SwapchartProcess, name: str) -> dict[str, Any]:
    (found,) = [pool for pool in proxy.get("/api/memory")["pools"] if pool["name"] == name]
    return dict(found)


def test_yield_a_stranger_that_allocates_is_seen_and_the_model_goes_and_comes_back(
    serve: Serve, tmp_path: Path
) -> None:
    """Real memory of real processes, in a box of 700 MiB that a command measures."""
    (tmp_path / "check.py").write_text(CHECK)
    mark = str(tmp_path)
    check = [sys.executable, "-IS", str(tmp_path / "check.py"), mark, str(BOX_MIB)]
    model = demo_model(
        "a", "--allocate-mib", "200", "--quiet", memory={"BOX": "260MiB"}, env=[f"BOX={mark}"]
    )
    rule = {"pools": ["BOX"], "when": {"others": "150MiB"}, "quietFor": 1}
    pools = {"BOX": {"capacity": f"{BOX_MIB}MiB", "check": check}}
    proxy = serve({"a": model}, config={"memory": {"pools": pools}, "yield": [rule]})
    assert proxy.chat("a").status == 200
    assert _pool(proxy, "BOX")["foreign"] == 0

    with stranger("python", 300, mark):
        wait_until(lambda: _pool(proxy, "BOX")["foreign"] >= 200 * MIB)
        wait_until(lambda: proxy.state("a") == "stopped")
        explained = proxy.get("/api/models/a/explain")
        assert explained["outcome"] == "wait"
        assert "BOX is left to other programs (other programs hold" in explained["why"]
        assert _pool(proxy, "BOX")["keep"] == 0
        assert proxy.get("/api/memory")["away"] == [{"model": "a"}]
    wait_until(lambda: proxy.state("a") == "ready")
    assert proxy.chat("a").status == 200
    assert "a comes back" in proxy.output()


def test_yield_requests_wait_while_a_program_of_a_name_runs(serve: Serve, tmp_path: Path) -> None:
    name = f"stranger-{tmp_path.name}"
    rule = {"pools": ["RAM"], "when": {"process": f"{name[:-1]}*"}, "quietFor": 1}
    proxy = serve(
        {"a": demo_model("a", "--quiet", memory="100MiB")},
        config={"memory": {"pools": {"RAM": {"limit": "400MiB"}}}, "yield": [rule]},
    )
    assert proxy.chat("a").status == 200
    answers: list[int] = []
    with stranger(name, 1, ""):
        proxy.wait_state("a", "stopped")
        client = threading.Thread(target=lambda: answers.append(proxy.chat("a").status))
        client.start()
        (request,) = wait_until(lambda: proxy.get("/api/queue")["queue"])
        assert f"RAM is left to other programs ({name} is running)" in request["why"]
        assert not answers
    client.join(60)
    assert answers == [200]


def test_yield_command_leaves_a_pool_to_other_programs_until_its_end(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = serve(
        {"a": demo_model("a", "--quiet", memory="100MiB")},
        config={"memory": {"pools": {"RAM": {"limit": "400MiB"}}}},
    )
    url = ("--url", f"http://127.0.0.1:{proxy.port}")
    assert proxy.chat("a").status == 200
    assert main(["yield", "RAM", "--for", "2h", "--keep", "10MiB", *url]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "RAM is left to other programs for 2h, of which models keep 10MiB;",
        "`swapchart yield RAM --end` ends it",
    ]
    assert _pool(proxy, "RAM")["keep"] == 10 * MIB
    proxy.wait_state("a", "stopped")
    assert main(["yield", "RAM", "--end", "--json", *url]) == 0
    assert json.loads(capsys.readouterr().out) == {"pools": []}
    assert _pool(proxy, "RAM")["keep"] is None
    for wrong, why in (
        (["RAM", "--keep", "80%"], "--keep: expected a size"),
        (["RAM", "--for", "soon"], "--for: expected a duration"),
        (["GPU7"], "no such memory pool"),
    ):
        assert main(["yield", *wrong, *url]) != 0
        assert why in capsys.readouterr().err
