"""Compiles the hot path when a wheel is built with SWAPCHART_COMPILE=1; needs a C compiler.

The modules that every request goes through are named in pyproject.toml. They are ordinary Python,
and run as such from a checkout; mypyc takes a third off what a request costs. The wheel holds both,
and the interpreter takes what was compiled. `./dev wheel` builds it beside the plain one.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_GROUP = "swapchart.hot"  # of what is compiled together; gives the library its name
_MYPY = """\
[mypy]
ignore_missing_imports = true
follow_imports = silent
explicit_package_bases = true
"""


class CompilingHook(BuildHookInterface[Any]):
    """The hook of hatchling's wheel builder."""

    PLUGIN_NAME = "custom"

    @property
    def _is_asked(self) -> bool:
        return os.environ.get("SWAPCHART_COMPILE", "0") == "1"

    def dependencies(self) -> list[str]:
        """Return what compiling needs, where it is asked for."""
        needs: list[str] = self.config["compiler"]
        return needs if self._is_asked else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add what comes out to the wheel; an editable one runs the sources.

        Raises:
            RuntimeError: There is nothing to compile with.
        """
        if not self._is_asked or version == "editable":
            return
        _check_compiler()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        self._folder = tempfile.TemporaryDirectory(prefix="swapchart-build-")
        package = self._compile(Path(self._folder.name))
        for path in sorted(package.rglob("*.so")):
            build_data["force_include"][str(path)] = str(path.relative_to(package))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way; of a failed build it goes with the interpreter."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()

    def _compile(self, folder: Path) -> Path:
        """Return the folder of the compiled package; a copy is compiled, in *folder*."""
        from mypyc.build import mypycify
        from setuptools import Distribution
        from setuptools.command.build_ext import build_ext

        sources = self.build_config.target_config["only-include"]
        package = folder / "swapchart"
        package.mkdir()
        for name in sources:
            source = Path(self.root, name)
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, package / name)
        (folder / "mypy.ini").write_text(_MYPY)
        with chdir(folder):
            modules = [f"swapchart/{name}" for name in self.config["modules"]]
            options = ["--config-file", "mypy.ini", *modules]
            # With what debuggers read, the library takes 8.9 MB instead of 5.7.
            extensions = mypycify(options, group_name=_GROUP, debug_level="0")
            command = build_ext(Distribution({"name": "swapchart", "ext_modules": extensions}))
            command.build_lib, command.build_temp = "compiled", "objects"
            command.ensure_finalized()
            command.run()
        return folder / "compiled" / "swapchart"


def _check_compiler() -> None:
    missing = []
    if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc"))):
        missing.append("a C compiler (on Debian: apt-get install gcc)")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append("Python's headers (on Debian: apt-get install python3-dev)")
    if missing:
        raise RuntimeError(f"SWAPCHART_COMPILE=1 needs {' and '.join(missing)}")
