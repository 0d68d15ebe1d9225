"""Persistent state in SQLite.

A `Database` is one file, written by one thread; no request waits for it. On it are built the
`activity` store, a row for each finished request, and the `journal` of state transitions. Both lie
in the `state_directory` of a configuration, which one proxy at a time may lock.
"""

from .database import Database
from .database_file import StoreError

__all__ = ["Database", "StoreError"]
