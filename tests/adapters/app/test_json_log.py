"""Log lines as JSON: facts, exceptions, and the number of a swap."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from tools.virtual import World, run_scenario, swap_and_unload

from swapchart.adapters.app.json_log import JsonFormatter
from swapchart.adapters.app.transition_log import TransitionLog
from swapchart.runtime.testing import service


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def record_of(message: str, *values: object, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("swapchart.test")
    return logger.makeRecord(
        "swapchart.test", logging.WARNING, __file__, 1, message, values, None, extra=extra
    )


def test_json_log_line_has_time_level_logger_and_message() -> None:
    found = formatted(record_of("%s is \n odd", "it"))
    assert (found["level"], found["logger"]) == ("warning", "swapchart.test")
    assert found["message"] == "it is \n odd"
    assert found["time"].endswith("Z")
    assert [*found] == ["time", "level", "logger", "message"]


def test_json_log_line_has_its_facts_but_no_empty_ones() -> None:
    facts = {"model": "a", "request": "", "code": None, "after": 1.5000000000005457, "level": "no"}
    found = formatted(record_of("long", facts=facts, sentence="short"))
    assert (found["message"], found["model"], found["after"]) == ("short", "a", 1.5)
    assert found["level"] == "warning"
    assert not {"request", "code"} & {*found}


def test_json_log_line_has_the_traceback_of_an_exception() -> None:
    record = record_of("failed")
    try:
        raise ValueError("why")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert formatted(record)["exception"].endswith("ValueError: why")


def test_lines_of_one_swap_have_the_same_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "swapchart.models")

    async def scenario(world: World) -> None:
        world.supervisor.listen(TransitionLog().take)
        await swap_and_unload(world)

    run_scenario(scenario, service("a"), service("b"))
    found = [
        row for row in map(formatted, caplog.records) if row["logger"] == "swapchart.models"
    ]  # fmt: skip
    ids = list(dict.fromkeys(row["swap"] for row in found))
    assert [(row["model"], row["event"], ids.index(row["swap"])) for row in found] == [
        ("a", "loading", 0), ("a", "ready", 0), ("a", "stopping", 1), ("a", "stopped", 1),
        ("b", "loading", 1), ("b", "ready", 1), ("b", "stopping", 2), ("b", "stopped", 2),
    ]  # fmt: skip
