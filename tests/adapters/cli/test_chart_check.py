"""`chart check` for people and programs, `chart schema` and `chart types`."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from swapchart.adapters.cli import main

GOOD = """\
format: swapchart.chart/v1
name: Lamp
data: {n: {values: [0, 1]}}
events: {push: {}}
chart:
  states:
    dark:
      initial: true
      transitions: [{event: push, target: bright}]
    bright:
      transitions:
      - {event: push, cond: n == 1, target: dark}
      - {event: push, target: dark}
"""
UNHANDLED = GOOD.replace("{push: {}}", "{push: {}, stop: {}}").replace(
    "target: bright}]", "target: bright}, {event: stop}]"
)
BROKEN = GOOD.replace("target: bright", "taget: bright").replace("n == 1", "m == 1")

#: Package that holds the schema of the SARIF standard, as its authors published it.
SCHEMA_PACKAGE = "@microsoft/jest-sarif@1.0.0-beta.0"
SCHEMA_FILE = "package/lib/schemas/sarif-2.1.0-rtm.5.json"


def check(
    capsys: pytest.CaptureFixture[str], file: Path, text: str, *options: str
) -> tuple[int, str, str]:
    """Check the chart in *text*; return exit status, output and errors."""
    file.write_text(text)
    code = main(["chart", "check", "--chart", str(file), *options])
    out, err = capsys.readouterr()
    return code, out, err


def test_chart_check_prints_warning_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A transition that is never taken is no broken promise, unless --strict says so."""
    file = tmp_path / "lamp.yaml"
    code, out, _ = check(capsys, file, GOOD)

    assert code == 0
    assert f"{file}:12:9: warning: a transition that is never taken: bright: push -> dark" in out
    assert "Lamp: every promise is kept; " in out
    assert check(capsys, file, GOOD, "--strict")[0] == 1


def test_chart_check_says_what_was_explored_to_a_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line names each count that was cut."""
    text = GOOD.replace("{values: [0, 1]}", "{initial: 0}").replace(
        "target: bright}", "target: bright, on: {set: {n: n + 1}}}"
    )
    _, out, _ = check(capsys, tmp_path / "lamp.yaml", text)

    assert out.rstrip().endswith("; explored n <= 2")


def test_chart_check_prints_each_problem_with_line_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Problems of all passes come at once, one on a line, as compilers print them."""
    file = tmp_path / "lamp.yaml"
    code, _, err = check(capsys, file, BROKEN)

    assert code == 1
    lines = err.splitlines()
    assert lines[0].startswith(
        f"swapchart: {file}:9:35: chart.states.dark.transitions[0].taget: unknown key; did you "
        "mean 'target'? known: event, target"
    )
    assert lines[-1].startswith(
        f"swapchart: {file}:12:23: chart.states.bright.transitions[0].cond: unknown name 'm'"
    )


def test_chart_check_json_holds_findings_with_line_and_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program reads the same as people do."""
    code, out, _ = check(capsys, tmp_path / "lamp.yaml", UNHANDLED, "--json")
    report = json.loads(out)

    assert code == 1
    assert not report["ok"]
    (finding,) = report["findings"]
    assert (finding["event"], finding["states"], finding["line"]) == ("stop", ["bright"], 10)
    assert "ignores: [stop]" in finding["cure"]
    assert finding["trace"][-1] == {"event": "stop", "configuration": ["bright"]}

    _, out, _ = check(capsys, tmp_path / "lamp.yaml", BROKEN, "--json")
    assert json.loads(out)["problems"][0]["line"] == 9


def problems_of_sarif(log: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return rule, level and line of each result of a SARIF log."""
    (run,) = log["runs"]
    known = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in run["results"]} == known
    return [
        (
            result["ruleId"],
            result["level"],
            result["locations"][0]["physicalLocation"]["region"]["startLine"],
        )
        for result in run["results"]
    ]


def test_chart_check_sarif_holds_findings_and_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings, warnings and problems of reading are results with their line."""
    file = tmp_path / "lamp.yaml"
    _, unhandled, _ = check(capsys, file, UNHANDLED, "--sarif")
    _, good, _ = check(capsys, file, GOOD, "--sarif")
    _, broken, _ = check(capsys, file, BROKEN, "--sarif")

    assert problems_of_sarif(json.loads(unhandled)) == [
        ("an-event-neither-handled-nor-declared-ignored", "error", 10)
    ]
    assert problems_of_sarif(json.loads(good)) == [
        ("a-transition-that-is-never-taken", "warning", 12)
    ]
    assert ("invalid-document", "error", 9) in problems_of_sarif(json.loads(broken))


@pytest.fixture(scope="module")
def sarif_schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The schema of the standard, out of a package of npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, so SARIF is not compared with the standard's schema")
    folder = tmp_path_factory.mktemp("npm")
    try:
        done = subprocess.run(
            [npm, "pack", SCHEMA_PACKAGE], cwd=folder, capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm does not answer, so SARIF is not compared with the standard's schema")
    if done.returncode:
        pytest.skip(f"npm cannot fetch {SCHEMA_PACKAGE}: {done.stderr.decode()[-200:]}")
    (package,) = folder.glob("*.tgz")
    with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as archive:
        member = archive.extractfile(SCHEMA_FILE)
        assert member is not None
        schema: dict[str, Any] = json.load(member)
    return schema


def test_chart_check_sarif_is_valid_by_the_standards_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sarif_schema: dict[str, Any]
) -> None:
    """Each log is accepted by the schema of SARIF 2.1.0, and one without version is not."""
    validator = jsonschema.Draft7Validator(sarif_schema)
    for text in (GOOD, UNHANDLED, BROKEN):
        _, out, _ = check(capsys, tmp_path / "lamp.yaml", text, "--sarif")
        log = json.loads(out)
        assert not list(validator.iter_errors(log))
    del log["version"]
    assert list(validator.iter_errors(log))


def test_chart_schema_accepts_the_shipped_chart(capsys: pytest.CaptureFixture[str]) -> None:
    """`chart schema` prints a schema for editors."""
    assert main(["chart", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["state"]["properties"]["after"]["description"]


def test_chart_types_writes_the_names_of_a_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`chart types` prints a Python module, or writes it into a file."""
    file = tmp_path / "lamp.yaml"
    file.write_text(GOOD)

    assert main(["chart", "types", str(file)]) == 0
    printed = capsys.readouterr().out
    assert 'State: TypeAlias = Literal["dark", "bright"]' in printed
    assert main(["chart", "types", str(file), "-o", str(tmp_path / "lamp.py")]) == 0
    assert (tmp_path / "lamp.py").read_text() == printed
    assert main(["chart", "types", str(tmp_path / "none.yaml")]) == 1


#: Explores each set of parameters of a chart here, and in forked processes.
IN_PROCESSES = """
import os, sys
from pathlib import Path
from swapchart.adapters.cli import chart_check
from swapchart.machine import check, read

document = read(Path(sys.argv[1]).read_text())
chart_check._ALONE_S = 0.0
os.sched_getaffinity = lambda pid: {0, 1}
if sys.argv[2:]:
    chart_check._begin = lambda explore: os._exit(1)
report = check(document, explore_all=chart_check.explore_on_all_cores)
assert report == check(document), report
print(len(report.runs), len(report.findings))
"""


def in_processes(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "lamp.yaml"
    text = UNHANDLED.replace("data:", "parameters: {level: {values: [1, 2, 3]}}\ndata:")
    file.write_text(text)
    return subprocess.run(
        [sys.executable, "-c", IN_PROCESSES, str(file), *options], capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def test_chart_check_in_processes_finds_the_same(tmp_path: Path) -> None:
    """Runs, findings and warnings of forked processes are those of one process, in its order."""
    done = in_processes(tmp_path)

    assert done.returncode == 0, done.stderr
    runs, findings = map(int, done.stdout.split())
    assert runs == 3
    assert findings >= 1


def test_chart_check_whose_process_is_killed_raises(tmp_path: Path) -> None:
    """The check of a chart that takes all memory ends with an error instead of waiting."""
    done = in_processes(tmp_path, "killed")

    assert done.returncode == 1
    assert "SwapchartError: a process of the check was killed; memory may be short" in done.stderr
