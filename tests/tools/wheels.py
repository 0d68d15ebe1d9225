"""Checks the wheels of a folder: their metadata, and which of them pip takes on which Python.

    python tests/tools/wheels.py FOLDER

The folder holds the plain wheel and the compiled one. Run by CI with the Python of the latter.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

_COMPILED = re.compile(r"swapchart-[\d.]+-(cp3(\d+))-\1-(linux_\w+)\.whl")
_PLAIN = re.compile(r"swapchart-[\d.]+-py3-none-any\.whl")
_NEWEST_MINOR = 14


def facts(wheel: Path) -> Mapping[str, str]:
    """Return name, license, tag and further lines of the metadata of *wheel*.

    Raises:
        ValueError: The text of the license is missing, or the tag is not that of the name.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (folder,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        texts = (archive.read(f"{folder}/{name}").decode() for name in ("METADATA", "WHEEL"))
        metadata, build = (Parser().parsestr(text) for text in texts)
    if f"{folder}/licenses/LICENSE" not in names:
        raise ValueError(f"{wheel.name} has no LICENSE in {folder}/licenses")
    libraries = [name for name in names if name.endswith(".so")]
    found = {
        "name": metadata["Name"], "license": metadata["License-Expression"],
        "python": metadata["Requires-Python"], "tag": build["Tag"],
        "pure": build["Root-Is-Purelib"], "libraries": str(len(libraries)),
    }  # fmt: skip
    if not wheel.name.endswith(f"-{found['tag']}.whl"):
        raise ValueError(f"{wheel.name} has the tag {found['tag']}")
    return found


def glibc(wheel: Path) -> str:
    """Return the newest version of glibc whose symbols the libraries of *wheel* need."""
    with zipfile.ZipFile(wheel) as archive:
        data = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".so"))
    found = re.findall(rb"\bGLIBC_(\d+)\.(\d+)", data)
    return "{}.{}".format(*max((int(major), int(minor)) for major, minor in found))


def taken(folder: Path, minor: int, platform: str) -> str:
    """Return the name of the wheel of *folder* that pip takes for Python 3.*minor*."""
    with tempfile.TemporaryDirectory() as target:
        subprocess.run(
            [
                sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet",
                "--no-index", "--find-links", str(folder), "--no-deps", "--only-binary", ":all:",
                "--python-version", f"3.{minor}", "--platform", platform, "--dest", target,
                "swapchart",
            ],
            check=True,
        )  # fmt: skip
        (found,) = (path.name for path in Path(target).iterdir())
    return found


def problems(folder: Path) -> list[str]:
    """Return what is wrong with the wheels of *folder*, and print what they are."""
    names = sorted(path.name for path in folder.glob("*.whl"))
    compiled = [match for name in names if (match := _COMPILED.fullmatch(name))]
    plain = [name for name in names if _PLAIN.fullmatch(name)]
    if len(compiled) != 1 or len(plain) != 1 or len(names) != 2:
        return [f"expected a compiled and a plain wheel in {folder}, found {', '.join(names)}"]
    ((_, own, platform), name) = (compiled[0].groups(), compiled[0].string)
    found = []
    for wheel, is_pure in ((name, "false"), (plain[0], "true")):
        told = facts(folder / wheel)
        print(f"{wheel}: {told}")
        is_right = (told["name"], told["license"], told["pure"]) == ("swapchart", "MIT", is_pure)
        if not is_right or (told["libraries"] == "0") != (is_pure == "true"):
            found.append(f"{wheel}: unexpected metadata")
    print(f"{name}: glibc {glibc(folder / name)} or newer")
    for minor in range(11, _NEWEST_MINOR + 1):
        takes = taken(folder, minor, platform)
        print(f"Python 3.{minor} on {platform}: {takes}")
        if takes != (name if minor == int(own) else plain[0]):
            found.append(f"pip takes {takes} for Python 3.{minor}")
    if taken(folder, int(own), "linux_riscv64") != plain[0]:
        found.append("pip takes the compiled wheel on another processor")
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems(Path(sys.argv[1]))) or None)
