"""Containers of a real podman that outlive the proxy: `keepModels`."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import Any

import psutil
import pytest
from tools.net import LONG_S, wait_until
from tools.podman import IMAGE, LIMITS, Podman, podman
from tools.successors import HOOKS, Start, ended, is_alive, log_of, pid_of, start
from tools.swapchart_process import Journal

__all__ = ["podman", "start"]

pytestmark = pytest.mark.slow

SCRIPT = 'echo "inside of $SWAPCHART_MODEL" >> "$JOURNAL"'
INSIDE = {"run": ["sh", "-c", SCRIPT], "in": "container"}
ENDED = ["beforeStop 1", "inside of a", "afterStop 1"]


@pytest.fixture
def begin(start: Start, podman: Podman) -> Any:
    """Start a proxy with the engine."""
    return partial(start, config={"containerEngine": list(podman.command)})


def model(podman: Podman, journal: Journal, **keys: Any) -> dict[str, Any]:
    """Return a model in a container whose hooks write to the journal, at the end inside too."""
    folder = journal.path.parent
    container = podman.demo("--model", "a", volumes=[*podman.volumes, f"{folder}:{folder}"])
    hooks = {**HOOKS, "beforeStop": [HOOKS["beforeStop"], INSIDE]}
    return {"container": container, "env": [f"JOURNAL={journal.path}"], **hooks, **keys}


def has_no_container(podman: Podman) -> bool:
    return not podman.names()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_container_outlives_the_proxy_and_is_adopted(
    begin: Start, podman: Podman, journal: Journal, number: int
) -> None:
    """The same container serves at once, its log goes on, and its end is that of its start."""
    models = {"a": model(podman, journal), "b": {"container": podman.demo("--model", "b")}}
    first = begin(models)
    assert first.chat("a").status == 200
    pid, names = pid_of(first), podman.names()
    ended(first, number)
    assert is_alive(pid)
    second = begin(models)
    began = time.monotonic()
    assert second.chat("a").status == 200
    took_s = time.monotonic() - began

    assert (pid_of(second), podman.names()) == (pid, names)
    assert took_s < 1.0 + LONG_S * (psutil.getloadavg()[0] > 4)
    assert second.running()["a"]["incarnation"] == 1
    assert second.running()["a"]["container"]["name"] == names[0]
    text = log_of(second)
    assert text.count("model loaded") == 1
    assert text.count("POST /v1/chat/completions") == 2
    assert second.chat("b").status == 200  # evicts it
    wait_until(lambda: podman.names() != names, LONG_S, what="another container")
    assert journal.words("^(before|after|onF|inside)") == [
        "beforeStart 1", "afterHealthy 1", *ENDED,
    ]  # fmt: skip
    assert second.chat("a").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_lease_of_a_container_ends_with_its_hooks(
    begin: Start, podman: Podman, journal: Journal, number: int
) -> None:
    """The guard stops and removes it; the next proxy runs no hook again, and starts it anew."""
    models = {"a": model(podman, journal)}
    first = begin(models, {"lease": 1})
    assert first.chat("a").status == 200
    ended(first, number)
    journal.wait("afterStop")
    wait_until(partial(has_no_container, podman), LONG_S, what="no container")

    assert journal.words("^(beforeStop|afterStop|onFailure|inside)") == ENDED
    second = begin(models)
    assert second.chat("a").status == 200
    assert second.running()["a"]["incarnation"] == 1
    assert journal.words("^(beforeStop|afterStop|onFailure|inside)") == ENDED


def test_second_proxy_of_that_name_leaves_the_container(
    begin: Start, podman: Podman, journal: Journal
) -> None:
    """It ends before it asks the engine for leftovers."""
    models = {"a": model(podman, journal)}
    first = begin(models)
    assert first.chat("a").status == 200
    names = podman.names()

    assert begin(models, wait=False).wait() == 3
    assert first.chat("a").status == 200
    assert podman.names() == names


def test_leftovers_are_removed_beside_a_container_that_is_adopted(
    begin: Start, podman: Podman, journal: Journal
) -> None:
    """A leftover has our owner and the label of a proxy whose guard has not kept it."""
    models = {"a": model(podman, journal)}
    first = begin(models)
    assert first.chat("a").status == 200
    (name,) = podman.names()
    owner = podman.run("inspect", "--format", '{{index .Config.Labels "swapchart.owner"}}', name)
    labels = [f"swapchart.owner={owner.strip()}", "swapchart.instance=0123", "swapchart.model=a"]
    options = [word for label in labels for word in ("--label", label)]
    podman.run("create", "--name", "leftover", *options, *LIMITS, IMAGE, "true")
    pid = pid_of(first)
    ended(first, signal.SIGKILL)
    second = begin(models)
    wait_until(lambda: podman.names() == [name], LONG_S, what="the leftover is removed")

    assert second.chat("a").status == 200
    assert pid_of(second) == pid


def test_container_of_another_configuration_is_ended_with_its_own_hooks(
    begin: Start, podman: Podman, journal: Journal
) -> None:
    """Its options count, as the command of a process does; a request waits until it is removed."""
    models = {"a": model(podman, journal)}
    first = begin(models)
    assert first.chat("a").status == 200
    pid = pid_of(first)
    ended(first)
    models["a"]["container"]["workdir"] = "/tmp"
    second = begin(models)
    assert second.chat("a").status == 200

    assert "was started by another configuration" in second.output()
    assert pid_of(second) != pid
    assert len(podman.names()) == 1
    assert journal.words("^(beforeStop|afterStop|inside|beforeStart)") == [
        "beforeStart 1", *ENDED, "beforeStart 1",
    ]  # fmt: skip


def test_container_that_ended_meanwhile_is_removed_by_the_guard(
    begin: Start, podman: Podman, journal: Journal
) -> None:
    """With the hooks of a failure; nothing is adopted."""
    models = {"a": model(podman, journal)}
    first = begin(models)
    assert first.chat("a").status == 200
    pid = pid_of(first)
    ended(first)
    psutil.Process(pid).kill()
    journal.wait("afterStop 1")
    wait_until(lambda: not podman.names(), LONG_S, what="no container")
    second = begin(models)

    assert second.running() == {}
    assert journal.words("^(beforeStop|afterStop|onFailure)") == ["onFailure 1", "afterStop 1"]


def test_container_whose_client_ended_meanwhile_gets_another_one(
    begin: Start, podman: Podman, journal: Journal
) -> None:
    """Its log goes on, it may outlive the next proxy too, and its exit code is known."""
    models = {"a": model(podman, journal)}
    first = begin(models)
    assert first.chat("a").status == 200
    pid = pid_of(first)
    ended(first)
    (client,) = [each for each in first.find("start --attach") if each.name() == "podman"]
    client.kill()
    second = begin(models)
    second.wait_said("attaching another")
    wait_until(
        lambda: second.chat("a").status == 200 and log_of(second).count("POST /v1") > 1,
        LONG_S, what="its output by another client",
    )  # fmt: skip
    ended(second, signal.SIGKILL)
    third = begin(models)
    assert third.chat("a").status == 200
    assert pid_of(third) == pid
    psutil.Process(pid).kill()
    third.wait_state("a", "stopped", "backoff", "tripped")

    rows = third.get("/api/models/a/history")["data"]
    assert [row["exit_signal"] for row in rows if row["event"] == "proc_exited"] == [signal.SIGKILL]
