"""The `swapchart` command: one module per group of commands, imported when it runs."""

from .main import main

__all__ = ["main"]
