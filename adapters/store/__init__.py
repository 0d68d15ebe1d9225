"""What is kept on disk: SQLite, written by one thread, never waited for by a request."""

from .database import Database, StoreError

__all__ = ["Database", "StoreError"]
