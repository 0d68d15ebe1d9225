"""Charts on the command line: of a model, of a running proxy, of one's own, with changes."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from statemachine import State, StateChart

from swapchart.adapters.cli import main
from swapchart.adapters.cli.remote import client
from swapchart.machine import from_scxml, lifecycle, read, to_yaml

CONFIG = """
models:
  qwen:
    cmd: server --port ${PORT}
    aliases: [q]
    ttl: 300
    unloadTimeout: 7
    beforeStop: "curl -sf http://127.0.0.1:${PORT}/save"
"""

HASTY = """
lifecycle:
  states:
    ready:
      transitions_before:
        - {event: stop, target: killing, "on": want_stop}
"""


class Door(StateChart[Any]):
    """A chart written in Python, saying no more than a document can."""

    allow_event_without_transition = False
    catch_errors_as_events = False
    shut = State(initial=True)
    ajar = State()
    push = shut.to(ajar)
    pull = ajar.to(shut)


@pytest.fixture
def running() -> Iterator[str]:
    """A server that answers as the proxy does, or as another one below ``/other``."""
    models = {
        "qwen": ["alive", "stopping", "draining"], "idle": ["alive", "stopped"],
        "org/broken": ["alive", "failed", "tripped"],
    }  # fmt: skip
    answers: dict[str, tuple[int, object]] = {
        f"/api/models/{quote(name, safe='')}/explain": (200, {"configuration": states})
        for name, states in models.items()
    }
    answers["/other/api/models/qwen/explain"] = (200, {"hello": "world"})
    answers["/other/api/models/qwen/history?limit=50"] = (200, ["hello"])
    unknown = (404, {"src": "swapchart", "error": {"message": "model not found"}})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, value = answers.get(self.path, unknown)
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["chart", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_model_has_its_timers_and_hooks_filled_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table of one model says its seconds and its commands, and YAML of it reads back."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    code, out, _ = run(capsys, "export", "--format", "table", "--config", str(path), "--model", "q")
    assert code == 0
    assert "arm_idle_limits (idle_limit 300 s, doze_limit off)" in out
    assert "arm_grace (7 s)" in out
    assert "run_before_stop (run curl)" in out
    assert "run_after_stop (no hooks)" in out

    _, out, _ = run(capsys, "export", "--format", "yaml", "--config", str(path), "--model", "qwen")
    assert read(out).notes["arm_grace"] == "7 s"
    _, out, _ = run(capsys, "export", "--format", "scxml", "--config", str(path), "--model", "qwen")
    assert from_scxml(out).notes["arm_grace"] == "7 s"


def test_chart_of_an_unknown_model_lists_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says where, what was asked for and what there is."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    code, _, err = run(capsys, "export", "--format", "yaml", "--config", str(path), "--model", "x")
    assert code == 1
    assert "has no model 'x'; it has: qwen" in err


@pytest.mark.parametrize("format_", ["mermaid", "dot"])
def test_live_chart_shows_where_a_model_is(
    running: str, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    """The picture of a draining model differs from the plain one, and from others' pictures."""
    live = ("export", "--format", format_, "--live", running, "--model")
    _, plain, _ = run(capsys, "export", "--format", format_)
    found = [run(capsys, *live, name) for name in ("qwen", "idle", "org/broken")]

    assert [code for code, _, _ in found] == [0, 0, 0]
    assert len({plain, *(out for _, out, _ in found)}) == 4


def test_live_chart_that_cannot_be_shown_reports_the_reason(
    running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is not there, a format without highlights, something that is no proxy."""
    export = ("export", "--format")
    live = ("--live", running)
    for arguments, said in (
        (
            (*export, "dot", *live, "--model", "nobody"),
            f"{running} responded with 404: model not found",
        ),
        ((*export, "dot", *live), "--live: expected --model MODEL beside it"),
        (
            (*export, "scxml", *live, "--model", "qwen"),
            "a picture (mermaid, plantuml, dot, svg, png), got s",
        ),
        ((*export, "dot", "--live", running + "/other", "--model", "qwen"), "is not a swapchart"),
        ((*export, "dot", "--live", "http://[", "--model", "qwen"), "no response from http://["),
        ((*export, "dot", "--model", "qwen"), "--model: expected --live or --config beside it"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out, said in err) == (1, "", True), (arguments, err)


def test_history_prints_the_output_of_hooks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line stands below its transition; rows of older versions have no output."""
    done = {"action": "run warm", "outcome": "failed", "output": "no luck\nsorry"}
    old = {"action": "run old", "outcome": "ok"}
    rows = [
        {"at": 0.0, "source": "a", "target": "b", "event": "e", "cause": "", "hooks": [old, done]}
    ]
    found = {"model": "qwen", "data": rows}
    monkeypatch.setattr(client.Proxy, "get", lambda *_, **__: found)
    assert main(["history", "qwen"]) == 0
    first, *others = capsys.readouterr().out.splitlines()

    assert first.endswith("e [run old: ok] [run warm: failed]")
    assert [line.strip() for line in others] == ["run warm: no luck", "run warm: sorry"]


def test_history_that_is_unavailable_reports_the_reason(
    running: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line each, with the address."""
    for url, said in (
        (running, "responded with 404: model not found"),
        (running + "/other", "is not a swapchart"),
        ("http://[", "no response from http://["), ("http://127.0.0.1:1", "no response from"),
    ):  # fmt: skip
        assert main(["history", "qwen", "--url", url]) == 1
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), said in err) == ("", 1, True), err


def test_chart_file_that_is_inaccessible_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path and the reason, not a traceback."""
    odd, text = tmp_path / "odd.yaml", tmp_path / "text"
    odd.write_bytes(b"\xff\xfe\x00")
    text.write_text("")
    export = ("export", "--format", "yaml")
    for arguments in (
        ("check", "--chart", str(odd)), ("check", "--overlay", str(odd)),
        ("check", "--overlay", str(tmp_path / "missing")), ("check", "--overlay", str(text)),
        (*export, "-o", str(tmp_path)), (*export, "-o", str(tmp_path / "no" / "folder")),
        ("diagrams", "--output", str(text)),
    ):  # fmt: skip
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (1, ""), arguments
        assert str(tmp_path) in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guards: {idle: \"'a' * 99999999\"}", "arithmetic takes numbers"),
        ("x: " + "[" * 900 + "]" * 900, "levels of nesting"),
        ("- " * 5000, "levels of nesting"),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 50)),
         "aliases written out"),
        ("name: " + "x" * (5 << 20), "at most 4 MiB"),
    ],
)  # fmt: skip
def test_chart_check_hostile_overlay_exits_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """A value, a nesting or aliases that would grow beyond all bounds: exit 1, no traceback."""
    path = tmp_path / "overlay.yaml"
    path.write_text(text)
    code, _, err = run(capsys, "check", "--overlay", str(path))

    assert code == 1
    assert message in err
    assert len(err) < 1000


def test_chart_check_reports_all_mistakes_of_an_overlay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not only the first mistake, and not only how many there are."""
    path = tmp_path / "overlay.yaml"
    path.write_text("guards: {foo: in_flight = 3, bar: nothing > 1}\n")
    code, _, err = run(capsys, "check", "--overlay", str(path))

    assert code == 1
    assert "guards.foo: expected an expression, got 'in_flight = 3'" in err
    assert "guards.bar: " in err


def test_live_chart_without_a_proxy_reports_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback, the address, and exit code 1."""
    code, _, err = run(
        capsys, "export", "--format", "dot", "--live", "http://127.0.0.1:1", "--model", "a"
    )
    assert code == 1
    assert "no response from http://127.0.0.1:1" in err


def test_chart_check_refutes_a_broken_promise_with_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`chart check` of a hasty overlay exits 1 and shows the shortest way to what breaks."""
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(HASTY)
    code, out, _ = run(capsys, "check", "--overlay", str(overlay))

    assert code == 1
    assert "stop -> alive.stopping.killing" in out
    assert "broken promises" in out


def test_chart_can_be_given_as_file_or_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document by its path, a class by its name; both are exported as what they are."""
    path = tmp_path / "own.yaml"
    path.write_text(to_yaml(lifecycle()))
    code, out, _ = run(capsys, "export", "--format", "yaml", "--chart", str(path))
    assert (code, out) == (0, to_yaml(lifecycle()))

    module = types.ModuleType("doors")
    vars(module)["Door"] = Door
    monkeypatch.setitem(sys.modules, "doors", module)
    code, out, _ = run(capsys, "export", "--format", "table", "--chart", "doors:Door")
    assert code == 0
    assert "| shut | push |  | ajar |" in out
    code, _, err = run(capsys, "export", "--format", "table", "--chart", "doors:Window")
    assert (code, "expected package.module:Class" in err) == (1, True)


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz: apt-get install graphviz")
def test_chart_diagram_is_drawn_by_graphviz(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SVG and PNG are what their names say."""
    for format_, magic in (("svg", b"<svg xmlns="), ("png", b"\x89PNG")):
        path = tmp_path / f"chart.{format_}"
        assert run(capsys, "export", "--format", format_, "-o", str(path))[0] == 0
        assert path.read_bytes().startswith(magic)


def test_chart_diagram_without_graphviz_names_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear line, not a traceback."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    code, _, err = run(capsys, "export", "--format", "svg")

    assert code == 1
    assert "apt-get install graphviz" in err


def test_chart_of_any_class_is_drawn_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class with code and the library's default flags, in a module of the working directory."""
    (tmp_path / "lamps_of_test.py").write_text(
        "from statemachine import State, StateMachine\n"
        "class Lamp(StateMachine):\n"
        "    off = State('Light is off', initial=True)\n"
        "    on = State()\n"
        "    press = off.to(on, cond='has_power') | on.to(off)\n"
        "    def has_power(self): return True\n"
        "    def on_enter_on(self): print('light')\n"
        "class Broken(StateMachine):\n"
        "    pass\n"
        "NUMBER = 1\n"
    )
    monkeypatch.chdir(tmp_path)
    lamp = ("--chart", "lamps_of_test:Lamp")
    code, out, _ = run(capsys, "export", "--format", "mermaid", *lamp)
    assert code == 0
    assert "has_power" in out
    assert "on_enter_on" in out
    code, out, _ = run(capsys, "check", *lamp)
    assert "configurations" in out
    code, _, err = run(capsys, "check", "--chart", "lamps_of_test:NUMBER")
    assert (code, "expected a StateChart class, found 1" in err) == (1, True)


@pytest.mark.parametrize("format_", ["yaml", "json", "scxml", "xstate"])
def test_chart_can_be_given_in_each_form_of_an_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    """What `chart export` writes, `--chart` reads, without a word on standard error."""
    path = tmp_path / "own"
    options = ("--datamodel", "ecmascript", "--timer", "stable=1h")
    assert run(capsys, "export", "--format", format_, "-o", str(path), *options)[0] == 0

    code, out, err = run(capsys, "export", "--format", "yaml", "--chart", str(path))

    assert (code, out, err) == (0, to_yaml(lifecycle()), "")


def test_chart_of_another_tool_is_read_and_losses_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine of XState is checked; what was lost is said once, on standard error."""
    path = tmp_path / "fetch.json"
    path.write_text(
        '{"id": "fetch", "initial": "idle", "states": {"idle": {"on": {"FETCH": "loading"}}, '
        '"loading": {"invoke": {"src": "get", "input": 1, "onDone": "idle"}}}}'
    )
    code, out, err = run(capsys, "export", "--format", "table", "--chart", str(path))
    assert (code, err.count("not translated")) == (0, 1)
    assert "| loading | done.invoke.get |  | idle |" in out
    code, out, _ = run(capsys, "check", "--chart", str(path))
    assert "configurations" in out


def test_chart_with_a_catalog_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The native export and the other sections of the document make the document again."""
    path, catalog = tmp_path / "native.yaml", tmp_path / "catalog.yaml"
    assert run(capsys, "export", "--format", "native", "-o", str(path))[0] == 0
    sections = {key: value for key, value in lifecycle().source.items() if key != "chart"}
    catalog.write_text(json.dumps(sections))
    chart = ("--chart", str(path), "--catalog", str(catalog))

    code, out, err = run(capsys, "export", "--format", "yaml", *chart)

    assert (code, err, read(out) == lifecycle()) == (0, "", True)


def test_chart_in_no_known_form_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path and the forms that are read, and never the text of the file."""
    path = tmp_path / "odd"
    for text, said in (
        ("word " * 100, "expected a chart document, SCXML, XState JSON, or"),
        ("@startuml\n@enduml", "PlantUML cannot be read"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><scxml/>", "no document type declaration"),
        ("<scxml", "not XML"),
    ):
        path.write_text(text)
        code, out, err = run(capsys, "check", "--chart", str(path))
        assert (code, out, str(path) in err, said in err) == (1, "", True, True), err
        assert "word word" not in err
    code, _, err = run(capsys, "export", "--format", "scxml", "--timer", "stable=soon")
    assert (code, "expected NAME=DURATION, such as a=2d, got 'stable=soon'" in err) == (1, True)
