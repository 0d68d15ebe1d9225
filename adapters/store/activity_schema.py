"""Schema of the store of finished requests.

The table has a name of its own, so that the file may be one that llama-swap wrote (``store.path``):
its rows are copied once, and its own tables are left as they are, so that it can open the file
again.

Source: llama-swap's table ``activity``, whose times are seconds since 1970.
"""

from __future__ import annotations

from sqlite3 import Connection

from . import timeline_schema
from .database_file import Migration

TABLE = "swapchart_activity"

_CREATE = (
    f"""
    CREATE TABLE {TABLE} (
        id INTEGER PRIMARY KEY,
        time INTEGER NOT NULL,          -- wall clock; milliseconds since 1970
        model TEXT NOT NULL,
        req_path TEXT NOT NULL,
        resp_content_type TEXT NOT NULL,
        resp_status_code INTEGER NOT NULL,
        cached INTEGER NOT NULL,        -- tokens; -1 is unknown
        drafted INTEGER NOT NULL,
        accepted INTEGER NOT NULL,
        prompt INTEGER NOT NULL,
        generated INTEGER NOT NULL,
        prompt_speed REAL NOT NULL,     -- tokens a second; -1 is unknown
        gen_speed REAL NOT NULL,
        duration INTEGER NOT NULL,      -- milliseconds
        waited INTEGER NOT NULL,        -- of `duration`: until the model was ready
        first_byte INTEGER NOT NULL,    -- of `duration`: until the response began
        error_msg TEXT NOT NULL,
        metadata TEXT NOT NULL          -- JSON
    )
    """,
    f"CREATE INDEX {TABLE}_model ON {TABLE} (model, id)",
    f"CREATE INDEX {TABLE}_time ON {TABLE} (time)",
)

_IMPORT = f"""
    INSERT INTO {TABLE}
    SELECT id, ts_created * 1000, model_id, req_path, resp_content_type, resp_status_code,
        cache_tokens, draft_tokens, draft_acc_tokens, input_tokens, output_tokens,
        prompt_per_second, tokens_per_second, duration_ms, 0, 0, error_msg,
        CASE metadata_json WHEN '' THEN '{{}}' ELSE metadata_json END
    FROM activity
"""


def _create(db: Connection) -> None:
    """Create the table, from the one of version 1 or with the rows of llama-swap."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(activity)")}
    if "first_byte" in columns:
        db.execute(f"ALTER TABLE activity RENAME TO {TABLE}")
        return
    for statement in _CREATE:
        db.execute(statement)
    if {"ts_created", "model_id", "metadata_json"} <= columns:
        db.execute(_IMPORT)


#: Version 1 was a table ``activity``, which `_create` renames.
MIGRATIONS: tuple[Migration, ...] = (
    lambda _: None,
    _create,
    # X-Request-ID; empty in rows of older versions
    f"ALTER TABLE {TABLE} ADD COLUMN request_id TEXT NOT NULL DEFAULT ''",
    timeline_schema.WAITS,
)
