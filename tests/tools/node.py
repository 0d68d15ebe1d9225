"""Packages of Node for tests that compare with engines in JavaScript.

They are installed into a cache outside of the checkout, once. Where there is no Node, or no
registry, the tests that need them are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from .vendor_ui import FILES as UI_FILES

#: Packages and the versions that the tests were written for.
VERSIONS = {
    "xstate": "5.33.3",
    "@scion-scxml/scxml": "4.3.27",
    "@scion-scxml/test-framework": "2.0.16",
    "typescript": "7.0.2",
    "axe-core": "4.14.1",
}
#: Package -> further packages that are installed beside it: libraries whose types are checked.
BESIDE = {
    "typescript": {name: version for made in UI_FILES.values() for name, version in made.items()}
}


def package_folder(name: str) -> Path:
    """Return a folder whose ``node_modules`` has package *name*; skip the test if it cannot."""
    folder, problem = _installed(name)
    if problem:
        pytest.skip(f"no npm package {name}: {problem}")
    return folder


@cache
def _installed(name: str) -> tuple[Path, str]:
    wanted = f"{name}@{VERSIONS[name]}"
    beside = [f"{other}@{version}" for other, version in BESIDE.get(name, {}).items()]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "swapchart-tests" / "_".join([wanted, *beside]).replace("/", "+")
    if (folder / "installed").exists():
        return folder, ""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return folder, "there is no node or npm; on Debian: apt-get install nodejs npm"
    scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
    scratch.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix",
               str(scratch), wanted, *beside]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        problem = "" if done.returncode == 0 else f"npm failed: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired:
        problem = "npm took more than 240 s"
    if problem:
        shutil.rmtree(scratch, ignore_errors=True)
        return folder, problem
    (scratch / "installed").touch()
    try:
        scratch.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(scratch, ignore_errors=True)
    return folder, ""


def run_node(package: str, script: Path, arguments: Sequence[str], *, given: str) -> str:
    """Run *script* with *given* on standard input, in a folder that has *package*.

    Returns:
        What it wrote to standard output.
    """
    folder = package_folder(package)
    link = script.parent / "node_modules"
    if not link.exists():
        link.symlink_to(folder / "node_modules")
    done = subprocess.run(
        ["node", str(script), *arguments], input=given, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
