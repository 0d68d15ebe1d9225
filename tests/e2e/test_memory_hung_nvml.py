"""Acceptance case 28: a driver that hangs, errs, lies or vanishes fails and delays no request.

A library that is compiled here stands in the place of NVML, so that the real package
`nvidia-ml-py` hangs in a real call.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tools.swapchart_process import Edited, Serve, SwapchartProcess, demo_model

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: case 28 has no NVML to hang")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: NVML cannot be replaced"),
]

GIB = 1 << 30
SOURCE = Path(__file__).parent.parent / "tools/nvml.c"
#: Most seconds that a request may take: far less than a call that never ends, or `settle`.
PROMPT_S = 8.0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", target, SOURCE], check=True)
    return folder


class Driver:
    """The library as a proxy sees it."""

    def __init__(self, library: Path, folder: Path, word: str) -> None:
        self._file = folder / "behavior"
        self.behave(word)
        self.env = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML": str(self._file)}

    def behave(self, word: str) -> None:
        new = self._file.with_name("new")
        new.write_text(word)
        new.replace(self._file)


def _models() -> dict[str, Any]:
    return {
        name: demo_model(name, "--quiet", memory={"GPU0": f"{gib}GiB"})
        for name, gib in (("a", 12), ("b", 12), ("c", 2))
    }


def test_acceptance_case_28_driver_that_fails_later_delays_no_request(
    serve: Serve, library: Path, tmp_path: Path
) -> None:
    driver = Driver(library, tmp_path, "works")
    proxy = serve(_models(), env=driver.env, config={"memory": "auto"})
    for name in ("a", "c"):
        assert proxy.chat(name).status == 200
    pool = _gpu(proxy)
    assert (pool["capacity"], pool["source"]) == (24 * GIB, "nvml")

    names = itertools.cycle("ba")  # b and a do not fit together
    for how in ("errors", "lies", "vanishes", "hangs"):
        driver.behave(how)
        began = time.monotonic()
        assert proxy.chat(next(names)).status == 200
        assert time.monotonic() - began < PROMPT_S, how
        pool = _gpu(proxy)
        assert pool["held"] == 14 * GIB, how
        assert pool["foreign"] <= 2 * GIB, how
    assert proxy.stop() == 0


def _gpu(proxy: SwapchartProcess) -> dict[str, Any]:
    (pool,) = [pool for pool in proxy.get("/api/memory")["pools"] if pool["name"] == "GPU0"]
    return dict(pool)


def test_acceptance_case_28_driver_that_hangs_from_the_start_is_one_warning(
    serve: Serve, library: Path, tmp_path: Path
) -> None:
    driver = Driver(library, tmp_path, "hangs")
    live = Edited(
        lambda *args, **keys: serve(*args, env=driver.env, **keys), _models(),
        memory={"pools": {"GPU0": {"capacity": "24GiB"}}},
    )  # fmt: skip
    proxy = live.proxy
    began = time.monotonic()
    assert proxy.chat("a").status == 200
    assert time.monotonic() - began < PROMPT_S
    live.value["models"]["c"]["memory"] = {"GPU0": "3GiB", "RAM": "1MiB"}
    live.value["memory"]["pools"]["GPU1"] = {}
    live.reload()
    assert proxy.chat("c").status == 200
    assert proxy.output().count("memory cannot be read by") == 1
    assert proxy.stop() == 0
