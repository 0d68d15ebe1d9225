"""Attacks on stored state, logs and background tasks."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.net import wait_until

from .entry import Attack
from .target import Target, play_response

MISTAKES = 1000  # as many as one reload tells
ABSURD = ("9" * 309, "9" * 310, "9" * 4000, "1e400", "-1e400", "5e-324", "NaN", "1e15")
_NOT_APPLIED = "the old one stays|empty where|models are gone|found a|mistake|cannot be read"


# ---- numbers
def absurd_numbers_in_responses(target: Target) -> None:
    """Each response arrives whole, and is written down: none is lost for its numbers."""
    before = last_activity(target)
    responses = 0
    for number in ABSURD:
        usage = f'{{"prompt_tokens":{number},"completion_tokens":{number}}}'
        timings = f'{{"prompt_n":1,"prompt_ms":{number},"cache_n":{number},"predicted_n":{number}}}'
        metrics = f'{{"time_to_first_token_ms":{number},"mean_itl_ms":{number}}}'
        small = '{"prompt_tokens":3,"completion_tokens":4}'
        for text in (
            f'{{"usage":{usage}}}', f'{{"timings":{timings}}}',
            f'{{"usage":{small},"metrics":{metrics}}}',
        ):  # fmt: skip
            head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text)
            reply = target.ask_hostile(play_response(head, text.encode()))
            assert text.encode() in reply, reply[:2000]
            responses += 1

    wait_until(lambda: last_activity(target) >= before + responses, 10.0, what="all rows")
    target.proxy.get("/api/metrics/stats?model=hostile")


def last_activity(target: Target) -> int:
    """Return the number of the last row about a request."""
    rows = target.proxy.get("/api/metrics/activity?limit=1")["data"]
    return int(rows[0]["id"]) if rows else 0


# ---- logs
def flood_of_own_log(target: Target) -> None:
    """A megabyte of log lines holds up no request."""
    with edited(target) as (path, value):
        path.write_text(json.dumps({**value, **dict.fromkeys(_mistakes(), 1)}))
        for _ in range(5):
            answer = target.call("POST", "/api/config/reload")
            assert len(answer.json()["problems"]) >= MISTAKES, answer.body[:500]


def _mistakes() -> list[str]:
    return [f"mistake{number:05}" for number in range(MISTAKES)]


# ---- the configuration
@contextmanager
def edited(target: Target) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give the configuration's file and value; both are as before after the block."""
    path = target.proxy.folder / "config.yaml"
    text = path.read_text()
    try:
        yield path, json.loads(text)
    finally:
        new = path.with_name("new")
        new.write_text(text)
        new.replace(path)
        assert target.call("POST", "/api/config/reload").status == 200


def file_that_is_no_configuration(target: Target) -> None:
    """Empty, cut off, a pipe, a device, a folder, a terabyte: refused at once, nothing stops."""
    pid = target.proxy.running()["demo"]["pid"]
    with edited(target) as (path, value):
        text = json.dumps(value)
        for odd in ("", "# models:\n", text[: len(text) // 2], "\0" * 4096, "- " * 100_000):
            path.write_text(odd)
            assert target.call("POST", "/api/config/reload").status == 400, odd[:20]
        os.truncate(path, 1 << 40)
        assert target.call("POST", "/api/config/reload").status == 400
        for make in (os.mkfifo, Path.mkdir, _to("/dev/zero"), _to("/dev/full"), _to(path.name)):
            path.unlink() if not path.is_dir() else path.rmdir()
            make(path)
            assert target.call("POST", "/api/config/reload").status == 400, make
        path.unlink()
    assert target.proxy.running()["demo"]["pid"] == pid


def _to(there: str) -> Any:
    return lambda path: path.symlink_to(there)


# ---- the store
def database_that_is_locked(target: Target) -> None:
    """A lock of another process delays no request and loses no row."""
    before = last_activity(target)
    path = next((target.proxy.folder / "state").glob("**/activity.db"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(50):
        assert target.proxy.chat("demo").status == 200
    other.execute("COMMIT")
    other.close()

    wait_until(lambda: last_activity(target) >= before + 50, 10.0, what="all rows")


def state_folder_that_is_deleted(target: Target) -> None:
    """It is made again within seconds, and later requests are written down."""
    (folder,) = (path.parent for path in (target.proxy.folder / "state").glob("**/activity.db"))
    shutil.rmtree(folder)
    assert target.proxy.chat("demo").status == 200

    wait_until(lambda: (folder / "activity.db").exists() and last_activity(target), 20.0)


ATTACKS = (
    Attack(absurd_numbers_in_responses, growth_mib=16),
    Attack(flood_of_own_log, may_log=f"{_NOT_APPLIED}|wrong"),
    Attack(file_that_is_no_configuration, growth_mib=16, may_log=f"{_NOT_APPLIED}|error|ERROR"),
    Attack(database_that_is_locked, growth_mib=16, may_log="locked"),
    Attack(state_folder_that_is_deleted, growth_mib=16, may_log="was deleted"),
)
