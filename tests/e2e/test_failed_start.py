"""A call to a model that cannot start: one start, and the error at once, for every client."""

from __future__ import annotations

import time
from typing import Any

import anthropic
import openai
import pytest
from tools.clients import TALK, claude_client, openai_client
from tools.net import LATE_S
from tools.swapchart_process import (
    CHAT,
    Edited,
    Journal,
    Serve,
    SwapchartProcess,
    chat_body,
    error_of,
)

pytestmark = pytest.mark.slow

RETRIES = 2  # the default of both libraries


def broken(journal: Journal, **keys: Any) -> dict[str, Any]:
    return journal.model("broken", "--exit-after-s", "0", "--load-s", "60", **keys)


def starts(journal: Journal) -> int:
    return len(journal.words("started"))


@pytest.fixture
def proxy(serve: Serve, journal: Journal) -> SwapchartProcess:
    return serve({"broken": broken(journal), "fine": journal.model("fine")})


def test_openai_client_is_told_not_to_try_again(proxy: SwapchartProcess, journal: Journal) -> None:
    began = time.monotonic()
    with (
        openai_client(proxy.port, "none", retries=RETRIES) as client,
        pytest.raises(openai.InternalServerError, match="broken failed") as failed,
    ):
        client.chat.completions.create(model="broken", messages=TALK)
    took = time.monotonic() - began

    assert failed.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in failed.value.response.headers
    assert failed.value.code == "exited"
    assert starts(journal) == 1
    assert took < LATE_S


def test_anthropic_client_is_told_not_to_try_again(
    proxy: SwapchartProcess, journal: Journal
) -> None:
    with (
        claude_client(proxy.port, "none", retries=RETRIES) as client,
        pytest.raises(anthropic.APIStatusError, match="broken failed") as failed,
    ):
        client.messages.create(model="broken", messages=TALK, max_tokens=1)

    assert failed.value.response.headers["x-should-retry"] == "false"
    assert starts(journal) == 1


def test_clients_are_not_made_to_wait_for_an_open_breaker(serve: Serve, journal: Journal) -> None:
    """The pause until the next try is a minute: the error tells it, and no client waits for it."""
    model = broken(journal, restart={"intensity": 1, "cooldown": 60})
    proxy = serve({"broken": model})
    assert proxy.chat("broken").status == 502
    began = time.monotonic()
    with (
        openai_client(proxy.port, "none", retries=RETRIES) as client,
        pytest.raises(openai.InternalServerError) as failed,
    ):
        client.chat.completions.create(model="broken", messages=TALK)

    assert failed.value.code == "failed"
    assert failed.value.body["retry_after_s"] > 30  # type: ignore[index]
    assert starts(journal) == 1
    assert time.monotonic() - began < LATE_S


def test_same_request_gets_the_same_error_and_starts_nothing(
    proxy: SwapchartProcess, journal: Journal
) -> None:
    """For clients that try again whatever the response says."""
    first, again = proxy.chat("broken"), proxy.chat("broken")

    assert (again.status, again.body) == (first.status, first.body)
    assert again.header("x-should-retry") == "false"
    assert again.header("retry-after-ms") == "250"
    assert not again.header("retry-after")
    assert starts(journal) == 1


def test_same_request_with_its_keys_in_another_order_starts_nothing(
    proxy: SwapchartProcess, journal: Journal
) -> None:
    """Codex repeats a request five times, each time in another order."""
    body = chat_body("broken")
    proxy.call("POST", CHAT, value=body)
    again = proxy.call("POST", CHAT, value=dict(reversed(body.items())))

    assert error_of(again)["code"] == "exited"
    assert starts(journal) == 1


def test_another_request_tries_anew(proxy: SwapchartProcess, journal: Journal) -> None:
    proxy.chat("broken")
    proxy.chat("broken", limit=3)

    assert starts(journal) == 2


def test_request_of_another_client_tries_anew(serve: Serve, journal: Journal) -> None:
    proxy = serve({"broken": broken(journal)}, config={"apiKeys": ["sk-one", "sk-two"]})
    for key in ("sk-one", "sk-two", "sk-one"):
        proxy.headers = {"authorization": f"Bearer {key}"}
        assert error_of(proxy.chat("broken"))["code"] == "exited"

    assert starts(journal) == 2


def test_explicit_load_tries_anew(proxy: SwapchartProcess, journal: Journal) -> None:
    """So does the same request after it: the client knows that something has changed."""
    proxy.chat("broken")
    assert proxy.call("POST", "/api/models/load/broken").status == 502
    assert starts(journal) == 2
    proxy.chat("broken")

    assert starts(journal) == 3


def test_changed_configuration_tries_anew(serve: Serve, journal: Journal) -> None:
    edited = Edited(serve, {"a": {**broken(journal)}})
    assert edited.proxy.chat("a").status == 502
    edited.value["models"]["a"] = journal.model("a")
    edited.reload()

    assert edited.proxy.chat("a").status == 200


def test_request_that_may_start_nothing_is_not_tried_again(
    proxy: SwapchartProcess, journal: Journal
) -> None:
    refused = proxy.call("POST", f"{CHAT}?autoload=false", value=chat_body("fine"))

    assert (refused.status, error_of(refused)["code"]) == (503, "model_not_loaded")
    assert refused.header("x-should-retry") == "false"
    assert starts(journal) == 0
