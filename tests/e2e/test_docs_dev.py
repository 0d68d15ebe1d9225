"""`./dev` as the documents show it, in this checkout or in a copy that may be changed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tools import shown
from tools.documents import DOCUMENTS, PAGES, ROOT
from tools.stale_diagrams import stale_diagrams

from swapchart import __version__

pytestmark = pytest.mark.slow

LONGEST_S = 280.0
_COMPILED = os.environ.get("SWAPCHART_COMPILE") == "1"
_STAMP = ROOT / (".venv-compiled" if _COMPILED else ".venv") / "dev-stamp"
_LONG = os.environ.get("SWAPCHART_LONG") == "1"  # ./dev test-all sets it
_ENV = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@pytest.fixture(autouse=True)
def needs_environment() -> None:
    """Skip where ./dev would first make an environment, which takes a minute."""
    if not _STAMP.exists() or _STAMP.read_text().splitlines()[0] != str(ROOT):
        pytest.skip("NOT TESTED: ./dev has made no environment here; run ./dev setup")


def run(command: str, folder: Path = ROOT) -> str:
    """Run *command*, which must succeed; returns what it printed."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=_ENV, text=True, timeout=LONGEST_S, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A clone of the checkout with its uncommitted changes, which uses the same environment."""
    if not (ROOT / ".git").exists():
        pytest.skip("NOT TESTED: this is no checkout")
    folder = tmp_path / "copy"
    run(f"git clone --quiet --shared --no-tags {ROOT} {folder}")
    listed = run("git ls-files --modified --others --exclude-standard --deduplicate").splitlines()
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run("git add --all && git -c user.name=t -c user.email=t@localhost commit -qm t --allow-empty",
        folder)  # fmt: skip
    environment = _STAMP.parent
    (folder / environment.name).mkdir()
    for path in environment.iterdir():
        if path.name != "dev-stamp":
            (folder / environment.name / path.name).symlink_to(path)
    lines = [str(folder), *_STAMP.read_text().splitlines()[1:]]
    (folder / environment.name / "dev-stamp").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("page", "command"), shown.items(shown.DEV))
def test_docs_dev_command_succeeds(page: str, command: str) -> None:
    """Each command that only reads succeeds; tests are collected, since the suite runs them."""
    assert command in DOCUMENTS[page]
    assert run(f"{command} --collect-only" if "test" in command else command)


def test_docs_generated_files_are_up_to_date(copy: Path) -> None:
    """The commands that write generated files succeed, and write what the repository has."""
    commands = [command for _, command in shown.items(shown.GENERATES)]
    assert len(commands) == 3
    for command in commands:
        if "diagrams" in command and not shutil.which("dot"):
            pytest.skip("NOT TESTED: no dot; on Debian: apt-get install graphviz")
        run(command, copy)

    assert stale_diagrams(ROOT / "diagrams", copy / "diagrams") == []
    run("git checkout --quiet diagrams", copy)  # another Graphviz moves lines by a hair
    assert run("git status --porcelain", copy) == ""


def test_docs_flaky_runs_what_has_changed_ten_times(copy: Path) -> None:
    """A test file that is new on a branch runs in ten random orders."""
    if not _LONG:
        pytest.skip("NOT TESTED: ./dev flaky starts pytest ten times; SWAPCHART_LONG=1 runs it")
    run("git checkout --quiet -B main && git checkout --quiet -b work", copy)
    assert "no test file has changed since" in run("./dev flaky", copy)
    (copy / "tests" / "test_new.py").write_text(
        "def test_new_is_quick_passes() -> None:\n    pass\n"
    )
    shown_lines = run("./dev flaky", copy)

    assert shown_lines.count("1 passed") == 10
    assert "round 10 of 10" in shown_lines


def test_docs_wire_prints_the_table_of_the_page() -> None:
    """The responses of each HTTP layer to unusual requests are those of docs/reliability.md."""
    if not _LONG:
        pytest.skip("NOT TESTED: tests/faults/test_wire.py has our layer; SWAPCHART_LONG=1 runs it")
    printed = re.findall(r"^\| C\d\d .*$", run("./dev bench wire"), re.MULTILINE)

    assert len(printed) > 30
    assert printed == re.findall(r"^\| C\d\d .*$", PAGES["reliability.md"], re.MULTILINE)


#: Benchmark -> options of its shortest form; True if that takes seconds and so runs each time.
SHORTEST: dict[str, tuple[str, bool]] = {
    "cluster": ("--rounds 1 --no-save", False),  # needs Ray
    "coldswap": ("--quick", False),
    "engine": ("--quick", False),  # installs what it compares with
    "kv": ("--quick", False),  # needs a real llama-server
    "memory": ("--quick", True),
    "mutants": ("--every 200", False),
    "proxy": ("--quick", False),  # needs nginx and Caddy
    "reliability": ("--kills 1 --herd 10 --queued 10 --leavers 1", False),
    "simulation": ("--lifecycles 1000 --seeds 1", False),  # fails where the machine is too slow
    "soak": ("--seconds 60", False),  # CI runs it as a step of its own
    "startup": ("--quick", False),
}


@pytest.mark.parametrize("name", SHORTEST)
def test_docs_bench_runs_in_its_shortest_form(name: str) -> None:
    """Each benchmark succeeds in its shortest form; the long ones run with SWAPCHART_LONG=1."""
    options, is_short = SHORTEST[name]
    if not is_short and not _LONG:
        pytest.skip(f"NOT TESTED: bench {name} {options} takes long; SWAPCHART_LONG=1 runs it")

    run(f"./dev bench {name} {options}")


def test_docs_bench_options_exist() -> None:
    """Each option that is shown with a benchmark is one of it, and each benchmark is shown."""
    listed = run("./dev bench").split()
    names = [name for name in listed if name != "wire"]
    with ThreadPoolExecutor(4) as threads:  # most of their time is that of a process to start
        helps = threads.map(lambda name: run(f"./dev bench {name} --help"), names)
        help_of = dict(zip(names, helps, strict=True))
    named = re.findall(r"\./dev bench ([a-z_]+)((?: --\w+ \d+)*)", "".join(DOCUMENTS.values()))

    assert {*SHORTEST, "wire"} == {*listed} == {name for name, _ in named}
    for name, options in named:
        for option in re.findall(r"--\w+", options):
            assert option in help_of[name]
    assert {"--seconds", "--seed"} <= {*re.findall(r"--\w+", help_of["soak"])}
    for name in ("proxy", "coldswap", "startup", "engine"):
        assert "--against CHECKOUT" in help_of[name]


def test_docs_bench_takes_the_program_of_llama_swap_as_a_contender(tmp_path: Path) -> None:
    """Whatever takes its flags can stand in for it, and a program that is missing is named."""
    program = tmp_path / "llama-swap"
    swapchart = f"'{_STAMP.parent}/bin/swapchart'"
    program.write_text(
        f'#!/bin/sh\n[ "$1" != -version ] || exec {swapchart} "$1"\nexec {swapchart} serve "$@"\n'
    )
    command = "./dev bench coldswap --quick --swaps --runs 1"
    assert "LLAMA_SWAP=none is no program" in run(f"LLAMA_SWAP=none {command} --only none")
    program.chmod(0o700)
    shown_text = run(f"LLAMA_SWAP={program} {command} --only llama")

    assert "| median ms | by hand | llama-swap |" in shown_text
    assert re.search(r"^\| instant: swap \| \d", shown_text, re.MULTILINE)
    assert f"llama-swap {__version__}." in shown_text


def test_docs_wheel_without_a_compiler_builds_the_plain_one(copy: Path) -> None:
    """`./dev wheel` names what is missing, and the folder keeps no compiled wheel of before."""
    tools = copy.parent / "bin"
    tools.mkdir()
    for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
        for path in Path(folder).iterdir():
            if path.name not in ("cc", "gcc") and not (tools / path.name).is_symlink():
                (tools / path.name).symlink_to(path)
    (copy / _STAMP.parent.name / "wheel").unlink(missing_ok=True)  # was compiled before
    (copy / "dist").mkdir()
    (copy / "dist" / "swapchart-0.0.1-cp311-cp311-linux_x86_64.whl").touch()

    said = run(f"PATH={tools} CC=cc ./dev wheel", copy)

    assert "there is no C compiler; on Debian: apt-get install gcc" in said
    (wheel,) = (copy / "dist").iterdir()
    assert re.fullmatch(r"swapchart-[\d.]+-py3-none-any\.whl", wheel.name)
    assert f"{wheel}: " in said


def test_docs_release_check_is_a_command_of_dev() -> None:
    """`./dev release-check` runs the script that tests/test_release_check.py and test-all try."""
    text = (ROOT / "dev").read_text()

    assert 'release-check) PYTHON=$bin/python exec "$root/.ci/release-check" "$@" ;;' in text
    assert "\n        .ci/release-check\n" in text
