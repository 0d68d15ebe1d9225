"""Parser of one command: help with examples, laid out without importing shutil."""

from __future__ import annotations

import argparse
import os
from typing import Any


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formatter that keeps the lines of examples.

    It finds the width of the terminal itself: argparse imports shutil for that, even if no help is
    printed, which takes 12 ms of CPU.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=max(_columns() - 2, 20))


def path_or_name(text: str) -> str:
    """Return *text*; the type of an argument that shells complete as a path, and may be a name."""
    return text


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


class CommandParser(argparse.ArgumentParser):
    """Parser whose help shows examples.

    Attributes:
        is_intermixed: Options may stand between arguments, of which the last one is optional;
            argparse takes it as absent otherwise.
    """

    def __init__(self, **given: object) -> None:
        super().__init__(formatter_class=HelpFormatter, **given)  # type: ignore[arg-type]
        self.is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as ArgumentParser does, or intermixed."""
        if not self.is_intermixed:
            return super().parse_known_args(args, namespace)
        self.is_intermixed = False  # parse_known_intermixed_args comes here again
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.is_intermixed = True

    def examples(self, *lines: str) -> None:
        """Show *lines* below the options; each is a command, and a comment behind two blanks."""
        self.epilog = "examples:\n" + "\n".join(f"  {line}" for line in lines)
