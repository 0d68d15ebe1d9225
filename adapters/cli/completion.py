"""`swapchart completion`: scripts that complete commands in a shell, made by shtab."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from .command_parser import path_or_name
from .parsers import build_parser


def completion(options: argparse.Namespace) -> int:
    """Print the script for a shell.

    Raises:
        ModuleNotFoundError: The extra `cli` is not installed.
    """
    shtab = import_module("shtab")
    parser = build_parser()
    _complete_paths(parser, files=shtab.FILE, folders=shtab.DIRECTORY)
    print(shtab.complete(parser, options.shell))
    return 0


def _complete_paths(
    parser: argparse.ArgumentParser, *, files: Mapping[str, str], folders: Mapping[str, str]
) -> None:
    """Mark what may take the path of a file or a folder, in *parser* and those below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_paths(child, files=files, folders=folders)
        elif action.type in (Path, path_or_name):
            is_folder = action.metavar == "DIR"
            action.complete = folders if is_folder else files  # type: ignore[attr-defined]
