"""Programs that call models, unchanged, set up as docs/clients.md says, and a real proxy.

`./dev clients` installs them. Each run of a program is a session of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tools.client_drivers import KEY
from tools.client_programs import PROGRAMS, Program
from tools.client_table import note
from tools.swapchart_process import Journal, Serve, SwapchartProcess, demo_model

pytestmark = [pytest.mark.slow, pytest.mark.clients]

LIMIT_S = 90.0  # with the start of the program, which takes opencode 12 s


@pytest.fixture(scope="module", params=PROGRAMS, ids=str)
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.param
    return found


@pytest.fixture(scope="module")
def models_journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("journal") / "journal")


@pytest.fixture(scope="module")
def proxy(program: Program, serve_module: Serve, models_journal: Journal) -> SwapchartProcess:
    """A proxy of its own for each program: models that swap, a small one and a broken one."""
    models = {
        "a": demo_model("a", "--ctx-size", "262144"),
        "b": demo_model("b", "--ctx-size", "262144", "--load-seconds", "0.3"),
        "small": demo_model("small", "--ctx-size", "20"),
        "broken": models_journal.model(f"{program}", "--exit-after-s", "0.2", "--load-s", "60"),
    }
    proxy = serve_module(models, config={"apiKeys": [KEY]})
    proxy.headers = {"Authorization": f"Bearer {KEY}"}
    proxy.may_log = "broken"
    return proxy


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with one file."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "found-file").touch()
    return folder


def requests(proxy: SwapchartProcess) -> list[dict[str, Any]]:
    """Return the recorded requests, newest first."""
    rows: list[dict[str, Any]] = proxy.get("/api/metrics/activity")["data"]
    return rows


def test_program_gets_streams_of_two_models_in_turn(
    program: Program, proxy: SwapchartProcess, home: Path
) -> None:
    """Each session is served by the model that it names, and only that one runs after it."""
    at = f"127.0.0.1:{proxy.port}"
    for model in ("a", "b", "a"):
        run = program.run(home, at, model, "say hello")
        assert f"This is {model}." in run.output
        assert run.code == 0, run.output
        last = next(row for row in requests(proxy) if row["model"] == model)
        assert last["resp_content_type"].startswith("text/event-stream")
    for column in ("chat", "swap", "stream"):
        note(program.name, column, "yes")
    for column in ("listed", "embeddings"):
        note(program.name, column, "-")
    note(program.name, "version", program.version())


def test_program_calls_a_tool(program: Program, proxy: SwapchartProcess, home: Path) -> None:
    """A call of the model runs in the program, and its result comes back to the model."""
    if not program.tool:
        note(program.name, "tools", "-")
        pytest.skip(f"{program} has no tools")
    run = program.run(home, f"127.0.0.1:{proxy.port}", "a", program.tool)

    assert "The tool returned:" in run.output
    assert "found-file" in run.output.partition("The tool returned:")[2]
    note(program.name, "tools", "yes")


@pytest.mark.parametrize(
    ("model", "key", "words"),
    [
        ("none", KEY, "not found|may not exist"),
        ("a", "sk-wrong", "(?i)invalid or missing api key|authenticat"),
        ("small", KEY, "context|too long"),
    ],
    ids=["unknown model", "wrong key", "long prompt"],
)
def test_program_shows_an_error(
    program: Program, proxy: SwapchartProcess, home: Path, model: str, key: str, words: str
) -> None:
    """An unknown model, a wrong key and a prompt that is too long are reported, and soon."""
    run = program.run(home, f"127.0.0.1:{proxy.port}", model, "say hello", key)

    assert re.search(words, run.output)
    assert "This is" not in run.output
    assert run.seconds < LIMIT_S
    note(program.name, "errors", "yes")


def test_program_starts_a_broken_model_once(
    program: Program, proxy: SwapchartProcess, home: Path, models_journal: Journal
) -> None:
    """Whatever the program repeats, it gets the error of the only start."""
    run = program.run(home, f"127.0.0.1:{proxy.port}", "broken", "say hello")

    assert "broken failed" in run.output
    assert len(models_journal.words(f"^{program} started")) == 1
    assert run.seconds < LIMIT_S
    note(program.name, "error of a broken model", run.seconds)
