"""Libraries that call models, unchanged and with their defaults, and a real proxy.

The heavy ones are tested by `./dev clients` only, which also writes the table of docs/clients.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tools.client_drivers import KEY, LIBRARIES, Driver, Library, version
from tools.client_table import note
from tools.net import LATE_S
from tools.swapchart_process import Journal, Serve, SwapchartProcess, demo_model

pytestmark = pytest.mark.slow

CONTEXT = 512  # tokens
ALL = [
    pytest.param(library, marks=() if library.is_light else pytest.mark.clients, id=str(library))
    for library in LIBRARIES
]


@pytest.fixture(scope="module")
def models_journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    return Journal(tmp_path_factory.mktemp("journal") / "journal")


@pytest.fixture(scope="module")
def proxy(serve_module: Serve, models_journal: Journal) -> SwapchartProcess:
    """A proxy with two models that swap, and for each library two that never start.

    The pause before the next start of a model grows with its failures, by any client.
    """
    models = {
        "a": demo_model("a", "--ctx-size", str(CONTEXT)),
        "b": demo_model("b", "--load-seconds", "0.3"),
    }
    for library in LIBRARIES:
        for do in ("chat", "stream"):
            name = broken(library, do)
            models[name] = models_journal.model(name, "--exit-after-s", "0.2", "--load-s", "60")
    proxy = serve_module(models, config={"apiKeys": [KEY]})
    proxy.headers = {"Authorization": f"Bearer {KEY}"}
    proxy.may_log = "broken"
    return proxy


def broken(library: Library, do: str) -> str:
    """Return the name of the model that never starts."""
    return f"broken-{LIBRARIES.index(library)}-{do}"


@pytest.fixture(scope="module", params=ALL)
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    return found


@pytest.fixture(scope="module")
def driver(
    library: Library, proxy: SwapchartProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    folder = tmp_path_factory.mktemp("home")
    with Driver(library, f"http://127.0.0.1:{proxy.port}", folder) as driver:
        note(library.name, "version", version(library))
        yield driver


def need(library: Library, what: str) -> None:
    """End the test where the library has no such thing."""
    if what not in library.does:
        note(library.name, what, "-")
        pytest.skip(f"{library} has no {what}")


def error(result: dict[str, Any]) -> tuple[int | None, str]:
    """Return status and message of the error that a result must be."""
    assert "error" in result, result
    return result["error"]["status"], result["error"]["message"]


def test_library_lists_models_and_starts_none(
    library: Library, driver: Driver, proxy: SwapchartProcess
) -> None:
    need(library, "listed")
    assert proxy.unload().status == 200

    models = driver.call("listed").get("models", [])
    assert {"a", "b"} < set(models)
    assert models == [row["id"] for row in proxy.get("/v1/models")["data"]]
    assert proxy.running() == {}
    note(library.name, "listed", "yes")


def test_library_chats_with_two_models_in_turn(
    library: Library, driver: Driver, proxy: SwapchartProcess
) -> None:
    """Each response comes from the model that was named, and only that one runs."""
    for model in ("a", "b", "a"):
        assert driver.call("chat", model=model, text="hi") == {
            "text": f"This is {model}. You asked: hi"
        }
        assert list(proxy.running()) == [model]
    note(library.name, "chat", "yes")
    note(library.name, "swap", "yes")


def test_library_streams(library: Library, driver: Driver) -> None:
    """The pieces arrive one by one, from a model that is ready and from one that loads first."""
    for model in ("a", "b"):
        pieces = driver.call("stream", model=model, text="one two three").get("pieces", [])
        assert "".join(pieces) == f"This is {model}. You asked: one two three"
        assert len(pieces) > 4
    note(library.name, "stream", "yes")


def test_library_calls_a_tool(library: Library, driver: Driver) -> None:
    """A call of the model reaches the library, and its result the model."""
    text = 'call pick with {"color": "red"}'

    assert driver.call("tools", model="a", text=text) == {
        "arguments": {"color": "red"}, "text": "This is a. The tool returned: a red one",
    }  # fmt: skip
    note(library.name, "tools", "yes")


def test_library_embeds(library: Library, driver: Driver) -> None:
    need(library, "embeddings")

    assert driver.call("embeddings", model="a", text="hi") == {"size": 64}
    note(library.name, "embeddings", "yes")


def test_library_reports_errors_at_once(library: Library, driver: Driver) -> None:
    """An unknown model, a wrong key and a prompt that is too long have status and message."""
    began = time.monotonic()
    status, message = error(driver.call("chat", model="none", text="hi"))
    assert status == 404
    assert "none" in message
    status, message = error(driver.call("chat", model="a", text="hi", key="sk-wrong"))
    assert status == 401
    status, message = error(driver.call("chat", model="a", text="word " * CONTEXT))
    assert status == 400
    assert "context" in message
    assert time.monotonic() - began < LATE_S
    note(library.name, "errors", "yes")


@pytest.mark.parametrize("do", ["chat", "stream"])
def test_library_starts_a_broken_model_once(
    library: Library, driver: Driver, models_journal: Journal, do: str
) -> None:
    """With its own retries the library gets the error of the only start, and does not wait."""
    model = broken(library, do)
    began = time.monotonic()
    status, message = error(driver.call(do, model=model, text="hi"))
    took_s = time.monotonic() - began

    assert status in (502, None)  # ai-sdk has none for an error of a stream
    assert f"{model} failed" in message
    assert len(models_journal.words(f"^{model} started")) == 1
    assert took_s < LATE_S
    note(library.name, "error of a broken model", took_s)
