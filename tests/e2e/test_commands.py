"""Commands that ask a running proxy, against a real one with demo models."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tools import shown
from tools.documents import PAGES
from tools.net import LONG_S
from tools.swapchart_process import Serve, SwapchartProcess, demo_model
from tools.tls import PEM, certificate

from swapchart.adapters.cli import main
from swapchart.adapters.cli.defaults import EXIT_CONFIG, EXIT_INTERRUPTED
from swapchart.adapters.cli.parsers import build_parser

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
BROKEN = {"cmd": ["sh", "-c", "echo no such file; exit 3 # ${PORT}"], "cooldown": 60}


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    models = {
        # at the full rate a stream reaches the length of its context before another command asks
        "hare": demo_model("hare", "--load-seconds", "0.2", rate=100, aliases=["fast"]),
        "tortoise": demo_model("tortoise", description="slow and steady"),
        "broken": BROKEN,
    }
    found = serve_module(models)
    found.may_log = "broken"
    return found


@pytest.fixture
def run(
    proxy: SwapchartProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a command that asks the proxy; returns its exit code and what it printed."""
    monkeypatch.setenv("SWAPCHART_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("SWAPCHART_API_KEY", raising=False)

    def run_one(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_one


def test_commands_show_what_runs(run: Run, proxy: SwapchartProcess) -> None:
    """`load` waits for the model, and then `status`, `ps` and `list` show it, as JSON too."""
    proxy.unload()
    assert run("ps") == (0, "no model runs\n", "")
    code, out, err = run("load", "fast")

    assert (code, re.fullmatch(r"fast is ready after \d\.\d s\n", out) is not None) == (0, True)
    assert re.search(r"^hare: health checking \(pid \d+\)$", err, re.MULTILINE)
    code, out, _ = run("status")
    assert code == 0
    assert out.splitlines()[0].endswith("3 models, 0 in flight, 0 waiting")
    assert re.search(r"^hare +ready +0 +0  the health check passed$", out, re.MULTILINE)
    assert re.search(r"^tortoise +stopped +0 +0", out, re.MULTILINE)
    code, out, _ = run("ps")
    pid = proxy.running()["hare"]["pid"]
    assert re.search(rf"^hare +ready +{pid} +\d+ +0 +- +http://\S+ +\S+python", out, re.MULTILINE)
    code, out, _ = run("list")
    assert re.search(r"^tortoise +unloaded .* slow and steady$", out, re.MULTILINE)
    assert re.search(r"^hare +loaded +- +fast", out, re.MULTILINE)
    states = {
        row["model"]: row["state"] for row in json.loads(run("status", "--json")[1])["models"]
    }
    assert states["hare"] == "ready"
    assert [row["model"] for row in json.loads(run("ps", "--json")[1])] == ["hare"]
    assert len(json.loads(run("list", "--json")[1])) == 3
    assert run("unload", "hare") == (0, "hare is unloaded\n", "")
    assert proxy.running() == {}
    assert re.search(r"^hare +stopped +0 +0 +unloaded by API$", run("status")[1], re.MULTILINE)
    assert json.loads(run("load", "tortoise", "--json")[1])["model"] == "tortoise"
    assert run("unload", "--all") == (0, "all models are unloaded\n", "")
    assert proxy.running() == {}


def test_load_of_a_model_that_fails_says_why(run: Run) -> None:
    code, out, err = run("load", "broken")
    *_, last = err.splitlines()

    assert (code, out) == (1, "")
    assert last.endswith("exit code 3; its output: no such file")
    assert re.search(r"^broken +\w+ +0 +0 .*exit code 3$", run("status")[1], re.MULTILINE)


def test_load_goes_on_after_ctrl_c_until_unload_ends_it(run: Run, proxy: SwapchartProcess) -> None:
    """The command says so; a load that waits in the queue stays there."""
    proxy.unload()
    url = ["--url", f"http://127.0.0.1:{proxy.port}"]
    argv = [sys.executable, "-u", "-m", "swapchart", "load", "tortoise", *url]

    def interrupt_a_load() -> None:
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as child:
            assert child.stderr is not None
            assert child.stderr.readline() == (
                "tortoise: waits in the queue: hare has 1 requests in flight\n"
            )
            child.send_signal(signal.SIGINT)
            assert child.wait(LONG_S) == 130
            assert child.stderr.read() == (
                "\nthe load goes on; `swapchart unload tortoise` ends it\n"
            )

    with proxy.open_stream("hare") as stream:
        interrupt_a_load()
        assert [row["model"] for row in proxy.get("/api/queue")["queue"]] == ["tortoise"]
        assert run("unload", "tortoise") == (0, "tortoise is unloaded\n", "")
        assert proxy.get("/api/queue")["queue"] == []
        interrupt_a_load()
        stream.close()
    proxy.wait_state("tortoise", "ready")
    assert run("unload", "tortoise")[0] == 0


def test_certificate_that_is_not_trusted_is_one_line(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Each command says which variable names the issuer; with it, a name must be right too."""
    pem = str(certificate())
    options = ("--tls-cert-file", pem, "--tls-key-file", pem)
    proxy = serve({"hare": demo_model("hare")}, wait=False, options=options)
    proxy.wait_said("listens on https://127.0.0.1:")
    found = re.search(r"https://127\.0\.0\.1:(\d+)", proxy.output())
    assert found is not None
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)

    def failure(scheme: str, host: str, command: str) -> str:
        words = command.format(url=f"{scheme}://{host}:{found[1]}").split()
        assert main(words) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err

    commands = [command if "{url}" in command else f"{command} --url {{url}}" for command in ASKING]
    for command in (*commands, "run hare hello --url {url}"):
        assert failure("https", "localhost", command).endswith(
            "its certificate is not trusted (self-signed certificate); name a file with that of "
            "its issuer by the variable SSL_CERT_FILE\n"
        )
    assert failure("http", "localhost", commands[0]).endswith(
        "the connection was closed; if a certificate is used there, try https://\n"
    )
    issuer = tmp_path / "issuer.pem"
    issuer.write_text(PEM.partition("-----BEGIN PRIVATE")[0])
    monkeypatch.setenv("SSL_CERT_FILE", str(issuer))
    assert "its certificate is for another name (IP address mismatch" in failure(
        "https", "127.0.0.1", commands[0]
    )
    assert main(["chat", "hare", "hello", "--url", f"https://localhost:{found[1]}"]) == 0
    assert capsys.readouterr().out == "This is hare. You asked: hello\n"


@pytest.mark.parametrize(
    "command",
    ["load", "unload", "explain", "plan", "history", "logs", "chat {} hello", "chat {} --json x"],
)
def test_unknown_model_is_one_line_with_a_guess(run: Run, command: str) -> None:
    words = command.split() if "{}" in command else [command, "{}"]
    code, out, err = run(*(word.format("hrae") for word in words))

    assert (code, out) == (1, "")
    assert re.fullmatch(r"swapchart: .* 'hrae'( is no model)?; did you mean 'hare'\?\n", err)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tort", "did you mean 'tortoise'?"), ("OISE", "did you mean 'tortoise'?"),
        ("xyz", "`swapchart list` shows the models"),
    ],
)  # fmt: skip
def test_unknown_model_of_another_length_is_named_with_what_to_do(
    run: Run, name: str, hint: str
) -> None:
    """A part of a name, in any case, is a guess too."""
    assert run("explain", name)[2].endswith(f"model not found: {name!r}; {hint}\n")


@pytest.mark.parametrize("command", ["plan", "plan hare --with hare", "config plan one.yaml"])
def test_command_without_what_it_is_about_is_a_usage_error(run: Run, command: str) -> None:
    code, out, err = run(*command.split())

    assert (code, out) == (2, "")
    assert re.fullmatch(r"swapchart: \S+( plan)?: expected .*\n", err)


def test_config_plan_without_files_asks_the_proxy_of_the_variable(run: Run) -> None:
    code, out, err = run("config", "plan")

    assert (code, out, err) == (0, "nothing changes; 3 models unchanged\n", "")


@pytest.mark.parametrize("command", ["history --limit -1", "logs -n -1", "logs -n x"])
def test_number_that_is_negative_or_none_is_a_usage_error(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command.split())

    assert ended.value.code == 2
    assert "expected a number that is not negative, got " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("hare", "--all")])
def test_unload_without_or_with_two_targets_is_a_usage_error(
    run: Run, arguments: tuple[str, ...]
) -> None:
    code, _, err = run("unload", *arguments)

    assert (code, err) == (2, "swapchart: unload: expected MODEL or --all\n")


def test_explain_and_queue_say_why_a_request_waits(run: Run, proxy: SwapchartProcess) -> None:
    """A request that waits for another model stands in `queue` and `status`."""
    assert run("queue") == (0, "no request is queued\n", "")
    with proxy.open_stream("hare"), proxy.open_chat("tortoise"):
        rows: list[object] = []
        while not rows:
            rows = json.loads(run("queue", "--json")[1])["queue"]
        _, out, _ = run("queue")
        assert re.search(r"^ +1  tortoise +\d+  \d+\.\d s +hare has 1 requests", out, re.MULTILINE)
        _, out, _ = run("explain", "tortoise")
        assert out.startswith("tortoise (stopped): wait")
        assert "  place in the queue: 2\n" in out
        out = run("status")[1]
        assert "1 in flight, 1 waiting" in out
    assert json.loads(run("plan", "hare", "--json")[1])["model"] == "hare"


def test_nodes_shows_this_machine_with_its_models(run: Run) -> None:
    """Without a cluster it is the only node; history says on which node a model ran."""
    run("load", "hare")
    _, out, _ = run("nodes")
    header, row = out.splitlines()
    (node,) = json.loads(run("nodes", "--json")[1])["nodes"]

    assert re.split(r" {2,}", header) == [
        "NODE", "ADDRESS", "STATE", "CPUS", "RAM", "GPUS", "MODELS", "MAY STILL RUN",
    ]  # fmt: skip
    assert row.startswith(f"{socket.gethostname()} (this machine)  127.0.0.1  up")
    assert "hare (ready)" in row
    assert [model["model"] for model in node["models"]] == ["hare"]
    rows = json.loads(run("history", "hare", "--limit", "5", "--json")[1])
    assert rows[0]["node"] == socket.gethostname()
    assert run("nodes", "--free", "gpu box") == (0, "gpu box: nothing was lost there\n", "")


def test_logs_prints_kept_and_later_lines(run: Run, proxy: SwapchartProcess) -> None:
    """All lines of a model, the last ones, and those that come until Ctrl-C."""
    proxy.unload("hare")
    run("load", "hare")
    _, out, _ = run("logs", "hare")
    assert "loading model" in out
    assert run("logs", "hare", "-n", "1")[1] == out.splitlines()[-1] + "\n"
    assert run("logs", "hare", "-n", "0")[1] == ""
    assert "load_model" in json.loads(run("logs", "hare", "--json")[1].splitlines()[0])["line"]
    assert "event=ready" in run("logs", "proxy")[1]
    assert run("logs", "nothing")[0] == 1
    with following(proxy, "logs", "-f", "-n", "1", "hare") as read:
        read(r"\n")  # printed after it has begun to follow
        proxy.chat("hare")
        assert "POST /v1/chat/completions" in read("POST")


def test_history_prints_transitions_of_all_models_and_later_ones(
    run: Run, proxy: SwapchartProcess
) -> None:
    proxy.unload()
    run("load", "hare")
    run("load", "tortoise")
    _, out, _ = run("history", "--limit", "40")
    lines = out.splitlines()
    assert len(lines) <= 40
    assert {"hare", "tortoise"} <= {line.split()[2] for line in lines}
    times = [line[:23] for line in lines]
    assert sorted(times) == times
    last = json.loads(run("history", "tortoise", "--json", "--limit", "1")[1])[0]
    assert last["target"] == "ready"
    with following(proxy, "history", "--follow", "--limit", "1") as read:
        read(r"tortoise +after_healthy -> ready")
        proxy.unload("tortoise")
        read(r"tortoise +ready -> .*\n(?:.*\n)*.* -> stopped")
    with following(proxy, "history", "fast", "-f", "--limit", "1", "--json") as read:
        first = json.loads(read(r".*\n"))
        assert first["service"] == "hare"
        proxy.chat("tortoise")
        proxy.chat("hare")
        text = read(r'"target": "ready".*\n')
        assert {json.loads(line)["service"] for line in text.splitlines()} == {"hare"}


@contextmanager
def following(proxy: SwapchartProcess, *arguments: str) -> Iterator[Callable[[str], str]]:
    """Run a command that ends by Ctrl-C; gives a function that reads until a pattern came."""
    url = ["--url", f"http://127.0.0.1:{proxy.port}"]
    argv = [sys.executable, "-u", "-m", "swapchart", *arguments, *url]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        out = child.stdout
        found: list[str] = []

        def read(pattern: str) -> str:
            while not re.search(pattern, "".join(found)):
                line = out.readline()
                assert line, child.stderr.read() if child.stderr else ""
                found.append(line)
            return "".join(found)

        try:
            yield read
            child.send_signal(signal.SIGINT)
            code = child.wait(LONG_S)
        finally:
            child.kill()
        assert (code, child.stderr.read()) == (130, "")


def test_chat_streams_and_says_what_it_waits_for(run: Run, proxy: SwapchartProcess) -> None:
    """The text goes to standard output, the progress of the load and the times to the other."""
    proxy.unload()
    code, out, err = run("chat", "fast", "hello there")
    assert (code, out) == (0, "This is hare. You asked: hello there\n")
    assert "hare: health checking" in err
    assert re.search(
        r"^\[ready after \d\.\d s, first token after \d\.\d\d s, 7 tokens read, "
        r"7 written at [\d.]+ tokens/s, \d\.\d s in all\]$", err, re.MULTILINE,
    )  # fmt: skip
    code, out, err = run("chat", "hare", "again", "--max-tokens", "2", "--system", "Be brief.")
    assert (code, out) == (0, "This is\n")
    assert err.startswith("[first token after")
    _, out, err = run("chat", "hare", "x", "--json")
    value = json.loads(out)
    assert (value["text"], value["finish_reason"], err) == (
        "This is hare. You asked: x", "stop", "",
    )  # fmt: skip
    assert value["usage"]["completion_tokens"] == 6


def test_chat_with_a_busy_model_says_why_it_waits(
    run: Run, proxy: SwapchartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream of the other model ends when the command has said that it waits for it."""
    expected = "tortoise: waits in the queue: hare has 1 requests in flight"
    with proxy.open_stream("hare") as stream:

        class Closing(io.StringIO):
            """Standard error that closes the stream."""

            def write(self, text: str) -> int:
                if text == expected:
                    stream.close()
                return super().write(text)

        said = Closing()
        monkeypatch.setattr(sys, "stderr", said)
        code, out, _ = run("chat", "tortoise", "hello")

    assert (code, out) == (0, "This is tortoise. You asked: hello\n")
    assert f"{expected}\n" in said.getvalue()


def test_chat_reads_the_prompt_from_its_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Typed:
        def __init__(self, text: str) -> None:
            self.text = text

        def isatty(self) -> bool:
            return False

        def read(self) -> str:
            return self.text

    monkeypatch.setattr(sys, "stdin", Typed("from a pipe\n"))
    assert run("chat", "hare")[1] == "This is hare. You asked: from a pipe\n"
    monkeypatch.setattr(sys, "stdin", Typed(" \n"))
    code, _, err = run("chat", "hare")
    assert (code, "expected a PROMPT" in err) == (2, True)


# ---- proxies that do not respond as expected
#: Every command that asks a proxy, with its arguments.
ASKING = (
    "status", "top", "ps", "list", "load a", "unload a", "unload --all", "logs", "logs -f", "queue",
    "nodes", "explain a", "plan a", "history", "history a", "history --follow", "memory",
    "chat a hello",
    "config reload", "config plan --url {url}",
)  # fmt: skip


@pytest.mark.parametrize("command", ASKING)
def test_command_without_a_proxy_is_one_line(run: Run, command: str) -> None:
    """Nothing listens on the port."""
    url = "http://127.0.0.1:1"
    words = command.format(url=url).split()
    code, out, err = run(*words, *(() if "--url" in words else ("--url", url)))

    assert (code, out) == (1, "")
    assert err == (
        "swapchart: no response from http://127.0.0.1:1: Connection refused; start one by "
        "`swapchart serve`, or name another one by --url or SWAPCHART_URL\n"
    )


class Foreign(BaseHTTPRequestHandler):
    """Responds to everything with the status, type and body of its server."""

    reply: tuple[int, str, bytes] = (200, "text/html", b"<html>a router</html>")

    def do_GET(self) -> None:
        status, kind, body = self.reply
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *given: object) -> None:
        pass


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Foreign]]:
    """Another program that listens where the commands ask."""
    handler = type("Handler", (Foreign,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("SWAPCHART_URL", f"http://127.0.0.1:{server.server_port}")
        yield handler
        server.shutdown()


@pytest.mark.parametrize(
    "command",
    [
        "status", "ps", "list", "nodes", "queue", "explain a", "history a", "load a", "unload a",
        "unload --all", "logs", "logs -f", "logs a", "logs -f -n 1",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "reply",
    [
        (200, "text/html", b"<html>a router</html>"),
        (200, "application/json", b'{"status":"ok"}'),
        (200, "application/json", b"[1]"),
        (404, "application/json", b'{"error":{"code":404,"message":"File Not Found"}}'),
        (501, "text/html", b"<html>no</html>"),
    ],
)
def test_command_that_asks_another_program_says_so(
    foreign: type[Foreign], command: str, reply: tuple[int, str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    foreign.reply = reply

    assert main(command.split()) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"swapchart: http://\S+ is not a swapchart; it responded with .*\n", err)


#: A response in which each field that a command asks for has a value of another type.
ODD = {
    "version": 4, "running": [1], "queue": 1, "nodes": [2], "models": 3, "data": "x", "outcome": {},
    "pools": [{}], "text": {}, "plan": 4, "notices": [3],
}  # fmt: skip


@pytest.mark.parametrize("command", [*ASKING, "run a hello", "config check {url}"])
def test_response_with_values_of_other_types_is_one_line(
    foreign: type[Foreign], tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The proxy may be of another version, or another program with fields of the same names."""
    foreign.reply = (200, "application/json", json.dumps(ODD).encode())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    url = os.environ["SWAPCHART_URL"]
    words = command.format(url=url).split()
    if words[:2] == ["config", "check"]:
        Path("config.yaml").write_text("models: {a: {cmd: sleep 9, proxy: 'http://127.0.0.1:1'}}")
        words = ["config", "check", "--url", url]

    code = main(words)
    out, err = capsys.readouterr()
    if words[:2] == ["config", "check"]:
        assert (code, "another version" in out) == (0, True)
    else:
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert re.match(
            r"swapchart: (http://\S+ is not a swapchart|model not found|the model)", err
        )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'data: {"choices":[{"delta":{"content":"so far"}}]}\n\n', "the response was cut off"),
        (b'data: {"error":{"message":"out of memory"}}\n\n', "out of memory"),
        (b"data: {\n\n", "the response was cut off: "),
        (b'data: {"choices":[3]}\n\n', "the model responded with an unknown chunk: "),
        (b"data: 3\n\n", "the response was cut off: "),
    ],
)
def test_chat_reports_a_stream_that_fails(
    foreign: type[Foreign], body: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign.reply = (200, "text/event-stream", body)

    assert main(["chat", "a", "hello"]) == 1
    out, err = capsys.readouterr()
    assert f"swapchart: {said}" in err
    assert out == ("so far\n" if b"so far" in body else "")  # the message has its own line


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://[", "Invalid IPv6 URL; the address is given by --url or SWAPCHART_URL"),
        ("ftp://127.0.0.1", "expected an address such as http://127.0.0.1:8080"),
        ("http://127.0.0.1:99999", "Port out of range"),
        ("http://a b", "no response from http://a b"),
        ("http://é" + "x" * 70, "no response from"),
        ("https://127.0.0.1:{port}", "it does not speak TLS"),
    ],
)
def test_address_that_cannot_be_asked_is_one_line(
    run: Run, proxy: SwapchartProcess, url: str, said: str
) -> None:
    code, out, err = run("status", "--url", url.format(port=proxy.port))

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err


def test_address_without_scheme_is_http(run: Run, proxy: SwapchartProcess) -> None:
    assert run("queue", "--url", f"127.0.0.1:{proxy.port}/")[0] == 0


def test_key_is_asked_for_and_may_be_wrong(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of refusal has its own line; SWAPCHART_API_KEY and --api-key are used."""
    keys = ["sk-admin", {"key": "sk-infer", "scopes": ["infer"]}]
    proxy = serve({"hare": demo_model("hare")}, config={"apiKeys": keys})
    proxy.headers = {"Authorization": "Bearer sk-admin"}
    monkeypatch.setenv("SWAPCHART_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.delenv("SWAPCHART_API_KEY", raising=False)
    for key, code, said in (
        (None, 1, "an API key is needed: give it by --api-key or SWAPCHART_API_KEY"),
        ("wrong", 1, "the API key of --api-key or SWAPCHART_API_KEY is not known there"),
        ("sk-infer", 1, "responded with 403: "),
        ("a\nb", 1, "has characters that a header cannot have"),
        ("ключ", 1, "has characters that a header cannot have"),
        ("sk-admin", 0, ""),
    ):
        assert main(["ps", *(["--api-key", key] if key else [])]) == code
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == code
    monkeypatch.setenv("SWAPCHART_API_KEY", "sk-infer")
    assert main(["chat", "hare", "hello"]) == 0
    assert capsys.readouterr().out == "This is hare. You asked: hello\n"
    assert main(["list"]) == 0


def test_doctor_recognizes_a_running_proxy(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With keys too, although the command has none."""
    proxy = serve({"hare": demo_model("hare")}, config={"apiKeys": ["sk-admin"]})
    config = tmp_path / "doctor.yaml"
    config.write_text("models: {}")
    address = f"127.0.0.1:{proxy.port}"
    main(["doctor", "--config", str(config), "--listen", address])

    assert (
        f"ok       address: a swapchart responds at http://{address}\n" in capsys.readouterr().out
    )


# ---- docs/commands.md
@pytest.mark.parametrize(("page", "command"), shown.items(shown.COMMANDS_PAGE))
def test_docs_commands_example_succeeds(run: Run, page: str, command: str) -> None:
    """Each command of the page that asks a proxy prints something and ends with code 0."""
    code, out, err = run(*shlex.split(command.replace("qwen", "hare"))[1:])

    assert code == 0, err
    assert out


def test_docs_commands_table_has_every_command_with_an_example() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)` \| `swapchart ([a-z-]+)", PAGES["commands.md"], re.MULTILINE
    )

    assert [name for name, _ in rows] == [*parsers()]
    assert [(name, example) for name, example in rows if name != example] == []


def test_docs_commands_exit_codes_are_those_of_the_commands() -> None:
    text = PAGES["commands.md"].partition("| exit code |")[2]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \| ", text, re.MULTILINE)}

    assert codes == {0, 1, 2, 3, EXIT_CONFIG, EXIT_INTERRUPTED}


# ---- help and start
def parsers() -> dict[str, object]:
    (action,) = [item for item in build_parser()._actions if item.dest == "command"]
    return dict(action.choices)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in parsers() if name != "demo-server"])
def test_help_shows_examples_that_are_understood(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    out = capsys.readouterr().out
    _, _, text = out.partition("examples:\n")
    lines = [re.sub(r"  # .*| < .*| > .*", "", line.strip()) for line in text.splitlines()]

    assert ended.value.code == 0
    assert lines
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["swapchart", name]
        build_parser(words[1]).parse_args(words[1:])


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        ("--help", ["logging", "dataclasses", "shutil", "json", "http.client", "yaml"]),
        ("status --url 127.0.0.1:1", ["logging", "httpx", "swapchart.runtime", "anyio"]),
        ("top --once --url 127.0.0.1:1", ["logging", "httpx", "swapchart.runtime", "rich"]),
        ("run a --url 127.0.0.1:1", ["logging", "httpx", "swapchart.runtime", "anyio"]),
        ("load a --url 127.0.0.1:1", ["logging", "httpx", "swapchart.runtime", "anyio"]),
        ("config reload --url 127.0.0.1:1", ["logging", "yaml", "swapchart.runtime", "anyio"]),
        ("config plan --url 127.0.0.1:1", ["logging", "yaml", "swapchart.runtime", "anyio"]),
        ("yield a --url 127.0.0.1:1", ["logging", "yaml", "swapchart.runtime", "anyio"]),
    ],
)
def test_command_imports_little(arguments: str, absent: list[str]) -> None:
    """Packages that take long to import are imported only by commands that need them."""
    script = (
        "import sys\nfrom swapchart.adapters.cli import main\n"
        f"try: main({arguments.split()!r})\nexcept SystemExit: pass\n"
        f"sys.stderr.write(repr([n for n in {absent!r} if n in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}"],
        capture_output=True, text=True, timeout=LONG_S, check=True,
    )  # fmt: skip

    assert done.stderr.splitlines()[-1].endswith("[]")


def test_output_that_is_not_read_to_its_end_is_no_traceback(proxy: SwapchartProcess) -> None:
    command = f"{sys.executable} -m swapchart list --url http://127.0.0.1:{proxy.port} | true"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=LONG_S, check=True
    )

    assert done.stderr == ""
