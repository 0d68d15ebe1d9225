"""Activity database as llama-swap writes it (``store.path``)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

_FIRST = """
    CREATE TABLE goose_db_version (
        id INTEGER PRIMARY KEY AUTOINCREMENT, version_id INTEGER NOT NULL,
        is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now'))
    );
    INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1), (1, 1);
    CREATE TABLE activity (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        ts_created INTEGER NOT NULL,
        model_id TEXT NOT NULL,
        req_path TEXT NOT NULL DEFAULT '',
        resp_content_type TEXT NOT NULL DEFAULT '',
        resp_status_code INTEGER NOT NULL DEFAULT 0,
        cache_tokens INTEGER NOT NULL DEFAULT 0,
        draft_tokens INTEGER NOT NULL DEFAULT 0,
        draft_acc_tokens INTEGER NOT NULL DEFAULT 0,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        prompt_per_second REAL NOT NULL DEFAULT 0,
        tokens_per_second REAL NOT NULL DEFAULT 0,
        duration_ms INTEGER NOT NULL DEFAULT 0,
        error_msg TEXT NOT NULL DEFAULT '',
        metadata_json TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX idx_activity_created_id ON activity (ts_created DESC, id DESC);
"""
_NEWER = """
    ALTER TABLE activity ADD COLUMN src TEXT NOT NULL DEFAULT '';
    CREATE INDEX idx_activity_src_created_id ON activity (src, ts_created DESC, id DESC);
    CREATE TABLE activity_totals (model_id TEXT PRIMARY KEY, request_count INTEGER NOT NULL);
"""
_ROWS = """
    INSERT INTO activity (id, ts_created, model_id, req_path, resp_content_type, resp_status_code,
        cache_tokens, input_tokens, output_tokens, prompt_per_second, tokens_per_second,
        duration_ms, error_msg, metadata_json)
    VALUES
        (7, 1700000000, 'q', '/v1/chat/completions', 'application/json', 200,
            -1, 11, 12, 13.5, -1, 1500, '', ''),
        (9, 1700000001, 'r', '/v1/completions', 'text/event-stream', 502,
            3, 1, 2, 0, 0, 20, 'gone', '{"selector":"s"}');
"""


def write_llama_swap_store(path: Path, *, is_newer: bool) -> Path:
    """Write a database with two rows, as one of two versions of llama-swap does; returns *path*."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(_FIRST + (_NEWER if is_newer else "") + _ROWS)
    return path
