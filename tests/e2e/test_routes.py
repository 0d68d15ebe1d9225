"""The routes of the main job, on a real proxy: what each tells, and what it leaves untouched."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from tools import raw
from tools.net import LONG_S
from tools.rows import row
from tools.swapchart_process import (
    CHAT,
    Journal,
    Serve,
    SwapchartProcess,
    chat_body,
    demo_model,
    error_of,
)

pytestmark = pytest.mark.slow

SEEDS_STYLE = """\
macros:
  128k_context: 131072
models:
  a:
    cmd: |
      {command}
      # a comment that is no argument
      --port ${{PORT}} --journal {journal}
      --name ${{MODEL_ID}}-${{128k_context}}
    aliases:
      - alias
    ttl: 0
"""


@pytest.fixture(scope="module", params=["hypercorn", "uvicorn"])
def proxy(serve_module: Serve, request: pytest.FixtureRequest) -> SwapchartProcess:
    """One proxy for all that only asks."""
    models = {
        "a": demo_model("a", aliases=["gpt-4o", "also a"], name="Model A", description="The first"),
        "org/b c": demo_model("b"),
    }
    return serve_module(models, server=request.param)


def echo(proxy: SwapchartProcess, method: str, target: str, **more: object) -> dict[str, object]:
    """Return what the upstream got."""
    answer = proxy.call(method, target, **more)
    assert answer.status == 200, answer
    value: dict[str, object] = answer.json()
    return value


def test_health_does_not_depend_on_models(proxy: SwapchartProcess) -> None:
    """200 and OK as soon as it listens; HEAD has no body."""
    answer = proxy.call("GET", "/health")

    assert (answer.status, answer.body) == (200, b"OK")


def test_models_are_listed_with_their_state(proxy: SwapchartProcess) -> None:
    """OpenAI's list, sorted, with names, aliases and whether each is loaded."""
    proxy.unload()
    assert proxy.chat("a").status == 200
    value = proxy.get("/v1/models")

    assert value["object"] == "list"
    assert [record["id"] for record in value["data"]] == ["a", "org/b c"]
    first, second = value["data"]
    assert first["object"] == "model"
    assert (first["name"], first["description"]) == ("Model A", "The first")
    assert first["meta"]["llamaswap"]["aliases"] == ["gpt-4o", "also a"]
    assert abs(first["created"] - time.time()) < 3600
    assert first["status"] == {"value": "loaded"}
    assert second["status"] == {"value": "unloaded"}


def test_running_lists_state_command_and_process(proxy: SwapchartProcess) -> None:
    """llama-swap's fields, and ours beside them."""
    assert proxy.chat("a").status == 200
    row = proxy.running()["a"]

    assert row["state"] == "ready"
    assert row["proxy"] == f"http://127.0.0.1:{row['proxy'].rpartition(':')[2]}"
    assert f"--port {row['proxy'].rpartition(':')[2]}" in row["cmd"]
    assert "${PORT}" not in row["cmd"]
    assert (row["ttl"], row["name"], row["description"]) == (0, "Model A", "The first")
    assert row["configuration"] == ["alive", "ready"]
    assert (row["in_flight"], row["waiting"]) == (0, 0)
    assert row["pid"] == proxy.find("--model a")[0].pid


def test_aliases_lead_to_their_model(proxy: SwapchartProcess) -> None:
    """By JSON and by path; the body crosses as it came."""
    body = b'{ "model" :"gpt-4o", "messages": [{"role": "user", "content": "h\\u00e9"}] ,"n":1}'
    answer = proxy.call("POST", CHAT, body=body, headers={"Content-Type": "application/json"})
    assert answer.status == 200
    assert [*proxy.running()] == ["a"]

    got = echo(proxy, "POST", "/upstream/also%20a/echo/x", body=body)
    assert got["model"] == "a"
    assert got["body"] == echo(proxy, "POST", "/upstream/a/echo/x", body=body)["body"]


@pytest.mark.parametrize(
    ("target", "model", "wanted"),
    [
        ("/upstream/a/echo", "a", "/echo"),
        ("/upstream/a/echo/x?q=1&q=2;3", "a", "/echo/x?q=1&q=2;3"),
        ("/upstream/a/echo/%41%2f%2F%252F", "a", "/echo/%41%2f%2F%252F"),
        ("/upstream/a/echo/%2e%2e/%2E", "a", "/echo/%2e%2e/%2E"),
        ("/upstream/a/echo//x", "a", "/echo//x"),
        ("/upstream/a/echo/{}|^`?a=%zz", "a", "/echo/{}|^`?a=%zz"),
        ("/upstream/a/echo/h%C3%A9%20%E2%9C%93", "a", "/echo/h%C3%A9%20%E2%9C%93"),
        ("/upstream/a/echo/a+b?c=+", "a", "/echo/a+b?c=+"),
        ("/upstream/gpt-4o/echo", "a", "/echo"),
        ("/upstream/org/b%20c/echo/x", "b", "/echo/x"),
        ("/upstream/org%2Fb%20c/echo/x%2Fy", "b", "/echo/x%2Fy"),
    ],
)
@row("C28", "C29")
def test_upstream_paths_are_forwarded_unchanged(
    proxy: SwapchartProcess, target: str, model: str, wanted: str
) -> None:
    """Behind the model's name the upstream gets the very bytes that came."""
    got = echo(proxy, "GET", target)

    assert got["target"] == wanted
    assert got["model"] == model


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_upstream_passes_any_method(proxy: SwapchartProcess, method: str) -> None:
    """And the body, and the fields that belong to the message."""
    body = None if method in ("GET", "OPTIONS") else b"x" * 100_000
    more = {"body": body, "headers": {"X-Mine": "1", "Content-Type": "text/x-mine"}}
    if method == "OPTIONS" and proxy.call(method, "/upstream/a/echo").status == 204:
        return  # answered by the proxy itself, as llama-swap does
    got = echo(proxy, method, "/upstream/a/echo", **more)

    assert got["method"] == method
    assert got["body"] == {**got["body"], "length": len(body or b"")}  # type: ignore[dict-item]
    assert ["X-Mine", "1"] in [[n.title(), v] for n, v in got["headers"]]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "status"), [("GET", 301), ("HEAD", 301), ("POST", 308)])
def test_model_without_a_path_is_redirected(
    proxy: SwapchartProcess, method: str, status: int
) -> None:
    """To the same with a slash, and with its query; nothing is started for that."""
    proxy.unload()
    with raw.Connection(proxy.port) as connection:
        connection.request(method, "/upstream/org%2Fb%20c?x=1")
        head = connection.read_head()

    assert head.status == status
    assert head.header("location") == "/upstream/org%2Fb%20c/?x=1"
    assert proxy.running() == {}


@row("C28")
def test_broken_path_is_refused(proxy: SwapchartProcess) -> None:
    """An encoded NUL names nothing."""
    answer = proxy.call("GET", "/upstream/a%00/echo")

    assert answer.status in (400, 404)
    assert error_of(answer)


def test_log_stream_sends_history_and_new_lines(proxy: SwapchartProcess) -> None:
    """The history is sent at once, new output as it is written."""
    assert proxy.chat("a").status == 200
    with proxy.log_of("a") as log:
        assert log.head.status == 200
        assert (log.head.header("content-type") or "").startswith("text/plain")
        log.read_until("model loaded")
        assert proxy.call("GET", "/upstream/a/echo/live").status == 200
        log.read_until("GET /echo/live 200")
    with proxy.log_of("a", "?no-history") as log:
        assert proxy.chat("a").status == 200
        log.read_until(f"POST {CHAT} 200")
        assert "model loaded" not in log.text


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/embeddings", CHAT])
def test_openai_routes_respond(proxy: SwapchartProcess, route: str) -> None:
    """Chat, text and embeddings, from the model that was named."""
    value = {**chat_body("gpt-4o"), "prompt": "x", "input": "x"}
    answer = proxy.call("POST", route, value=value)

    assert answer.status == 200
    assert answer.json()["model"] in ("a", "gpt-4o")


@row("C44")
def test_forwarded_headers_of_untrusted_clients_are_ignored(proxy: SwapchartProcess) -> None:
    """Whatever the server in front makes of X-Forwarded-For, `trustedProxies` decides."""
    told = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}
    answer = proxy.call("GET", "/upstream/a/echo", headers=told)

    assert answer.status == 200
    headers = dict(answer.json()["headers"])
    assert headers.pop("X-Request-ID") == answer.header("X-Request-ID")
    assert headers == {"Host": "127.0.0.1", "X-Forwarded-For": "127.0.0.1"}


# ---- what changes something has a proxy of its own
def test_use_model_name_replaces_the_model(serve: Serve, journal: Journal) -> None:
    """The upstream is asked for the name it knows, and nothing else of the body changes."""
    proxy = serve({"a": journal.model("a", useModelName="vendor/real name", aliases=["b"])})
    for name in "ab":
        assert proxy.chat(name).status == 200

    assert journal.words("request") == [f"a request POST {CHAT} vendor/real name"] * 2


def test_unload_drains_what_is_in_flight(serve: Serve, server: str, journal: Journal) -> None:
    """The stream ends well, then the model stops, then the unload is answered."""
    proxy = serve({"a": journal.model("a")}, server=server)
    for target in ("/api/models/unload/a", "/api/models/unload"):
        with (
            proxy.open_chat("a", events=30, every_s=0.02) as stream,
            raw.Connection(proxy.port, timeout_s=LONG_S) as other,
        ):
            head = stream.read_head()
            other.request("POST", target)
            proxy.wait_state("a", "draining")
            assert stream.read_body(head).body.endswith(b"data: [DONE]\n\n")
            assert other.read_answer().status == 200
            assert proxy.running() == {}

    assert journal.words("answered|SIGTERM") == ["a answered", "a SIGTERM"] * 2


def test_unload_gives_a_stream_its_limit(serve: Serve, server: str, tmp_path: Path) -> None:
    """A stream that goes on beyond it is cut; then the slot is free to be saved, and all ends.

    As a real llama-server, this one defers the save and outlives SIGTERM while it generates.
    """
    post = "curl -sf -X POST http://127.0.0.1:${PORT}/slots/0?action="
    save = f'{post}save -d \'{{"filename": "kv.bin"}}\''
    options = ("--slot-save-path", str(tmp_path), "--ctx-size", "1000000")
    model = demo_model("a", *options, rate=50, drain={"timeout": 1}, beforeStop=save)
    proxy = serve({"a": model}, server=server)
    for is_stream in (True, False):
        with proxy.open_chat("a", -1, stream=is_stream, ignore_eos=True) as endless:
            proxy.wait_busy("a", in_flight=1)
            began = time.monotonic()
            assert proxy.unload("a").status == 200
            took = time.monotonic() - began
            head = endless.read_head()
            if is_stream:
                assert head.status == 200
                assert b"[DONE]" not in endless.read_all()
            else:
                assert head.status == 502
                error = error_of(endless.read_body(head))
                assert "unloaded by API" in error["message"]

        assert 0.9 < took < 10.0, "it waited in vain for the hook or the grace period"
        assert (tmp_path / "kv.bin").stat().st_size > 0
        (tmp_path / "kv.bin").unlink()
    assert proxy.chat("a").status == 200


def test_model_that_is_idle_for_its_ttl_is_stopped(serve: Serve, journal: Journal) -> None:
    """Never while it is busy: a stream longer than the ttl ends well first."""
    proxy = serve(
        {"a": journal.model("a", ttl=1), "b": journal.model("b")}, config={"globalTTL": 1}
    )
    assert proxy.chat("a", events=50, every_s=0.03).body.endswith(b"data: [DONE]\n\n")
    proxy.wait_state("a", "stopped")
    assert proxy.chat("b").status == 200
    proxy.wait_state("b", "stopped")

    ends = {words: at for at, words in journal.lines()}
    for name in "ab":
        assert 0.8 < ends[f"{name} SIGTERM"] - ends[f"{name} answered"] < 20.0


def test_model_beyond_its_limit_refuses(serve: Serve, server: str, journal: Journal) -> None:
    """429 with Retry-After, whatever Accept says; a place that comes free is given again."""
    proxy = serve({"a": journal.model("a", concurrencyLimit=2)}, server=server)
    streams = [proxy.open_chat("a", events=10_000, every_s=0.05) for _ in range(2)]
    for stream in streams:
        stream.read_head()
    headers = {"Accept": "text/plain"}
    answer = proxy.call("POST", CHAT, value=chat_body("a"), headers=headers)

    assert answer.status == 429
    assert answer.header("retry-after") == "1"
    assert error_of(answer)["code"] == "concurrency_limit"
    streams[0].close()
    proxy.wait_busy("a", in_flight=1)
    assert proxy.chat("a").status == 200
    streams[1].close()


def test_example_configuration_works(serve: Serve, journal: Journal) -> None:
    """A command on many lines, a macro whose name begins with a digit, aliases, ttl 0."""
    command = " \\\n      ".join(journal.model("a")["cmd"][:3])
    proxy = serve(config=SEEDS_STYLE.format(command=command, journal=journal.path))

    assert proxy.chat("alias").status == 200
    assert journal.words("^a-131072 started")
    assert proxy.running()["a"]["ttl"] == 0


def test_unclean_paths_are_redirected(serve: Serve, journal: Journal, layer: str) -> None:
    """Under each HTTP layer the redirect names the clean path, and never another host."""
    proxy = serve({"a": journal.model("a")}, server=layer)

    answer = proxy.call("GET", "//v1/./x/../models?a=1")
    assert (answer.status, answer.header("location")) == (301, "/v1/models?a=1")
    answer = proxy.call("POST", "//v1/chat/completions", value={"model": "a"})
    assert (answer.status, answer.header("location")) == (308, "/v1/chat/completions")
    for target in ("//evil.example/x", "/.//evil.example/..//", "//\\evil.example/../running"):
        location = proxy.call("GET", target).header("location")
        assert location is None or re.match(r"/[^/\\]|/$", location), (target, location)


def test_rows_of_activity_without_a_store_are_bounded(serve: Serve) -> None:
    """Without a store rows are in memory, and the oldest go beyond ``metricsMaxInMemory``."""
    proxy = serve(
        {"a": demo_model("a")}, config={"metricsMaxInMemory": 20},
        env={"SWAPCHART_STATE_DIR": "/proc/no/such/folder"},
    )  # fmt: skip
    for _ in range(50):
        assert (
            proxy.call("POST", "/v1/completions", value={"model": "a", "prompt": "x"}).status == 200
        )
    found = proxy.call("GET", "/api/metrics/activity?limit=100").json()

    assert 20 <= found["total"] <= 22
    assert [row["id"] for row in found["data"]] == list(range(50, 50 - found["total"], -1))


def test_serve_lenient_serves_the_models_without_errors(serve: Serve) -> None:
    """A model with an error gets 404, a warning names it, and a reload is as lenient."""
    models = {"a": demo_model("a"), "bad": {"cmd": "", "proxy": "http://127.0.0.1:9"}}
    proxy = serve(models, options=("--lenient",))
    for _ in range(2):
        for name, status in (("a", 200), ("bad", 404)):
            value = {"model": name, "prompt": "x"}
            assert proxy.call("POST", "/v1/completions", value=value).status == status
        assert proxy.call("POST", "/api/config/reload", value={}).json()["ok"] is True

    assert "models.bad.cmd: model 'bad' is refused: empty command" in proxy.output()
