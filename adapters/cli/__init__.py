"""The `swapchart` command: one module per group of commands, loaded when the group is asked for."""

from .main import main

__all__ = ["main"]
