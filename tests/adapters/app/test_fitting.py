"""Which models of a configuration fit into memory together: plans, checks and `plan --with`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from tools.documents import DOCUMENTS, blocks

from swapchart.adapters.app import reload_plan
from swapchart.adapters.app.fitting import fitting_problems, lost_combinations
from swapchart.adapters.cli.main import main
from swapchart.adapters.config import Config, load_config
from swapchart.adapters.store.footprints import SCHEMA, read_footprints
from swapchart.runtime.ports import PoolReading

GIB = 1 << 30
GPU = (PoolReading(name="GPU0", capacity=24 * GIB),)
Load: TypeAlias = Callable[[str], Config]


def text(limit: str = "20GiB", more: str = "", **needs: str) -> str:
    models = "".join(
        f'  {name}: {{cmd: "sleep ${{PORT}}", memory: {need}}}\n' for name, need in needs.items()
    )
    return f"memory: {{pools: {{GPU0: {{limit: {limit}}}}}}}\n{more}models:\n{models}"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(content: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(content)
        return load_config([path])

    return loaded


def test_lost_combinations_are_named_with_the_sum(load: Load) -> None:
    old = load(text(a="8GiB", b="8GiB", c="4GiB"))
    assert lost_combinations(old, old, GPU) == []
    smaller = load(text("10GiB", a="8GiB", b="8GiB", c="4GiB"))
    assert lost_combinations(old, smaller, GPU) == [
        "a and b no longer fit together: 16.0 GiB of GPU0 needed, 10.0 GiB for models",
        "a and c no longer fit together: 12.0 GiB of GPU0 needed, 10.0 GiB for models",
        "b and c no longer fit together: 12.0 GiB of GPU0 needed, 10.0 GiB for models",
    ]
    larger = load(text(a="8GiB", b="15GiB", c="4GiB"))
    assert lost_combinations(old, larger, GPU) == [
        "a and b no longer fit together: 23.0 GiB of GPU0 needed, 20.0 GiB for models"
    ]
    assert lost_combinations(load("models: {a: {cmd: 's ${PORT}'}}"), smaller, GPU) == []


def test_lost_combinations_of_many_models_are_a_few_lines(load: Load) -> None:
    needs = {f"m{number}": "3GiB" for number in range(12)}
    lines = lost_combinations(load(text(**needs)), load(text("4GiB", **needs)), GPU)
    assert len(lines) == 21
    assert lines[-1] == "46 more pairs no longer fit"


def test_reload_plan_lists_memory_and_what_is_lost(load: Load) -> None:
    old, new = load(text(a="8GiB")), load(text("9GiB", a="8GiB"))
    planned = reload_plan.plan(old, new, memory=["a and b no longer fit together"])
    assert [change.key for change in planned.settings] == ["memory"]
    assert "! a and b no longer fit together\n" in str(planned)
    assert planned.as_json()["memory"] == ["a and b no longer fit together"]


def test_fitting_problems_are_groups_and_pinned_models_that_do_not_fit(load: Load) -> None:
    groups = "groups: {both: {swap: false, members: [a, b]}, two: {members: [a2]}}\n"
    config = load(text(more=groups, a="12GiB", b="12GiB", a2="30%", c="auto"))
    (problem,) = fitting_problems(config, GPU)
    assert (problem.path, problem.severity) == ("groups.both", "warning")
    assert problem.message == (
        "the members of group both do not fit together: 24.0 GiB of GPU0 needed, 20.0 GiB for "
        "models"
    )
    pinned = text(a="12GiB, pinned: true", b="12GiB")
    (problem,) = fitting_problems(load(pinned), GPU)
    assert problem.path == "models.b.memory"
    assert problem.message.startswith("b and the pinned a do not fit together: 24.0 GiB")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a configuration of a pool of its own, so that no machine matters."""
    (tmp_path / "config.yaml").write_text(
        "memory: {pools: {NPU: {capacity: 10GiB}}}\nmodels:\n"
        '  a: {cmd: "sleep ${PORT}", memory: {NPU: 4GiB}, aliases: [first]}\n'
        '  b: {cmd: "sleep ${PORT}", memory: {NPU: 5GiB}}\n'
        '  c: {cmd: "sleep ${PORT}", memory: {NPU: 3GiB}}\n'
        '  free: {cmd: "sleep ${PORT}", memory: 0}\n'
    )
    return tmp_path


def plan_with(folder: Path, names: str, *more: str) -> tuple[str, ...]:
    state = ("--state-dir", str(folder / "state"))
    return ("plan", "--with", names, "--config", str(folder / "config.yaml"), *state, *more)


def test_plan_with_models_says_whether_they_fit_and_which_would_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, *plan_with(folder, "first,b,free"))
    assert code == 0
    assert out.splitlines() == [
        "a, b and free fit together",
        "NPU: 10.0 GiB for models, 1.0 GiB left",
        "    4.0 GiB  a (declared)",
        "    5.0 GiB  b (declared)",
    ]
    code, out, _ = run(capsys, *plan_with(folder, "a,b,c"))
    assert code == 1
    assert out.splitlines()[:3] == [
        "a, b and c do not fit together: 12.0 GiB of NPU needed, 10.0 GiB for models",
        "if they are requested in this order, these run in the end: b, c",
        "NPU: 10.0 GiB for models, 2.0 GiB missing",
    ]
    code, out, _ = run(capsys, *plan_with(folder, "a,b,c", "--json"))
    value: dict[str, Any] = json.loads(out)
    assert (code, value["fits"], value["resident"]) == (1, False, ["b", "c"])
    assert value["lack"] == {"NPU": 2 * GIB}


def test_plan_with_models_takes_the_configuration_that_serve_takes(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --config it is that of SWAPCHART_CONFIG or the working directory."""
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "empty"))
    monkeypatch.delenv("SWAPCHART_CONFIG", raising=False)
    words = ("plan", "--with", "a,b", "--state-dir", str(folder / "state"))
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert err.startswith("swapchart: no configuration: expected --config FILE")
    assert err.count("\n") == 1

    monkeypatch.setenv("SWAPCHART_CONFIG", str(folder / "config.yaml"))
    assert run(capsys, *words)[0] == 0
    monkeypatch.delenv("SWAPCHART_CONFIG")
    monkeypatch.chdir(folder)
    code, out, _ = run(capsys, *words)

    assert code == 0
    assert out.startswith("a and b fit together\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--with", "a,nope", "--config", "{}"), "no such model: nope; there are a, b"),
        (("plan", "--with", ",", "--config", "{}"), "expected names of models"),
        (("plan", "--with", "a", "--config", "{}.none"), "config.yaml.none"),
    ],
)
def test_plan_with_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    path = str(folder / "config.yaml")
    code, out, err = run(capsys, *(each.replace("{}", path) for each in arguments))
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_plan_with_needs_memory(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("memory: {pools", "memory: {mode: off, pools"))
    code, _, err = run(capsys, *plan_with(folder, "a"))
    assert (code, "`memory:` is off" in err) == (1, True)


def test_footprints_are_read_from_a_journal_in_use(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    assert read_footprints(path) == []
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode=WAL")
        assert read_footprints(path) == []
        database.executescript(SCHEMA)
        row = ("m", "k", "r", "RAM", 1.0, 5, 7, 0, "process", 1, 1, 9, 0)
        database.execute(f"INSERT INTO footprints VALUES ({', '.join('?' * 13)})", row)
        database.commit()
        (found,) = read_footprints(path)
        assert (found.model, found.highest, found.is_alone) == ("m", 7, True)


def test_config_check_warns_of_combinations_that_do_not_fit(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "config.yaml"
    groups = "groups: {all: {swap: false, members: [a, b, c]}}\n"
    path.write_text(groups + path.read_text())
    code, out, _ = run(capsys, "config", "check", str(path))
    assert code == 0
    assert "warning: groups.all: the members of group all do not fit together: 12.0 GiB" in out
    assert out.endswith("ok, with 1 warning\n")
    other = folder / "new.yaml"
    other.write_text(path.read_text().replace("4GiB", "6GiB"))
    code, out, _ = run(capsys, "config", "plan", str(path), str(other))
    assert code == 0
    assert "! a and b no longer fit together: 11.0 GiB of NPU needed, 10.0 GiB for models\n" in out


def test_plan_with_models_of_the_page_prints_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first example of the page on memory, and the output that the page has for it."""
    page = DOCUMENTS["docs/memory.md"]
    example, shown = blocks(page, "yaml")[0], blocks(page, "console")[0]
    command, *lines = shown.rstrip().splitlines()
    (tmp_path / "config.yaml").write_text(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SWAPCHART_STATE_DIR", str(tmp_path / "state"))
    code, out, _ = run(capsys, *command.removeprefix("$ swapchart ").split())
    assert (code, out.splitlines()) == (0, lines)
