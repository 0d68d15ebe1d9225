"""Runs each command of swapchart without the packages of its extras.

Run by CI in an environment that holds the wheel without extras; tests/test_bare_install.py hides
these packages. Ends with code 0 if each command either works or says in one line which extra it
needs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from swapchart.adapters.cli.main import build_parser
from swapchart.adapters.system.extras import EXTRAS

_LIMIT_S = 60.0

#: Commands that take many seconds, and import no more than `chart export`.
_SLOW = {("chart", "check"), ("chart", "diagrams")}
_NEEDS = re.compile(r"swapchart: .* needs the Python package (\w+), .* the extra `(\w+)`, .*\n")
_RUN = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from swapchart.adapters.cli import main
sys.exit(main(sys.argv[2:]))
"""


def leaves(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yield the words of each command, with as few arguments as it takes."""
    arguments: list[str] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from leaves(child, (*words, name))
            return
        value = str(next(iter(action.choices))) if action.choices else "x"
        if action.option_strings and action.required:
            arguments += [action.option_strings[0], value]
        elif not action.option_strings and action.nargs in (None, "+"):
            arguments.append(value)
    yield (*words, *arguments)


def problem(words: Sequence[str], folder: str) -> str | None:
    """Return what is wrong with the command's end; None if it works or names its extra."""
    argv = [sys.executable, "-P", "-c", _RUN, ",".join(EXTRAS), *words]
    try:
        done = subprocess.run(
            argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"still runs after {_LIMIT_S:.0f} s"
    if done.returncode == 0:
        return None
    found = _NEEDS.fullmatch(done.stderr)
    if found is not None and EXTRAS[found[1]] == found[2] and done.returncode == 1:
        return None
    is_one_line = done.stderr.startswith(("swapchart: ", "usage: ")) and "Trace" not in done.stderr
    return None if is_one_line and done.returncode in (1, 2) else done.stderr or "silent failure"


def main() -> int:
    """Check all commands; returns the exit code."""
    commands = [words for words in leaves(build_parser()) if words not in _SLOW]
    with tempfile.TemporaryDirectory() as folder:
        text = 'models: {a: {cmd: "swapchart demo-server --model a --port ${PORT}"}}\n'
        Path(folder, "config.yaml").write_text(text)
        found = {words: problem(words, folder) for words in commands}
    bad = {words: why for words, why in found.items() if why is not None}
    for words, why in bad.items():
        print(f"swapchart {' '.join(words)}: {why}")
    print(f"{len(found) - len(bad)} of {len(found)} commands work or name their extra")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
