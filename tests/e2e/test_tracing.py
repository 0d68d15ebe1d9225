"""OpenTelemetry traces, by the real SDK, as a collector gets them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import raw
from tools.collector import SECOND, Collector, Span, collecting
from tools.net import LONG_S, wait_until
from tools.swapchart_process import CHAT, Serve, SwapchartProcess, chat_body, demo_model, shell

pytestmark = pytest.mark.slow
pytest.importorskip("opentelemetry.sdk")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
ON = {"tracing": True}
_SERVER, _CLIENT, _INTERNAL = 2, 3, 1


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def _traced(proxy: SwapchartProcess, model: str, **more: str) -> raw.Answer:
    """Send a chat request that belongs to a trace."""
    headers = {"traceparent": TRACEPARENT, **more}
    return proxy.call("POST", CHAT, value=chat_body(model), headers=headers)


def _assert_children(parent: Span, *children: Span) -> None:
    for child in children:
        assert (child.trace, child.parent) == (parent.trace, parent.id), child.name
        assert parent.encloses(child), (parent, child)


def test_trace_of_a_request_that_swaps(collector: Collector, serve: Serve, server: str) -> None:
    """The request has the queue, the eviction and the start with their hooks, and the upstream."""
    models = {
        "a": demo_model("a", beforeStop=shell("sleep 0.2")),
        "b": demo_model("b", beforeStart=shell("sleep 0.1"), afterHealthy=shell("true")),
    }
    proxy = serve(models, server=server, config=ON, env=collector.env)
    assert proxy.chat("a").status == 200
    assert _traced(proxy, "b").status == 200
    spans = collector.trace(TRACE, 8)
    request = spans["POST /v1/chat/completions"]

    assert (request.parent, request.kind, request.is_error) == (PARENT, _SERVER, False)
    _assert_children(request, *(spans[n] for n in ("queue", "evict a", "start b", "POST")))
    _assert_children(spans["evict a"], spans["hook beforeStop"])
    _assert_children(spans["start b"], spans["hook beforeStart"], spans["hook afterHealthy"])
    assert spans["POST"].kind == _CLIENT
    assert spans["hook beforeStop"].end - spans["hook beforeStop"].start > 0.15 * SECOND
    order = ["queue", "evict a", "start b", "POST"]
    assert spans["queue"].end <= spans["start b"].start + 0.05 * SECOND
    assert spans["evict a"].end <= spans["start b"].start + 0.05 * SECOND
    assert spans["start b"].end <= spans["POST"].start + 0.05 * SECOND
    assert [spans[name].is_error for name in order] == [False] * 4
    assert spans["POST"].events == ("response headers",)


def test_trace_has_the_attributes_of_the_semantic_conventions(
    collector: Collector, serve: Serve
) -> None:
    proxy = serve({"a": demo_model("a")}, config=ON, env=collector.env)
    assert _traced(proxy, "a", **{"User-Agent": "tests/1"}).status == 200
    spans = collector.trace(TRACE, 4)
    found = spans["POST /v1/chat/completions"].attributes

    assert found["http.request.method"] == "POST"
    assert found["http.route"] == found["url.path"] == CHAT
    assert (found["http.response.status_code"], found["url.scheme"]) == (200, "http")
    assert (found["client.address"], found["user_agent.original"]) == ("127.0.0.1", "tests/1")
    assert (found["gen_ai.operation.name"], found["gen_ai.request.model"]) == ("chat", "a")
    assert found["gen_ai.usage.input_tokens"] > 0
    assert found["gen_ai.usage.output_tokens"] == 2
    assert found["http.response.body.size"] > 10
    assert found["swapchart.request_id"]
    upstream = spans["POST"].attributes
    assert (upstream["server.address"], upstream["http.response.status_code"]) == ("127.0.0.1", 200)
    assert upstream["url.full"] == f"http://127.0.0.1:{upstream['server.port']}{CHAT}"
    assert spans["POST"].resource["service.name"] == "swapchart"


def test_trace_of_a_ready_model_has_request_and_upstream_only(
    collector: Collector, serve: Serve
) -> None:
    proxy = serve({"a": demo_model("a")}, config=ON, env=collector.env)
    assert proxy.chat("a").status == 200
    for _ in range(2):  # the second one has cached headers
        assert _traced(proxy, "a").status == 200
    spans = collector.find(lambda span: span.trace == TRACE, 4)

    assert sorted(span.name for span in spans) == ["POST"] * 2 + ["POST /v1/chat/completions"] * 2


def test_trace_context_reaches_the_model_as_a_child(collector: Collector, serve: Serve) -> None:
    """The model's server gets the id of the span that it is called by, and the trace state."""
    proxy = serve({"a": _echo()}, config=ON, env=collector.env)
    state = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    for headers in (state, {}, {**state, "traceparent": f"00-{TRACE}-{PARENT}-00"}):
        answer = proxy.call("GET", "/upstream/a/echo", headers=headers)
        assert answer.status == 200
        seen = answer.json()
        version, trace, span, flags = seen["traceparent"].split("-")
        assert version == "00"
        if not headers:
            assert trace != TRACE
            assert "tracestate" not in seen
            continue
        assert (trace, seen["tracestate"]) == (TRACE, "vendor=1")
        assert span != PARENT
        assert flags == headers["traceparent"][-2:]
        if flags == "01":
            assert collector.with_id(span).kind == _CLIENT


def test_trace_context_without_tracing_passes_unchanged(serve: Serve) -> None:
    proxy = serve({"a": _echo()})
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    seen = proxy.call("GET", "/upstream/a/echo", headers=headers).json()

    assert (seen["traceparent"], seen["tracestate"]) == (TRACEPARENT, "vendor=1")


_ECHO = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({k.lower(): v for k, v in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def _echo() -> dict[str, object]:
    """Return a model whose server responds with the headers of the request."""
    return {"cmd": [sys.executable, "-c", _ECHO, "${PORT}"], "proxy": "http://127.0.0.1:${PORT}"}


def test_trace_of_a_failed_start_says_why(collector: Collector, serve: Serve) -> None:
    broken = {"cmd": "sh -c 'exit 3' ${PORT}", "proxy": "http://127.0.0.1:${PORT}"}
    proxy = serve({"a": broken}, config=ON, env=collector.env)
    answer = _traced(proxy, "a")
    assert answer.status >= 500
    spans = collector.trace(TRACE, 3)
    request, start = spans["POST /v1/chat/completions"], spans["start a"]

    assert request.is_error
    assert request.attributes["error.type"] == answer.json()["error"]["code"]
    assert request.attributes["http.response.status_code"] == answer.status
    assert (start.parent, start.is_error) == (request.id, True)
    assert "3" in start.message
    assert "POST" not in spans


def test_trace_of_a_failed_hook_says_why(collector: Collector, serve: Serve) -> None:
    models = {"a": demo_model("a", afterHealthy=shell("exit 4"))}
    proxy = serve(models, config=ON, env=collector.env)
    assert _traced(proxy, "a").status == 200  # this hook may fail
    hook = collector.named("hook afterHealthy")

    assert hook.is_error
    assert hook.trace == TRACE
    assert hook.attributes["swapchart.hook.outcome"] == "failed"


def test_trace_of_a_client_that_leaves_ends_with_it(collector: Collector, serve: Serve) -> None:
    proxy = serve({"a": demo_model("a", rate=20)}, config=ON, env=collector.env)
    assert proxy.chat("a").status == 200
    stream = proxy.open_stream("a")
    stream.close()
    (request,) = collector.find(lambda span: span.attributes.get("error.type") == "client_left"
                                and span.kind == _SERVER)  # fmt: skip
    (upstream,) = collector.find(lambda span: span.parent == request.id)

    assert not request.is_error
    assert upstream.name == "POST"
    assert request.encloses(upstream)


def test_trace_of_a_request_that_joins_a_start_links_to_it(
    collector: Collector, serve: Serve
) -> None:
    proxy = serve({"a": demo_model("a", beforeStart=shell("sleep 1"))}, config=ON,
                  env=collector.env)  # fmt: skip
    first = threading.Thread(target=proxy.chat, args=("a",))
    first.start()
    proxy.wait_state("a", "before_start")
    assert _traced(proxy, "a").status == 200
    first.join()
    spans = collector.trace(TRACE, 4)
    start = collector.named("start a")

    assert spans["wait for start a"].links == (start.id,)
    assert start.trace != TRACE
    _assert_children(spans["POST /v1/chat/completions"], spans["queue"], spans["wait for start a"])


def test_trace_of_swaps_without_a_request(collector: Collector, serve: Serve) -> None:
    """A load by a command, an idle stop and the shutdown are traces of their own."""
    proxy = serve({"a": demo_model("a", ttl=1), "b": demo_model("b")}, config=ON,
                  env=collector.env)  # fmt: skip
    assert proxy.call("POST", "/api/models/load/a").status == 200
    start, stop = collector.named("start a"), collector.named("stop a")
    assert proxy.call("POST", "/api/models/load/b").status == 200
    assert collector.named("start b").parent == ""
    assert proxy.stop() == 0
    last = collector.named("stop b")

    assert {start.parent, stop.parent, last.parent} == {""}
    assert len({start.trace, stop.trace, last.trace}) == 3
    assert stop.attributes["swapchart.event"] == "idle_expired"
    assert not stop.is_error
    assert start.end - start.start > 0.01 * SECOND


# ---- the environment
def test_sampler_of_the_environment_decides(collector: Collector, serve: Serve) -> None:
    env = {**collector.env, "OTEL_TRACES_SAMPLER": "parentbased_always_off",
           "OTEL_SERVICE_NAME": "mine"}  # fmt: skip
    proxy = serve({"a": demo_model("a")}, config=ON, env=env)
    assert proxy.chat("a").status == 200
    assert _traced(proxy, "a").status == 200
    spans = collector.find(lambda span: span.trace == TRACE, 2)

    assert proxy.stop() == 0
    assert {span.trace for span in collector.spans} == {TRACE}
    assert {span.resource["service.name"] for span in spans} == {"mine"}


def test_tracing_off_imports_nothing_of_opentelemetry(tmp_path: Path) -> None:
    """Without the key, and with ``OTEL_*`` in the environment, the application has no SDK."""
    config = tmp_path / "config.yaml"
    config.write_text("models: {a: {cmd: sleep 60, proxy: 'http://127.0.0.1:9'}}\n")
    script = (
        "import sys\nfrom swapchart.adapters.asgi import create_app\n"
        f"create_app({str(config)!r})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SWAPCHART_STATE_DIR": str(tmp_path),
             "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    )  # fmt: skip

    assert done.stdout == "[]\n"


def test_tracing_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("tracing: true\nmodels: {a: {cmd: sleep 60, proxy: 'http://127.0.0.1:9'}}\n")
    hide = (
        "import sys\nclass Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'opentelemetry':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\nfrom swapchart.adapters.cli import main\n"
        f"sys.exit(main(['serve', '--config', {str(config)!r}, '--listen', '127.0.0.1:0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], capture_output=True, text=True, check=False, timeout=LONG_S,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SWAPCHART_STATE_DIR": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 78
    assert "pip install 'swapchart[otel]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_exporter_is_one_line(serve: Serve) -> None:
    proxy = serve({"a": demo_model("a")}, config=ON, env={"OTEL_TRACES_EXPORTER": "jaeger"},
                  wait=False)  # fmt: skip
    wait_until(lambda: proxy.process.poll() is not None, LONG_S, what="the end")

    assert proxy.process.returncode == 78
    assert "the exporter 'jaeger' of `OTEL_TRACES_EXPORTER` is not installed" in proxy.output()
    assert "Traceback" not in proxy.output()


@pytest.mark.parametrize("how", ["refuses", "hangs", "fails"])
def test_collector_that_fails_slows_no_request(
    collector: Collector, serve: Serve, how: str
) -> None:
    """Requests and the shutdown go on as fast as they do with a collector that works."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = {"refuses": 9, "hangs": silent.getsockname()[1], "fails": collector.port}[how]
        collector.status = 503
        env = {**collector.env, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
               "OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}  # fmt: skip
        proxy = serve({"a": demo_model("a")}, config=ON, env=env)
        assert proxy.chat("a").status == 200
        began = time.monotonic()
        for _ in range(50):
            assert proxy.chat("a").status == 200
        took = time.monotonic() - began
        began = time.monotonic()
        assert proxy.stop() == 0

    assert took < 10
    assert time.monotonic() - began < 15
