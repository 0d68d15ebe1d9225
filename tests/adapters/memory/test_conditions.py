"""Conditions to leave memory to other programs: real programs and commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import anyio
import pytest

from swapchart.adapters.memory.conditions import CommandSucceeds, ProgramRuns


def _reason(condition: ProgramRuns | CommandSucceeds, own: Collection[int] = ()) -> str:
    async def main() -> str:
        return await condition.reason(own)

    return anyio.run(main)


@pytest.mark.parametrize("pattern", ["swapchart-strang*", "*-stranger-of-a-test", "bl[e]nder"])
def test_program_runs_finds_a_real_program_by_its_name(tmp_path: Path, pattern: str) -> None:
    name = "blender" if pattern.startswith("bl") else "swapchart-stranger-of-a-test"
    program = tmp_path / name
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, program)
    condition = ProgramRuns([pattern])
    assert _reason(condition) == ""
    with subprocess.Popen([program, "30"]) as process:
        try:
            assert _reason(condition) == f"{name} is running"
            assert _reason(condition, own=[process.pid]) == "", "a service is no other program"
        finally:
            process.kill()
    assert _reason(condition) == ""


def test_program_runs_knows_names_cut_by_the_kernel_and_paths_of_windows(tmp_path: Path) -> None:
    folder = tmp_path / "proc/12"
    folder.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("")
    (folder / "comm").write_text("steam_app_12345\n")
    (folder / "cmdline").write_bytes(b"C:\\games\\Doom.exe\0-f\0")
    assert _reason(ProgramRuns(["steam_app_*"], tmp_path)) == "steam_app_12345 is running"
    assert _reason(ProgramRuns(["Doom.exe"], tmp_path)) == "Doom.exe is running"
    assert _reason(ProgramRuns(["games", "doom"], tmp_path)) == ""
    (tmp_path / "proc/13").mkdir()  # it has ended
    assert _reason(ProgramRuns(["x"], tmp_path)) == ""


def test_command_succeeds_says_what_its_status_is() -> None:
    assert _reason(CommandSucceeds(["true"])) == "true succeeds"
    assert _reason(CommandSucceeds(["false"])) == ""


def test_command_that_hangs_or_is_missing_is_not_known_and_takes_one_thread() -> None:
    with pytest.raises(OSError, match="cannot run"):
        _reason(CommandSucceeds(["/does/not/exist"]))
    condition = CommandSucceeds([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.2)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"took more than 0.2 s|no reading within"):
        _reason(condition)
    assert time.monotonic() - began < 10.0
