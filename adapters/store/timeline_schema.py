"""Schema of what the timeline adds to the journal and to the store of finished requests."""

from __future__ import annotations

#: Added to the journal.
JOURNAL = """
    ALTER TABLE transition ADD COLUMN swap_id TEXT NOT NULL DEFAULT '';       -- empty: of none
    ALTER TABLE transition ADD COLUMN swap_cause TEXT NOT NULL DEFAULT '';    -- a SwapCause
    ALTER TABLE transition ADD COLUMN swap_request TEXT NOT NULL DEFAULT '';  -- X-Request-ID
    CREATE INDEX transition_time ON transition (at, service);
    CREATE INDEX transition_instance ON transition (instance, at);
    CREATE INDEX transition_swap ON transition (swap_id, id);
    CREATE TABLE memory_sample (
        at INTEGER NOT NULL,            -- wall clock; milliseconds since 1970
        device TEXT NOT NULL,           -- name of a memory pool, RAM or a GPU
        used INTEGER NOT NULL,          -- bytes
        capacity INTEGER NOT NULL       -- bytes
    );
    CREATE INDEX memory_sample_time ON memory_sample (at);
    CREATE TABLE restored (             -- slots that were filled from saved ones after a start
        at INTEGER NOT NULL,            -- wall clock; milliseconds since 1970
        service TEXT NOT NULL,
        tokens INTEGER NOT NULL,
        ms REAL NOT NULL,               -- duration of the restore
        saved_ms REAL,                  -- expected time to read the tokens anew; NULL is unknown
        swap_id TEXT NOT NULL
    );
    CREATE INDEX restored_time ON restored (at);
"""

#: Added to the store of finished requests: those that had to wait for their model.
WAITS = """
    CREATE TABLE swapchart_wait (
        id INTEGER PRIMARY KEY,         -- id of the row of activity
        swap_id TEXT NOT NULL,          -- the swap that it waited for; empty for none
        queue INTEGER NOT NULL,         -- milliseconds, as the next three
        evict INTEGER NOT NULL,
        start INTEGER NOT NULL,
        hooks INTEGER NOT NULL,
        resident TEXT NOT NULL,         -- JSON list of models
        evicted TEXT NOT NULL,          -- JSON list of models
        reasons TEXT NOT NULL           -- JSON list of [milliseconds after the arrival, reason]
    );
    CREATE INDEX swapchart_wait_swap ON swapchart_wait (swap_id);
"""
