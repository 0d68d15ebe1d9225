"""Diagrams on the command line: options of a view, folders, and pictures in Markdown."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from swapchart.adapters.cli import main
from swapchart.machine import lifecycle, to_yaml

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")

DOOR = """
format: swapchart.chart/v1
name: Door
events: {push: {}, jammed: {origin: timer, of: patience}}
actions:
  arm: {do: {effect: timer.start, timer: patience}}
  disarm: {do: {effect: timer.cancel, timer: patience}}
  ring: {do: {effect: notify, name: ring}}
promises: {rest: [shut], always: [{why: the door never moves, never: [moving]}]}
chart:
  name: Door
  states:
    shut: {initial: true, transitions: [{event: push, target: moving}]}
    moving:
      enter: arm
      exit: disarm
      transitions: [{event: jammed, target: broken, "on": ring}]
      states:
        opening: {initial: true, transitions: [{event: push, target: ajar}]}
        ajar: {transitions: [{event: push, "on": ring}]}
    broken: {final: true}
"""
README = """# Door

<!-- swapchart:door.yaml view=overview theme=light -->
old
<!-- /swapchart -->

Between.

<!-- swapchart:door.yaml format=mermaid focus=moving title="In the frame" -->
<!-- /swapchart -->
<!-- swapchart:lifecycle format=table -->
<!-- /swapchart -->
The end.
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["chart", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a chart and a page that embeds it; the working directory."""
    (tmp_path / "door.yaml").write_text(DOOR)
    (tmp_path / "README.md").write_text(README)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "has", "has_not"),
    [
        (("--view", "overview"), "6 states inside", "before_start"),
        (("--view", "starting"), "state starting {", "state sleeping"),
        (("--view", "full"), "arm_grace", "states inside"),
        (("--depth", "1"), "states inside", "state starting"),
        (("--focus", "ready"), 'state "ready<br/>entry', "settling"),
        (("--collapse", "stopping,starting"), "11 states inside", "before_start"),
        (("--only", "origin=timer"), "grace_expired", "hooks_done"),
        (("--hide", "guards"), "cancel_grace", "[idle]"),
        (("--hide", "none"), "give_way", "no such thing"),
        (("--direction", "LR"), "direction LR", "direction TB"),
        (("--title", "A day: its end"), 'title: "A day: its end"', "title: Lifecycle"),
        (("--theme", "dark", "--active", "ready"), "fill:#4d3a00", "#ffe08a"),
        (("--trace", "start,hooks_done, spawned"), "step 3", "step 4"),
    ],
)
def test_chart_export_option_changes_what_is_drawn(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], has: str, has_not: str
) -> None:
    """Each option, by the text of a Mermaid diagram."""
    code, out, err = run(capsys, "export", "--format", "mermaid", *options)

    assert (code, err) == (0, "")
    assert has in out
    assert has_not not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--view", "bedroom"), "--view: expected one of full, overview, alive, starting"),
        (("--focus", "bedroom"), "focus: expected a state of Lifecycle, got 'bedroom'"),
        (("--depth", "0"), "depth: expected at least 1 level, got 0"),
        (("--hide", "walls"), "hide: expected bookkeeping, ignored"),
        (("--trace", "fly"), "trace: expected an event of Lifecycle (request, abandon"),
        (("--trace", "start,start(to=1)"), "'start(to=1)' has no field 'to'"),
        (("--trace", "proc_exited"), "expected `abnormal` as one of True, False"),
        (("--trace", "start(x"), "expected an event such as `submit(value=50)`, got 'start(x'"),
        (("--trace", "healthy"), "no transition takes 'healthy' in alive.stopped"),
        (("--split", "x"), "--split: expected --format svg or png, got mermaid"),
    ],
)
def test_chart_export_option_with_a_wrong_value_is_refused(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    """One line that says what was expected."""
    code, out, err = run(capsys, "export", "--format", "mermaid", *options)

    assert (code, out) == (1, "")
    assert message in err


def test_chart_export_draws_the_way_to_a_finding(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trace that the check prints, step by step; a finding that is not there is refused."""
    command = ("export", "--format", "dot", "--chart", "door.yaml", "--finding")
    _, printed, _ = run(capsys, "check", "--chart", "door.yaml")
    assert "1. push -> moving" in printed

    code, out, _ = run(capsys, *command, "1")
    assert code == 0
    assert "step 1" in out
    code, _, err = run(capsys, *command, "99")
    assert code == 1
    assert re.search(r"--finding: expected 1 to \d+, got 99", err)


@needs_dot
def test_chart_export_split_writes_linked_pictures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An overview and one picture for each composite state."""
    code, out, _ = run(
        capsys, "export", "--format", "svg", "--chart", "door.yaml", "--split", "parts"
    )

    assert (code, out) == (0, "")
    assert {path.name for path in (folder / "parts").iterdir()} == {"overview.svg", "moving.svg"}
    text = (folder / "parts" / "moving.svg").read_text()
    assert 'href="overview.svg"' in text
    assert "Door: moving" in text


@needs_dot
def test_chart_diagrams_of_a_chart_are_written_and_checked(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All formats and views; --check writes nothing and names what is stale."""
    command = ("diagrams", "--chart", "door.yaml", "--output", "drawn")
    code, _, err = run(capsys, *command, "--check")
    assert code == 1
    assert "stale: drawn/overview.svg" in err
    assert not (folder / "drawn").exists()

    assert run(capsys, *command)[0] == 0
    assert run(capsys, *command, "--check") == (0, "", "")
    names = {path.name for path in (folder / "drawn").iterdir()}
    assert {"door.svg", "door.mmd", "door.puml", "door.md", "overview.svg", "moving.svg"} <= names
    (folder / "drawn" / "moving.svg").write_text("edited")
    code, _, err = run(capsys, *command, "--check")
    assert (code, "drawn/moving.svg" in err, "door.svg" in err) == (1, True, False)


@needs_dot
def test_chart_diagrams_embed_keeps_markdown_up_to_date(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images and text between markers are replaced, all else stays, and again changes nothing."""
    command = ("diagrams", "--embed", "README.md")
    code, _, err = run(capsys, *command, "--check")
    assert (code, "stale: README.md" in err) == (1, True)
    assert (folder / "README.md").read_text() == README

    assert run(capsys, *command)[0] == 0
    text = (folder / "README.md").read_text()
    assert "![Door: overview](door-overview.svg)\n<!-- /swapchart -->\n\nBetween." in text
    assert '```mermaid\n---\ntitle: "In the frame"\n' in text
    assert "| alive.ready | stable |" in text
    assert text.endswith("<!-- /swapchart -->\nThe end.\n")
    assert "old" not in text.splitlines()
    assert (folder / "door-overview.svg").read_text().startswith("<svg ")
    assert run(capsys, *command, "--check") == (0, "", "")

    (folder / "door.yaml").write_text(DOOR.replace("jammed", "stuck"))
    code, _, err = run(capsys, *command, "--check")
    assert code == 1
    assert {"stale: README.md", "stale: door-overview.svg"} <= set(err.splitlines())


@needs_dot
def test_chart_diagrams_embed_of_one_chart_leaves_the_other_markers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--chart F --embed` draws the markers of F only."""
    command = ("diagrams", "--embed", "README.md", "--chart", "door.yaml")
    assert run(capsys, *command)[0] == 0
    text = (folder / "README.md").read_text()

    assert "door-overview.svg" in text
    assert "<!-- swapchart:lifecycle format=table -->\n<!-- /swapchart -->" in text
    (folder / "other.yaml").write_text(to_yaml(lifecycle()))
    code, _, err = run(capsys, "diagrams", "--embed", "README.md", "--chart", "other.yaml")
    assert code == 1
    assert "README.md: expected lines `<!-- swapchart:other.yaml -->` and" in err


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("<!-- swapchart:none.yaml -->", "none.yaml"),
        ("<!-- swapchart:door.yaml size=9 -->", "in a marker: unrecognized arguments: --size=9"),
        ("<!-- swapchart:door.yaml depth=x -->", "argument --depth: invalid int value: 'x'"),
        ("<!-- swapchart:door.yaml view=attic -->", "--view: expected one of full, overview"),
        ("<!-- swapchart:door.yaml format=gif -->", "format: expected one of yaml"),
    ],
)
def test_chart_diagrams_embed_with_a_wrong_marker_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], marker: str, message: str
) -> None:
    """One line, and nothing is written."""
    text = f"{marker}\n<!-- /swapchart -->\n"
    (folder / "README.md").write_text(text)
    code, _, err = run(capsys, "diagrams", "--embed", "README.md")

    assert code == 1
    assert message in err
    assert (folder / "README.md").read_text() == text
