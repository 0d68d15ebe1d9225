"""Hooks on real processes: when they run, what they see, and that nothing they do wedges a model.

A journal that models and hooks share shows the order.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tools import raw
from tools.net import LONG_S, free_port, wait_until
from tools.rows import row
from tools.swapchart_process import CHAT, Journal, Serve, chat_body, error_of, shell

pytestmark = pytest.mark.slow

FOREVER = "sleep 4321"  # found again by this text


def note(more: str = "", **keys: Any) -> dict[str, Any]:
    """A hook that writes its name into the journal."""
    return shell(f'echo "hook $SWAPCHART_HOOK" >> "$JOURNAL"; {more}', **keys)


def in_order(journal: Journal, *patterns: str) -> bool:
    """Return True if lines that match *patterns* come in this order, each exactly once."""
    words = journal.words()
    places = [[n for n, line in enumerate(words) if re.search(p, line)] for p in patterns]
    assert all(len(found) == 1 for found in places), (patterns, words)
    return places == sorted(places)


def test_hooks_run_around_the_events_they_are_named_after(serve: Serve, journal: Journal) -> None:
    """Each point runs once for each run of a model, and in its place."""
    points = ("beforeStart", "afterStart", "afterHealthy", "afterReady", "beforeStop", "afterStop")
    proxy = serve({"a": journal.model("a", **{point: note() for point in points})})
    assert proxy.chat("a").status == 200
    journal.wait("hook afterReady")
    assert proxy.unload("a").status == 200

    assert in_order(journal, "beforeStart", "a started", "afterHealthy", "a request", "beforeStop",
                    "SIGTERM", "a exit", "afterStop")  # fmt: skip
    assert in_order(journal, "beforeStart", "afterStart", "afterHealthy", "afterReady")


ASK = (
    "curl -sf http://127.0.0.1:{port}/v1/chat/completions -H 'Content-Type: application/json' "
    '-d \'{{"model": "{model}", "messages": [{{"role": "user", "content": "hi"}}]}}\' '
    '>/dev/null && echo "hook was answered" >> "$JOURNAL"'
)


@pytest.mark.skipif(os.environ.get("SWAPCHART_LONG") != "1", reason="NOT TESTED: takes 10 s")
def test_hook_may_ask_for_another_model(serve: Serve, journal: Journal) -> None:
    """Though there is one place for hooks, and the other model has a hook as well."""
    port = free_port()
    models = {
        "a": journal.model("a", afterHealthy=shell(ASK.format(port=port, model="b"))),
        "b": journal.model("b", beforeStart=note()),
    }
    together = {"all": {"swap": False, "members": ["a", "b"]}}
    proxy = serve(
        models, config={"groups": together, "hookLimit": 1},
        options=("--listen", f"127.0.0.1:{port}"),
    )  # fmt: skip
    assert proxy.chat("a").status == 200

    assert in_order(journal, "a started", "hook beforeStart", "b started", "hook was answered")


def test_hook_that_asks_for_its_own_model_ends_with_its_limit(
    serve: Serve, journal: Journal
) -> None:
    """Its request waits for what waits for it: the limit decides, and the model is ready."""
    port = free_port()
    hook = shell(ASK.format(port=port, model="a"), timeout=1)
    proxy = serve(
        {"a": journal.model("a", afterHealthy=hook)}, options=("--listen", f"127.0.0.1:{port}")
    )
    assert proxy.chat("a").status == 200

    assert journal.words("hook was answered") == []


def test_settling_asks_nvidia_smi(serve: Serve, journal: Journal, tmp_path: Path) -> None:
    """Nothing starts before each GPU of the stopped model has little enough in use."""
    used, tool = tmp_path / "used", tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "smi $*" >> "$JOURNAL"\ncat {used}\n')
    tool.chmod(0o755)
    used.write_text("12\n5000\n")
    env = [f"PATH={tool.parent}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES=1,2"]
    model = journal.model("a", env=env, settle={"gpuBelow": 1000, "timeout": 600})
    proxy = serve({"a": model, "b": journal.model("b")})
    assert proxy.chat("a").status == 200
    with proxy.open_chat("b") as connection:
        journal.wait("smi", count=3)
        assert proxy.state("a") == "settling"
        assert journal.words("b started") == []
        used.write_text("12\n999\n")
        assert connection.read_answer().status == 200

    query = "smi -i 1,2 --query-gpu=memory.used --format=csv,noheader,nounits"
    assert {*journal.words("smi")} == {query}


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho '[N/A]'\n", ""])
def test_settling_without_a_result_of_nvidia_smi_is_bounded(
    serve: Serve, journal: Journal, tmp_path: Path, script: str
) -> None:
    """One that fails, that does not know, and none at all: the next model starts all the same."""
    if script:
        (tmp_path / "nvidia-smi").write_text(script)
        (tmp_path / "nvidia-smi").chmod(0o755)
    model = journal.model(
        "a", env=[f"PATH={tmp_path}:{os.environ['PATH']}"],
        settle={"gpuBelow": 1000, "timeout": 0.5 if script else 600},
    )  # fmt: skip
    proxy = serve({"a": model, "b": journal.model("b")})
    assert proxy.chat("a").status == 200
    assert proxy.chat("b").status == 200


def test_model_sleeps_and_wakes_by_its_hooks(serve: Serve, journal: Journal) -> None:
    """After its idle time it is put to sleep, the next request wakes it; its process stays."""
    say = 'echo "asked to $SWAPCHART_HOOK" >> "$JOURNAL"'
    sleep = {"after": 0.2, "enter": shell(say), "wake": shell(say)}
    proxy = serve({"a": journal.model("a", sleep=sleep)})
    assert proxy.chat("a").status == 200
    proxy.wait_state("a", "asleep")
    pid = proxy.running()["a"]["pid"]
    assert proxy.chat("a").status == 200

    assert proxy.running()["a"]["pid"] == pid
    assert in_order(journal, "a started", "asked to suspend", "asked to wake")


def test_model_that_cannot_wake_is_restarted(serve: Serve, journal: Journal) -> None:
    """A wake that fails is no error for the client."""
    sleep = {"after": 0.2, "enter": "true", "wake": "false"}
    proxy = serve({"a": journal.model("a", sleep=sleep)})
    assert proxy.chat("a").status == 200
    proxy.wait_state("a", "asleep")
    assert proxy.chat("a").status == 200

    assert len(journal.words("a started")) == 2


PREPARING = {
    "actions": {
        "run_before_launch": {
            "do": {"effect": "activity.start", "activity": "hooks", "point": "beforeLaunch"}
        }
    },
    "states": {
        "before_start": {
            "remove_transitions": [{"event": "hooks_done", "target": "launching"}],
            "transitions": [{"event": "hooks_done", "target": "preparing"}],
        },
        "preparing": {
            "inside": "starting", "enter": "run_before_launch", "exit": "cancel_hooks",
            "transitions": [
                {"event": "hooks_done", "target": "launching"},
                {"event": "hooks_failed", "target": "on_failure", "on": "want_retry"},
                {"event": "abandon", "target": "after_stop", "cond": "nobody_waits",
                 "on": "want_stop"},
                {"event": "stop", "target": "after_stop", "on": "want_stop"},
                {"event": "shutdown", "target": "after_stop", "on": "want_shutdown"},
                {"event": "kill", "target": "after_stop", "on": ["want_stop", "hurry"]},
            ],
        },
    },
}  # fmt: skip


def test_custom_state_and_hook_point_of_the_configuration_work(
    serve: Serve, journal: Journal
) -> None:
    """`lifecycle` adds them, `hookPoints` fills them, and the history shows that they were."""
    keys: dict[str, Any] = {"beforeStart": note(), "hookPoints": {"beforeLaunch": note()}}
    proxy = serve({"a": journal.model("a", **keys)}, config={"lifecycle": PREPARING})
    assert proxy.chat("a").status == 200

    assert in_order(journal, "hook beforeStart", "hook beforeLaunch", "a started")
    rows = proxy.get("/api/models/a/history")["data"]
    ends = [(row["source"], row["target"]) for row in reversed(rows)]
    assert ends[:3] == [
        ("stopped", "before_start"), ("before_start", "preparing"), ("preparing", "launching"),
    ]  # fmt: skip


def test_plain_strings_are_commands_with_macros(serve: Serve, journal: Journal) -> None:
    """As in the seed: a string, split as a command, with ${PORT}, ${MODEL_ID}, ${PID} and macros.

    No shell reads it: what looks like one's syntax reaches the program as it stands.
    """
    keys = {
        "macros": {"greeting": "guten Tag"},
        "afterHealthy": "echo 'healthy: ${MODEL_ID}' ${PORT} ${PID} \"${greeting}\" '$HOME|*;'",
        "beforeStop": "echo stopping: ${MODEL_ID} ${PORT} ${PID}",
    }
    proxy = serve({"org/a": journal.model("org/a", **keys)})
    assert proxy.chat("org/a").status == 200
    row = proxy.running()["org/a"]
    port, pid = row["proxy"].rpartition(":")[2], row["pid"]
    with proxy.log_of("org/a") as log:
        log.read_until(re.escape(f"healthy: org/a {port} {pid} guten Tag $HOME|*;\n"))
        assert proxy.unload("org/a").status == 200
        log.read_until(re.escape(f"stopping: org/a {port} {pid}\n"))


def test_hooks_see_the_models_environment_and_their_own(serve: Serve, journal: Journal) -> None:
    """The model's variables, facts about this run, an empty standard input, a log for output."""
    hook = shell("cat; env; echo to-stderr >&2; echo done")
    proxy = serve({"a": journal.model("a", env=["GREETING=hi there"], afterHealthy=hook)})
    assert proxy.chat("a").status == 200
    row = proxy.running()["a"]
    wanted = {
        "GREETING": "hi there", "SWAPCHART_MODEL": "a", "SWAPCHART_PID": row["pid"],
        "SWAPCHART_PORT": row["proxy"].rpartition(":")[2], "SWAPCHART_HOOK": "afterHealthy",
        "SWAPCHART_INCARNATION": "1", "SWAPCHART_REASON": "the health check passed",
    }  # fmt: skip
    with proxy.log_of("a") as log:
        log.read_until("to-stderr\ndone\n")

    lines = log.text.splitlines()
    assert "a says: started" in lines
    assert {f"{name}={value}" for name, value in wanted.items()} <= {*lines}


def test_requests_wait_for_after_healthy(serve: Serve, journal: Journal, tmp_path: Path) -> None:
    """A model that is healthy and whose hook still runs is starting: nothing is sent to it."""
    go = tmp_path / "go"
    hook = note(f"while [ ! -e {go} ]; do sleep 0.02; done; echo 'hook ended' >> $JOURNAL")
    proxy = serve({"a": journal.model("a", afterHealthy=hook)})
    with proxy.open_chat("a") as connection:
        journal.wait("hook afterHealthy")
        assert proxy.state("a") == "after_healthy"
        assert proxy.running()["a"]["state"] == "starting"
        proxy.wait_busy("a", waiting=1)
        go.touch()
        assert connection.read_answer().status == 200

    assert in_order(journal, "hook afterHealthy", "hook ended", "a request")


@pytest.mark.parametrize("way", ["swap", "unload", "unload all", "ttl", "shutdown"])
def test_before_stop_runs_on_every_way_to_a_stop(serve: Serve, journal: Journal, way: str) -> None:
    """Exactly once, while the model still answers, before it is asked to end."""
    ask = 'curl -sf "http://127.0.0.1:$SWAPCHART_PORT/health" >> "$JOURNAL"; echo >> "$JOURNAL"'
    ttl = 1 if way == "ttl" else 0
    models = {
        "a": journal.model("a", ttl=ttl, afterHealthy=note(), beforeStop=note(ask)),
        "b": journal.model("b"),
    }
    proxy = serve(models)
    assert proxy.chat("a").status == 200
    match way:
        case "swap":
            assert proxy.chat("b").status == 200
        case "unload":
            assert proxy.unload("a").status == 200
        case "unload all":
            assert proxy.unload().status == 200
        case "ttl":
            proxy.wait_state("a", "stopped")
        case "shutdown":
            assert proxy.stop() == 0

    assert in_order(journal, "hook afterHealthy", "hook beforeStop", "^ok$", "a SIGTERM", "a exit")
    if way == "swap":
        assert in_order(journal, "a exit", "b started")


def test_failing_hook_is_logged_and_changes_nothing(serve: Serve, journal: Journal) -> None:
    """The model becomes ready all the same, and stops all the same."""
    model = journal.model(
        "a", afterHealthy="sh -c 'echo no luck; exit 7'", beforeStop="/does/not/exist"
    )
    proxy = serve({"a": model})
    assert proxy.chat("a").status == 200
    assert proxy.unload("a").status == 200

    with proxy.log_of("a") as log:
        log.read_until(r"no luck\n\[swapchart\] afterHealthy hook failed: .*exit code 7\n")
        log.read_until(r"\[swapchart\] beforeStop hook failed: .*/does/not/exist")
    assert journal.words("SIGTERM") == ["a SIGTERM"]
    assert proxy.chat("a").status == 200


def test_hook_that_must_not_fail_fails_the_start(serve: Serve, journal: Journal) -> None:
    """With ``onError: fail`` the request gets to know which hook failed; the next one works."""
    once = 'echo x >> "$JOURNAL"; [ $(grep -c ^x "$JOURNAL") = 2 ]'
    hook = shell(once, onError="fail")
    proxy = serve({"a": journal.model("a", afterHealthy=hook, beforeStop=note())})

    error = error_of(proxy.chat("a"))
    assert error["code"] == "hook_failed"
    assert "afterHealthy" in error["message"]
    assert proxy.chat("a", 3).status == 200  # another request: a repeated one gets the same error
    assert journal.words("hook") == ["hook beforeStop"]  # afterHealthy had begun


def test_hook_that_hangs_is_killed_with_all_it_started(serve: Serve, journal: Journal) -> None:
    """Its limit ends it, its children and the daemon that left its group; then it goes on."""
    hang = shell(f"{FOREVER} & setsid {FOREVER} & {FOREVER}", timeout=1)
    proxy = serve({"a": journal.model("a", afterHealthy=hang, beforeStop=hang)})
    with proxy.open_chat("a") as connection:
        wait_until(lambda: len(proxy.find(FOREVER)) >= 3, LONG_S, what="the hook's children")
        assert connection.read_answer().status == 200
    assert proxy.find(FOREVER) == []
    assert proxy.unload("a").status == 200

    assert proxy.find(FOREVER) == []
    with proxy.log_of("a") as log:
        log.read_until(r"\[swapchart\] afterHealthy hook timeout: .*killed after 1 s")
        log.read_until(r"\[swapchart\] beforeStop hook timeout: .*killed after 1 s")


def test_hook_ends_with_its_leader(serve: Serve, journal: Journal) -> None:
    """What it left running is killed, and holds nothing up: not by an inherited pipe either."""
    model = journal.model("a", afterHealthy=shell(f"{FOREVER} & echo left"))
    proxy = serve({"a": model})
    began = time.monotonic()

    assert proxy.chat("a").status == 200
    assert time.monotonic() - began < 20.0, "it waited for the hook's limit of 30 s"
    assert proxy.find(FOREVER) == []


def test_hook_output_flood_is_cut_off(serve: Serve, journal: Journal) -> None:
    """The first 64 KiB of a hook's output are kept, and what follows in the log is not lost."""
    flood = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo")
    proxy = serve({"a": journal.model("a", afterHealthy=flood, beforeStop="echo after the flood")})
    assert proxy.chat("a").status == 200
    assert proxy.unload("a").status == 200

    with proxy.log_of("a") as log:
        log.read_until("after the flood")
    assert 60_000 < log.text.count("x") < 70_000


def test_unload_during_after_healthy_ends_the_hook_at_once(serve: Serve, journal: Journal) -> None:
    """Then beforeStop runs, as afterHealthy had begun; the waiting request gets the reason."""
    model = journal.model("a", afterHealthy=note(FOREVER), beforeStop=note())
    proxy = serve({"a": model})
    with proxy.open_chat("a") as connection:
        wait_until(lambda: proxy.find(FOREVER), LONG_S, what="the hook")
        began = time.monotonic()
        assert proxy.unload("a").status == 200
        assert time.monotonic() - began < 20.0
        answer = connection.read_answer()

    assert answer.status == 503
    assert error_of(answer)["code"] == "stopped"
    assert proxy.find(FOREVER) == []
    assert in_order(journal, "hook afterHealthy", "hook beforeStop", "SIGTERM", "a exit")
    assert journal.words("request") == []


def test_sigterm_during_after_healthy_ends_the_hook_at_once(serve: Serve, journal: Journal) -> None:
    """The shutdown does not wait for a hook of a start that it ends."""
    proxy = serve({"a": journal.model("a", afterHealthy=note(FOREVER), beforeStop=note())})
    with proxy.open_chat("a") as connection:
        wait_until(lambda: proxy.find(FOREVER), LONG_S, what="the hook")
        assert proxy.stop(20.0) == 0
        answer = connection.read_answer()

    assert error_of(answer)["code"] == "shutting_down"
    assert in_order(journal, "hook afterHealthy", "hook beforeStop", "SIGTERM", "a exit")


def test_model_that_dies_ends_its_hook(serve: Serve, journal: Journal) -> None:
    """Its death during afterHealthy is seen at once; there is nothing to stop, so no beforeStop."""
    model = journal.model(
        "a", afterHealthy=note(f"kill -9 $SWAPCHART_PID; {FOREVER}"), beforeStop=note(),
        afterStop=note('echo "exit $SWAPCHART_EXIT" >> "$JOURNAL"'),
    )  # fmt: skip
    proxy = serve({"a": model})
    began = time.monotonic()
    answer = proxy.chat("a")

    assert answer.status == 502
    assert error_of(answer)["code"] == "exited"
    assert "killed by signal 9" in error_of(answer)["message"]
    assert time.monotonic() - began < 20.0
    wait_until(lambda: not proxy.find(FOREVER), LONG_S, what="the hook ended")
    journal.wait("exit killed by signal 9")
    assert journal.words("^hook") == ["hook afterHealthy", "hook afterStop"]


def test_crash_runs_no_before_stop(serve: Serve, journal: Journal) -> None:
    """A model that ended by itself is cleaned up after, not stopped; the next request starts it."""
    tell = 'echo "told $SWAPCHART_EXIT" >> "$JOURNAL"'
    keys = {"beforeStop": note(), "afterStop": note(tell), "onFailure": note(tell)}
    proxy = serve({"a": journal.model("a", **keys)})
    assert proxy.chat("a").status == 200
    proxy.find("witness.py")[0].send_signal(signal.SIGSEGV)
    journal.wait("hook afterStop")
    proxy.wait_state("a", "stopped", "backoff")

    assert journal.words("^hook|^told") == [
        "hook onFailure", "told killed by signal 11", "hook afterStop", "told killed by signal 11"
    ]  # fmt: skip
    assert proxy.chat("a").status == 200
    assert proxy.running()["a"]["incarnation"] == 2


def test_stop_during_a_stop_runs_no_hook_twice(
    serve: Serve, journal: Journal, tmp_path: Path
) -> None:
    """Two unloads and a request meet a stop that waits in beforeStop; each gets its due."""
    go = tmp_path / "go"
    wait = note(f"while [ ! -e {go} ]; do sleep 0.02; done")
    proxy = serve({"a": journal.model("a", beforeStop=wait), "b": journal.model("b")})
    assert proxy.chat("a").status == 200
    connections = [raw.Connection(proxy.port, timeout_s=LONG_S) for _ in range(3)]
    for connection in connections[:2]:
        connection.request("POST", "/api/models/unload/a")
        journal.wait("hook beforeStop")
    assert proxy.state("a") == "before_stop"  # and everything else answers meanwhile
    connections[2].request("POST", CHAT, value=chat_body("a"))
    proxy.wait_busy("a", waiting=1)
    go.touch()

    assert [connection.read_answer().status for connection in connections] == [200] * 3
    assert journal.words("hook") == ["hook beforeStop"]
    assert proxy.running()["a"]["incarnation"] == 2
    for connection in connections:
        connection.close()


def test_grace_period_begins_after_before_stop(serve: Serve, journal: Journal) -> None:
    """A model that ignores SIGTERM has all of its grace left when the hook ends."""
    model = journal.model("a", "--ignore-term", unloadTimeout=1, beforeStop=note("sleep 1.5"))
    proxy = serve({"a": model})
    assert proxy.chat("a").status == 200
    assert proxy.unload("a").status == 200
    ended = time.monotonic()
    asked = next(at for at, words in journal.lines() if words == "a SIGTERM")

    assert 0.9 < ended - asked < 15.0
    assert in_order(journal, "hook beforeStop", "SIGTERM")
    assert proxy.find("witness.py") == []


def test_cmd_stop_replaces_sigterm(serve: Serve, journal: Journal) -> None:
    """beforeStop, then cmdStop with the process id; SIGTERM only if cmdStop fails."""
    ask = 'sh -c \'echo "cmdStop $0" >> "$JOURNAL"; kill -INT $0\' ${PID}'
    models = {
        "good": journal.model("good", beforeStop=note(), cmdStop=ask),
        "bad": journal.model("bad", cmdStop="sh -c 'exit 3'"),
        "idle": journal.model("idle", cmdStop="true", unloadTimeout=1),
    }
    proxy = serve(models)
    assert proxy.chat("good").status == 200
    pid = proxy.running()["good"]["pid"]
    assert proxy.unload("good").status == 200
    assert in_order(journal, "hook beforeStop", f"cmdStop {pid}")
    assert journal.words("good SIGTERM") == []

    assert proxy.chat("bad").status == 200
    assert proxy.unload("bad").status == 200
    assert in_order(journal, "bad SIGTERM", "bad exit")

    assert proxy.chat("idle").status == 200
    assert proxy.unload("idle").status == 200
    assert journal.words("idle SIGTERM|idle exit") == []
    assert proxy.find("witness.py") == []


def test_model_that_is_never_healthy_runs_neither_hook(serve: Serve, journal: Journal) -> None:
    """It never served, so there is nothing to restore or save."""
    keys = {"startTimeout": 1, "afterHealthy": note(), "beforeStop": note()}
    proxy = serve({"a": journal.model("a", "--never-healthy", **keys)})

    error = error_of(proxy.chat("a"))
    assert error["code"] == "start_timeout"
    assert "status 503" in error["message"]
    proxy.wait_state("a", "stopped", "backoff")
    assert journal.words("hook") == []


def test_after_healthy_without_a_check_runs_at_once(serve: Serve, journal: Journal) -> None:
    """``checkEndpoint: none``: the process exists, and that is all that is known."""
    model = journal.model("a", "--never-healthy", checkEndpoint="none", afterHealthy=note())
    proxy = serve({"a": model})
    with proxy.open_chat("a") as connection:
        journal.wait("hook afterHealthy")
        connection.read_head()  # whatever it is: the model may not listen yet

    assert proxy.state("a") == "ready"


def test_client_that_leaves_during_a_hook_does_not_end_it(
    serve: Serve, journal: Journal, tmp_path: Path
) -> None:
    """The hook ends as it would have, and the model stays."""
    go = tmp_path / "go"
    hook = note(f"while [ ! -e {go} ]; do sleep 0.02; done; echo 'hook ended' >> $JOURNAL")
    proxy = serve({"a": journal.model("a", afterHealthy=hook)})
    connection = proxy.open_chat("a")
    journal.wait("hook afterHealthy")
    proxy.wait_busy("a", waiting=1)
    connection.close()
    proxy.wait_busy("a", waiting=0)
    go.touch()

    proxy.wait_state("a", "ready")
    assert journal.words("hook") == ["hook afterHealthy", "hook ended"]


def test_idle_limit_begins_after_after_healthy(serve: Serve, journal: Journal) -> None:
    """A hook that takes longer than the ttl does not make its model expire before it serves."""
    proxy = serve({"a": journal.model("a", ttl=1, afterHealthy=note("sleep 1.5"))})

    assert proxy.chat("a", events=30, every_s=0.05).body.endswith(b"[DONE]\n\n")
    proxy.wait_state("a", "stopped")
    assert in_order(journal, "hook afterHealthy", "a answered", "SIGTERM")


@pytest.mark.parametrize("moment", ["beforeStart", "ready", "afterStop"])
@row("B14")
def test_killed_proxy_s_after_stop_runs_at_the_next_start(
    serve: Serve, journal: Journal, tmp_path: Path, moment: str
) -> None:
    """Once, as orphan and under its old id, before the model starts again; and then no more."""
    tell = 'echo "told $SWAPCHART_REASON $SWAPCHART_HOOK_ID" >> "$JOURNAL"'
    go = tmp_path / "go"
    gate = f"while [ ! -e {go} ]; do sleep 0.02; done"
    keys = {point: note() for point in ("beforeStart", "afterReady", "onFailure")}
    keys["afterStop"] = note(f"{tell}; {gate}")
    if moment == "beforeStart":
        keys["beforeStart"] = note(gate)
    model, state = journal.model("a", **keys), ("--state-dir", str(tmp_path / "state"))
    first = serve({"a": model}, options=state)
    with first.open_chat("a") as connection:
        if moment != "beforeStart":
            assert connection.read_answer().status == 200
        if moment == "afterStop":
            os.kill(first.running()["a"]["pid"], signal.SIGKILL)
        journal.wait("hook " + ("afterReady" if moment == "ready" else moment))
        first.get("/api/models/a/history")  # what was written down is in the file after that
        first.note_guard()
        first.signal(signal.SIGKILL)
        first.wait()
    wait_until(lambda: not first.leftovers(), LONG_S, what="nothing left of the first")
    before = len(journal.words())

    second = serve({"a": model}, options=state)
    with second.open_chat("a") as connection:
        journal.wait("told orphan a:1:afterStop")
        second.wait_busy("a", waiting=0)
        assert second.get("/api/queue")["queue"][0]["why"].startswith("a runs the afterStop hooks")
        go.touch()
        assert connection.read_answer().status == 200
    words = journal.words()[before:]
    assert words[:3] == ["hook afterStop", "told orphan a:1:afterStop", "hook beforeStart"]
    assert words.count("hook afterStop") == 1
    assert "hook onFailure" not in words
    assert second.stop() == 0

    third = serve({"a": model}, options=state)
    assert third.chat("a").status == 200
    assert [word for word in journal.words() if word.startswith("told orphan")] == [
        "told orphan a:1:afterStop"
    ]
