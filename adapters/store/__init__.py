"""Persistent state in SQLite.

A `Database` is one file, written by one thread; no request waits for it. On it are built the
`activity` store, a row for each finished request, and the `journal` of state transitions. Both lie
in the `state_directory` of a configuration, which one proxy at a time may lock.

`InstanceStore` is apart from these: it keeps the instances of an embedder's own charts, and each
step waits for it.
"""

from .database import Database
from .database_file import StoreError
from .instances import InstanceStore

__all__ = ["Database", "InstanceStore", "StoreError"]
