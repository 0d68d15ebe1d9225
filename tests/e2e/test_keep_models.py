"""Models that outlive the proxy: `keepModels`, with real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import time
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from tools.net import LONG_S, wait_until
from tools.successors import HOOKS, Start, ended, guard_of, is_alive, log_of, pid_of, start
from tools.swapchart_process import Journal, SwapchartProcess, demo_model, shell

__all__ = ["start"]

pytestmark = pytest.mark.slow


def together(*names: str) -> dict[str, Any]:
    """Return keys by which the models *names* run at the same time."""
    return {"groups": {"all": {"swap": False, "members": list(names)}}}


def hooks_of(name: str) -> dict[str, Any]:
    """Return hooks that write their point and *name* to the journal."""
    return {
        point: shell(f'echo {point} {name} $SWAPCHART_INCARNATION >> "$JOURNAL"') for point in HOOKS
    }


@pytest.mark.parametrize(
    ("server", "number"),
    [("hypercorn", signal.SIGTERM), ("uvicorn", signal.SIGTERM), ("hypercorn", signal.SIGKILL)],
)
def test_model_outlives_the_proxy_and_is_adopted(
    start: Start, server: str, journal: Journal, number: int
) -> None:
    """The same process serves at once, its log goes on, and no hook of a start is run again.

    With a socket of systemd no connection is refused meanwhile, and the model serves them too.
    """
    models = {"a": journal.model("a", **HOOKS), "b": journal.model("b")}
    with socket.create_server(("127.0.0.1", 0)) as sock:
        first = start(models, server=server, sock=sock)
        assert first.chat("a").status == 200
        pid = pid_of(first)
        ended(first, number)
        assert is_alive(pid)
        waiting = [first.open_chat("a") for _ in range(5)]
        second = start(models, server=server, sock=sock)
        began = time.monotonic()
        assert second.chat("a").status == 200
        took_s = time.monotonic() - began

        assert [each.read_answer().status for each in waiting] == [200] * 5
        for each in waiting:
            each.close()
    assert pid_of(second) == pid
    assert took_s < 1.0 + LONG_S * (psutil.getloadavg()[0] > 4)
    assert second.running()["a"]["incarnation"] == 1
    assert log_of(second).count("a says: started") == 1
    assert journal.words("^a started") == [f"a started {pid}"]
    assert second.chat("b").status == 200  # evicts it
    assert second.state("a") == "stopped"
    words = journal.words("^(before|after|on)[A-Z]")
    assert words == ["beforeStart 1", "afterHealthy 1", "beforeStop 1", "afterStop 1"]
    assert second.chat("a").status == 200


@pytest.mark.parametrize(("signals", "code"), [([signal.SIGINT], 0), ([signal.SIGTERM] * 2, 0)])
def test_sigint_and_a_second_sigterm_end_the_models(
    start: Start, journal: Journal, signals: list[int], code: int
) -> None:
    """As without `keepModels`, with the hooks of a stop; the second signal comes during a drain."""
    proxy = start({"a": journal.model("a", **HOOKS)})
    stream = proxy.open_chat("a", events=400, every_s=0.05)
    stream.read_head()
    pid = pid_of(proxy)
    proxy.note_guard()
    for number in signals:
        proxy.signal(number)
        proxy.wait_said("shutting down")
    if len(signals) > 1:
        proxy.wait_said("second signal: stopping the models too")
    stream.close()

    assert proxy.wait() == code
    assert not is_alive(pid)
    assert journal.words("^(beforeStop|afterStop|a SIGTERM)") == [
        "beforeStop 1", "a SIGTERM", "afterStop 1",
    ]  # fmt: skip


def test_sigterm_finishes_requests_in_flight_and_refuses_others(
    start: Start, journal: Journal
) -> None:
    """The model is left only when its last response is complete."""
    models = {"a": journal.model("a"), "b": journal.model("b")}
    first = start(models)
    stream = first.open_chat("a", events=20, every_s=0.05)
    head = stream.read_head()
    first.note_guard()
    with first.open_chat("b") as waiting:
        first.wait_busy("a", in_flight=1)
        first.signal(signal.SIGTERM)
        refused = waiting.read_answer()

    assert refused.status == 503
    assert stream.read_body(head).body.endswith(b"data: [DONE]\n\n")
    stream.close()
    assert first.wait() == 0
    assert journal.words("SIGTERM") == []
    assert start(models).running()["a"]["configuration"][-1] == "ready"


def test_model_that_is_being_started_ends_with_the_proxy(start: Start, journal: Journal) -> None:
    """It has no state that another proxy could go on with."""
    models = {"a": journal.model("a", "--never-healthy")}
    for number in (signal.SIGTERM, signal.SIGKILL):
        proxy = start(models)
        waiting = proxy.open_chat("a")
        journal.wait("a started", count=1 if number == signal.SIGTERM else 2)
        ended(proxy, number, waiting)
        wait_until(partial(_has_nothing_left, proxy), LONG_S, what="nothing left")


def test_lease_ends_with_the_hooks_of_the_model(start: Start, journal: Journal) -> None:
    """Daemons end too; the next proxy runs no hook again, and starts the model anew."""
    models = {"a": journal.model("a", "--daemon", **HOOKS)}
    proxy = start(models, {"lease": 1})
    wanted: list[str] = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        assert proxy.chat("a").status == 200
        assert proxy.running()["a"]["incarnation"] == 1
        ended(proxy, number)
        wanted += ["beforeStop 1", "a SIGTERM", "afterStop 1"]
        journal.wait("afterStop", count=len(wanted) // 3)
        wait_until(partial(_has_nothing_left, proxy), LONG_S, what="nothing left")
        proxy = start(models, {"lease": 1})

    assert journal.words("^(beforeStop|afterStop|onFailure|a SIGTERM)") == wanted
    assert proxy.running() == {}


def test_lease_ends_at_a_sigterm_of_the_guard(start: Start, journal: Journal) -> None:
    """As when the machine shuts down; before that, signals of the proxy's session do nothing."""
    stop_command = ["sh", "-c", 'echo stopping >> "$JOURNAL"; kill ${PID}']
    proxy = start({"a": journal.model("a", cmdStop=stop_command, **HOOKS)})
    assert proxy.chat("a").status == 200
    guard = guard_of(proxy)
    guard.send_signal(signal.SIGTERM)
    assert proxy.chat("a").status == 200
    ended(proxy)
    wait_until(lambda: _has_ended(guard), LONG_S, what="the guard ended by SIGTERM")

    assert journal.words("^(beforeStop|afterStop|stopping|a SIGTERM)") == [
        "beforeStop 1", "stopping", "a SIGTERM", "afterStop 1",
    ]  # fmt: skip


def test_model_of_another_configuration_is_ended_with_its_own_hooks(
    start: Start, journal: Journal
) -> None:
    """Its hooks are those it was started with; requests wait until it has ended."""
    names = ("a", "b")
    models = {name: journal.model(name, **hooks_of(name)) for name in names}
    first = start(models, config=together(*names))
    assert [first.chat(name).status for name in names] == [200, 200]
    pids = {name: pid_of(first, name) for name in names}
    ended(first)
    other = shell('echo other >> "$JOURNAL"')
    changed = {"env": ["X=1", f"JOURNAL={journal.path}"], "beforeStop": other, "afterStop": other}
    second = start({"a": {**journal.model("a"), **changed}, "c": journal.model("c")})
    assert second.chat("a").status == 200
    new = pid_of(second)
    journal.wait("afterStop b 1")
    wait_until(lambda: not is_alive(pids["b"]), LONG_S, what="the removed model gone")

    assert new != pids["a"]
    assert second.output().count("was started by another configuration") == 2
    for name, last in (("a", [f"a started {new}"]), ("b", [])):
        stopped = [f"beforeStop {name} 1", f"{name} SIGTERM", f"afterStop {name} 1"]
        found = journal.words(f"^((beforeStop|afterStop) {name}|{name} SIGTERM|{name} started)")
        assert found == [f"{name} started {pids[name]}", *stopped, *last]
    assert journal.words("^other") == []


def test_model_that_died_meanwhile_is_not_adopted(start: Start, journal: Journal) -> None:
    """The guard runs its hooks; another program on its port does not become the model.

    By the record of `c` the guard sees that its process is gone, whatever runs under its number.
    """
    models = {name: journal.model(name, **hooks_of(name)) for name in ("a", "c")}
    first = start(models, config=together("a", "c"))
    assert first.chat("a").status == first.chat("c").status == 200
    row, other = first.running()["a"], pid_of(first, "c")
    port = int(row["proxy"].rpartition(":")[2])
    _change_start(guard_of(first), other)
    ended(first, signal.SIGKILL)  # SIGTERM would write another record
    os.kill(row["pid"], signal.SIGKILL)
    journal.wait("afterStop", count=2)
    with socket.create_server(("127.0.0.1", port)):
        second = start(models, config=together("a", "c"))
        assert second.running() == {}
        refused = second.chat("a")
        assert refused.status == 502
        assert b"pid" in refused.body
    assert second.chat("c").status == 200
    assert pid_of(second, "c") != other
    journal.wait("afterStop a", count=2)
    assert journal.words("^(beforeStop|afterStop|onFailure) a|^a started") == [
        f"a started {row['pid']}", "onFailure a 1", "afterStop a 1", "onFailure a 1",
        "afterStop a 1",
    ]  # fmt: skip


def test_output_without_a_proxy_is_kept_and_no_exit_code(start: Start, tmp_path: Path) -> None:
    """What the model writes meanwhile is in its log, and what it wrote before; it never blocks."""
    go = tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; seq -f 'line %.0f of the night' 1 60000"
    argv = demo_model("a")["cmd"]
    command = " ".join(f"'{word}'" for word in argv)
    whole_script = f"echo the beginning; ( {script}; touch {go}.done ) & exec {command}"
    whole = {"cmd": ["sh", "-c", whole_script]}
    models = {"a": {**whole, "proxy": "http://127.0.0.1:${PORT}"}}
    first = start(models)
    assert first.chat("a").status == 200
    ended(first)
    go.touch()
    wait_until(lambda: Path(f"{go}.done").exists(), LONG_S, what="all is written")
    second = start(models)
    text = log_of(second)

    assert "the beginning" not in text  # 1.4 MB have come since
    assert "GET /health" in text.rpartition("of the night")[2]  # the probe of the adoption
    numbers = [int(each) for each in re.findall(r"^line (\d+) of the night$", text, re.M)]
    assert numbers == list(range(numbers[0], 60_001))
    assert len(text) > 1_000_000
    psutil.Process(pid_of(second)).kill()  # only a parent gets the exit code of a process
    second.wait_said("exit code unknown: another process reaped it")
    (row,) = (
        row for row in second.get("/api/models/a/history")["data"] if row["event"] == "proc_exited"
    )
    assert (row["exit_code"], row["exit_signal"]) == (None, None)
    assert row["cause"] == "exit code unknown: another process reaped it"
    assert "exit code None" not in second.output()


def test_guard_that_was_killed_is_replaced_but_not_without_a_proxy(
    start: Start, journal: Journal
) -> None:
    """The new guard keeps the models as the first one did.

    Without both, they are not adopted: the next start ends them, and runs `afterStop`.
    """
    models = {"a": journal.model("a", **HOOKS)}
    first = start(models)
    assert first.chat("a").status == 200
    pid = pid_of(first)
    first.note_guard()
    guard_of(first).kill()
    first.wait_said("the guard process died and was restarted")
    ended(first, signal.SIGKILL)
    _empty_journal(first)  # as if it had been killed before it wrote them
    second = start(models)
    assert second.chat("a").status == 200
    assert pid_of(second) == pid

    guard = guard_of(second)
    ended(second)
    guard.kill()
    third = start(models)
    wait_until(lambda: not is_alive(pid), LONG_S, what=lambda: f"{pid} gone: {third.output()}")
    assert third.chat("a").status == 200
    assert pid_of(third) != pid
    assert journal.words("^(beforeStop|afterStop|a started)") == [
        f"a started {pid}", "afterStop 1", f"a started {pid_of(third)}",
    ]  # fmt: skip


def test_model_is_adopted_again_and_again(start: Start, journal: Journal) -> None:
    """Three proxies, two of them killed: one process, and its end has the hooks of its start.

    No request is in flight after a SIGKILL: the connections have ended with the proxy.
    """
    models = {"a": journal.model("a", "--daemon", **HOOKS)}
    proxy = start(models)
    assert proxy.chat("a").status == 200
    pid = pid_of(proxy)
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with proxy.open_chat("a", events=600, every_s=0.05) as stream:
            if number == signal.SIGKILL:
                stream.read_head()
                proxy.wait_busy("a", in_flight=1)
            else:
                stream.close()
                proxy.wait_idle("a")
            ended(proxy, number)
        wait_until(lambda: not _clients(pid), LONG_S, what=lambda: f"none of {_clients(pid)}")
        proxy = start(models)
        proxy.wait_state("a", "ready")
        assert proxy.running()["a"]["in_flight"] == 0
        assert proxy.chat("a").status == 200
        assert pid_of(proxy) == pid
    assert proxy.unload("a").status == 200

    assert not is_alive(pid)
    assert journal.words("^(beforeStop|afterStop|a started)") == [
        f"a started {pid}", "beforeStop 1", "afterStop 1",
    ]  # fmt: skip
    history = proxy.get("/api/models/a/history")["data"]
    assert [row["event"] for row in history if row["event"] == "adopted"] == ["adopted"] * 3


def test_without_the_key_an_adopted_model_ends_with_the_proxy(
    start: Start, journal: Journal
) -> None:
    """A proxy that keeps nothing still adopts what the one before has kept.

    Another one with the same state is refused, and takes nothing from it.
    """
    models = {"a": journal.model("a", "--daemon")}
    first = start(models)
    assert first.chat("a").status == 200
    pid = pid_of(first)
    ended(first)
    second = start(models, keep=False)
    assert pid_of(second) == pid
    assert start(models, wait=False).wait() == 3
    assert second.chat("a").status == 200
    assert pid_of(second) == pid
    ended(second, signal.SIGKILL)

    wait_until(lambda: not first.leftovers(), LONG_S, what=lambda: f"none of {first.leftovers()}")


def test_twenty_models_are_adopted_within_a_second(
    start: Start, journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first adoption to the last; printed, and asserted with room for a busy machine."""
    names = [f"m{number}" for number in range(20)]
    models = {name: journal.model(name) for name in names}
    first = start(models, config=together(*names))
    waiting = [first.open_chat(name) for name in names]
    for each in waiting:
        assert each.read_answer().status == 200
        each.close()
    pids = {name: pid_of(first, name) for name in names}
    ended(first, signal.SIGKILL)
    second = start(models, config=together(*names))
    second.wait_state("m19", "ready")
    lines = [line for line in second.output().splitlines() if re.search("adopted|ready", line)]
    times = [_seconds(line) for line in lines]
    took_s = max(times) - min(times)
    with capsys.disabled():
        print(f"\nadoption of 20 models, first adopted to last ready: {took_s * 1000:.0f} ms")

    assert {name: pid_of(second, name) for name in names} == pids
    assert took_s < 1.0 * max(psutil.getloadavg()[0], 1.0)


def _change_start(guard: psutil.Process, pid: int) -> None:
    """Change the start of process *pid* in the record that the guard has of it."""
    for path in Path(f"/proc/{guard.pid}/fd").iterdir():
        if "record" in str(path.readlink()):
            facts = json.loads(path.read_text())
            if facts["pid"] == pid:
                path.write_text(json.dumps({**facts, "start": facts["start"] + 1}))


def _empty_journal(proxy: SwapchartProcess) -> None:
    """Delete what the journal of *proxy* has of running processes and incomplete hooks."""
    (path,) = (proxy.folder / "state").rglob("journal.db")
    with closing(sqlite3.connect(path)) as database, database:
        for table in ("launched", "owed"):
            database.execute(f"DELETE FROM {table}")


def _clients(pid: int) -> list[object]:
    """Return the open connections of the server *pid*."""
    found = psutil.Process(pid).net_connections("tcp")
    return [each for each in found if each.status == psutil.CONN_ESTABLISHED]


def _has_nothing_left(proxy: SwapchartProcess) -> bool:
    return not proxy.leftovers()


def _has_ended(guard: psutil.Process) -> bool:
    """Send SIGTERM until the guard has seen the end of the proxy, and that signal."""
    with suppress(psutil.NoSuchProcess):
        guard.send_signal(signal.SIGTERM)
    return not is_alive(guard.pid)


def _seconds(line: str) -> float:
    hours, minutes, seconds = line.split()[1].replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
