"""Containers as the documents advise them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from tools import shown

pytestmark = pytest.mark.slow


def options_of(engine: str, command: str) -> set[str]:
    """Return the options that the help of a command of *engine* lists."""
    done = subprocess.run([engine, command, "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"(?<!\S)--?[a-z][\w-]*", done.stdout))


@pytest.mark.parametrize(("page", "command"), shown.items(shown.ENGINE))
def test_docs_option_of_a_container_engine_exists(page: str, command: str) -> None:
    """The subcommands and options that are shown are those of docker and of podman."""
    engines = [name for name in ("docker", "podman") if shutil.which(name)]
    if not engines:
        pytest.skip("NOT TESTED: no docker and no podman; on Debian: apt-get install podman")
    _, subcommand, *options = command.split()

    for engine in engines:
        known = options_of(engine, subcommand)
        assert known
        assert {option for option in options if option.startswith("-")} - known == set()
