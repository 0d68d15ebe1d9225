"""Store of instances: real files, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from swapchart.adapters.store import InstanceStore, StoreError
from swapchart.machine import Machine, read
from swapchart.runtime import Actions, Host

#: Kills of one counting process; a thousand take ten minutes.
KILLS = 1000 if os.environ.get("SWAPCHART_LONG") == "1" else 12

COUNTER = """
format: swapchart.chart/v1
name: Counter
data: {n: {initial: 0}}
events: {tick: {}, late: {origin: timer, of: limit}}
actions:
  add: {set: {n: n + 1}}
  arm: {do: {effect: timer.start, timer: limit}}
chart:
  states:
    on:
      initial: true
      enter: arm
      transitions: [{event: tick, "on": add}, {event: late, target: on}]
"""

#: Counts for ever and prints each number that was acknowledged.
PROGRAM = f'''
import sys
from pathlib import Path
import anyio
from swapchart.adapters.store import InstanceStore
from swapchart.machine import Machine, read
from swapchart.runtime import Actions, Host

CHART = Machine(read("""{COUNTER}"""))
ACTIONS = Actions(timers={{"limit": 3600}})

async def main():
    with InstanceStore(Path(sys.argv[1])) as store:
        async with Host(store=store) as host:
            for snapshot in store.load():
                host.resume(CHART, snapshot, actions=ACTIONS)
            if "c" not in host:
                host.start(CHART, id="c", actions=ACTIONS)
            one = host["c"]
            print("begun", one.data["n"], flush=True)
            while True:
                step = one.post("tick")
                print(step.data["n"], flush=True)

anyio.run(main)
'''


def chart() -> Machine:
    return Machine(read(COUNTER))


ACTIONS = Actions(timers={"limit": 3600})


@pytest.mark.slow
def test_store_of_a_killed_process_has_each_acknowledged_step(tmp_path: Path) -> None:
    """However often it is killed, the process goes on from the last number that it printed."""
    path, rng = tmp_path / "instances.db", random.Random(5)
    acknowledged = 0
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            word, begun = child.stdout.readline().split()
            assert word == "begun"
            # One step more may be kept than was printed.
            assert acknowledged <= int(begun) <= acknowledged + 1
            time.sleep(rng.uniform(0, 0.2))
            child.send_signal(signal.SIGKILL)
            lines = child.stdout.read().splitlines()
        finally:
            child.kill()
            child.communicate()
        whole = [line for line in lines if line]
        acknowledged = int(whole[-1]) if whole else int(begun)
    assert acknowledged > KILLS


def test_store_keeps_instances_in_order_with_payloads(tmp_path: Path) -> None:
    """What was saved last comes back; a removed instance does not."""
    path = tmp_path / "instances.db"

    async def first() -> None:
        with InstanceStore(path, encode=list, decode=tuple, survives_power_loss=True) as store:
            async with Host(store=store) as host:
                for name in "abc":
                    host.start(chart(), id=name, actions=ACTIONS, payload=(name, 1))
                host["a"].post("tick")
                host.remove("b")

    async def second() -> None:
        with InstanceStore(path, encode=list, decode=tuple) as store:
            async with Host(store=store) as host:
                for snapshot in store.load():
                    host.resume(chart(), snapshot, actions=ACTIONS)
                found = [(one.id, one.payload, one.data["n"], one.number) for one in host]
                assert found == [("a", ("a", 1), 1, 1), ("c", ("c", 1), 0, 0)]
                assert list(host["a"].snapshot().timers) == ["limit"]

    anyio.run(first)
    anyio.run(second)
    assert (path.stat().st_mode & 0o077) == 0


def test_store_that_is_damaged_says_so(tmp_path: Path) -> None:
    """A file that is no database, a newer one, and a broken row are errors with the name."""
    path = tmp_path / "instances.db"
    path.write_text("no database at all, and long enough to be looked at" * 50)
    path.chmod(0o600)
    with pytest.raises(StoreError, match=r"instances\.db cannot be used"):
        InstanceStore(path)
    path.unlink()

    async def fill() -> None:
        with InstanceStore(path) as store:
            async with Host(store=store) as host:
                host.start(chart(), id="a", actions=ACTIONS)

    anyio.run(fill)
    for text, why in (("{", "expected JSON"), ("{}", "is missing"), ("[]", "expected a mapping")):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE instance SET snapshot = ?", (text,))
        db.close()
        with InstanceStore(path) as store:
            assert list(store.load()) == []
            assert why in str(store.damaged["a"])
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        InstanceStore(path)


def test_store_that_cannot_write_undoes_the_step(tmp_path: Path) -> None:
    """A table that is gone is as a full disk: the step fails and nothing was changed."""

    async def main() -> None:
        with InstanceStore(tmp_path / "instances.db") as store:
            async with Host(store=store) as host:
                one: Any = host.start(chart(), id="a", actions=ACTIONS)
                store._db.execute("DROP TABLE instance")
                with pytest.raises(Exception, match="the store failed: StoreError"):
                    one.post("tick")
                assert one.data == {"n": 0}
                assert one.number == 0

    anyio.run(main)
