"""Processes of containers, found by a scripted engine, cgroups and processes under a root."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest

from swapchart.adapters.memory import Meter, containers
from swapchart.adapters.memory.containers import Containers, with_containers
from swapchart.runtime.ports import PoolReading

ID = "ab" * 32
CLIENT, INIT, WORKER = 100, 200, 201


class Machine:
    """A root with one container, and an engine whose client is on the PATH.

    Attributes:
        asked: Questions to the engine, one a line.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, *argv: str) -> None:
        self.root, self.asked = root, root / "asked"
        folder = root / f"sys/fs/cgroup/system.slice/docker-{ID}.scope"
        (folder / "inner").mkdir(parents=True)
        (folder / "cgroup.procs").write_text(f"{INIT}\n")
        (folder / "inner/cgroup.procs").write_text(f"{WORKER}\n")
        self.write(CLIENT, "cmdline", "\0".join(argv) + "\0")
        self.write(INIT, "cgroup", f"0::/system.slice/docker-{ID}.scope\n")
        self.script(
            f'case "$1 $*" in ps*) echo abab;; *painter|*abab|*{ID}) echo {ID} {INIT};;'
            " *) echo no such object >&2; exit 1;; esac"
        )
        monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")

    def write(self, pid: int, name: str, text: str) -> None:
        (self.root / f"proc/{pid}").mkdir(parents=True, exist_ok=True)
        (self.root / f"proc/{pid}/{name}").write_text(text)

    def script(self, body: str) -> None:
        (self.root / "bin").mkdir(exist_ok=True)
        for name in ("docker", "podman"):
            path = self.root / "bin" / name
            path.write_text(f'#!/bin/sh\necho "$*" >> {self.asked}\n{body}\n')
            path.chmod(0o755)


@pytest.mark.parametrize(
    "argv",
    [
        ("docker", "run", "--rm", "--name", "painter", "image"),
        ("/usr/bin/podman", "run", "--name=painter", "image"),
        ("docker", "run", "-p", "127.0.0.1:5800:80/tcp", "image"),
        ("docker", "run", "--publish=5800:80", "image"),
        ("podman", "run", "--cidfile", "FILE", "image"),
    ],
)
def test_container_processes_are_those_of_its_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> None:
    file = tmp_path / "cid"
    file.write_text(ID)
    machine = Machine(tmp_path, monkeypatch, *[str(file) if w == "FILE" else w for w in argv])
    machine.write(101, "cmdline", "llama-server\0run\0")
    found = Containers(tmp_path)

    for _ in range(2):
        assert found.processes([CLIENT, 101, 102]) == {CLIENT: {INIT, WORKER}}
    assert machine.asked.read_text().count("inspect") == 1
    machine.write(CLIENT, "cmdline", "")
    assert found.processes([CLIENT]) == {CLIENT: {INIT, WORKER}}, "its client has ended"
    assert found.processes([]) == {}
    assert found.processes([CLIENT]) == {}, "the id may be another process now"


@pytest.mark.parametrize("problem", ["no name", "elsewhere", "no engine"])
def test_container_that_cannot_be_found_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    """With a name it is looked for again, as long as it may be pulled; without one it is not."""
    name = () if problem == "no name" else ("--name", "painter")
    machine = Machine(tmp_path, monkeypatch, "podman", "run", *name, "image")
    if problem == "elsewhere":  # the engine is on another machine, where other pids count
        machine.write(INIT, "cgroup", "0::/user.slice\n")
    elif problem == "no engine":
        machine.script("exit 1")
    now = [1000.0]
    monkeypatch.setattr(containers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    found = Containers(tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(40):
            now[0] += 2.0
            assert found.processes([CLIENT]) == {}
            assert bool(caplog.records) is (problem == "no name" or now[0] >= 1062.0)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "give it a --name" in caplog.text


def test_container_amounts_count_for_the_client() -> None:
    reading = PoolReading(
        name="RAM", capacity=9, processes={1: 1, 2: 2, 3: 3, 4: 4}, files={2: 1}, whole_files={2: 2}
    )
    untold = PoolReading(name="GPU0", capacity=9)
    moved, same = with_containers([reading, untold], {1: frozenset({2, 3}), 9: frozenset()})
    assert moved.processes == {1: 6, 4: 4}
    assert (moved.files, moved.whole_files) == ({1: 1}, {1: 2})
    assert same is untold


def test_meter_reads_the_processes_of_containers() -> None:
    """They are known from the reading after the one in which they were found."""

    class Engine(Containers):
        def processes(self, pids: object) -> dict[int, frozenset[int]]:
            return {CLIENT: frozenset({INIT})}

    class Ram:
        def read(self, pids: object) -> list[PoolReading]:
            assert isinstance(pids, tuple)
            return [PoolReading(name="RAM", capacity=9, processes=dict.fromkeys(pids, 2))]

    async def main() -> None:
        meter = Meter([Ram()], containers=Engine())
        await meter.read([CLIENT])
        (reading,) = await meter.read([CLIENT])
        assert reading.processes == {CLIENT: 4}

    anyio.run(main)
