"""From a folder of models to a response of a real llama-server, in two commands."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tools.llama import LlamaServer
from tools.swapchart_process import Serve

pytestmark = pytest.mark.llama


def test_init_and_serve_answer_with_a_real_server(
    real_llama: LlamaServer, tiny_gguf: Path, tmp_path: Path, serve: Serve
) -> None:
    """`init` writes what `serve` runs; each model is asked once under the name it was given."""
    models, work, programs = (tmp_path / name for name in ("models", "work", "bin"))
    for folder in (models, work, programs):
        folder.mkdir()
    shutil.copy(tiny_gguf, models / "tiny-F32.gguf")
    command = shlex.join(real_llama.command)
    (programs / "llama-server").write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    (programs / "llama-server").chmod(0o755)
    argv = [sys.executable, "-m", "swapchart", "init", str(models), "-o", "made.yaml"]
    path = {**real_llama.env, "PATH": f"{programs}:/usr/bin:/bin"}
    said = subprocess.check_output(argv, cwd=work, env=path, text=True, timeout=60)

    proxy = serve(config=(work / "made.yaml").read_text(), env=path)

    assert "note:" not in said  # llama-server was found
    assert proxy.chat("tiny").status == 200
