"""The folders, the links under src/, the built wheel and what is written in files agree."""

from __future__ import annotations

import ast
import collections
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import swapchart
from swapchart.adapters.server.backends import servers

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL: dict[str, Any] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
PARTS: list[str] = WHEEL["only-include"]
FOLDERS = [part for part in PARTS if (ROOT / part).is_dir()]
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

# Where the project happened to be written, whose home that was, and where its packages came from.
# Spelled so that this file holds none of them.
PLACES = ["wo" + "rk/", "ro" + "ot/", "ho" + "me/(?!user/)[a-z]", "tmp/te" + "am"]
FORBIDDEN = re.compile(
    rf"(?<![\w.~-])/(?:{'|'.join(PLACES)})|(?:index-url|registry)[\s=:]+[\"']?https?://".encode()
)

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")


def tracked(*options: str) -> list[Path]:
    """Return the files that git lists in the project; none that were deleted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


#: Most lines of a module, a class and a function; most modules of a folder of the adapters.
MOST_LINES: dict[type[ast.AST], int] = {
    ast.Module: 450,
    ast.ClassDef: 350,
    ast.FunctionDef: 60,
    ast.AsyncFunctionDef: 60,
}
MOST_MODULES = 21


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_is_small_enough_to_be_read_at_once(path: Path) -> None:
    """Modules, classes and functions keep within the sizes of docs/contributing.md."""
    tree = ast.parse(path.read_text())
    lines = len(path.read_text().splitlines())
    found: list[tuple[int, type[ast.AST], str]] = [(lines, ast.Module, path.name)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            found.append((node.end_lineno - node.lineno + 1, type(node), node.name))
    too_long = [(name, size) for size, kind, name in found if size > MOST_LINES[kind]]

    assert not too_long


def test_folders_of_adapters_hold_few_modules() -> None:
    """A folder shows its contents at a glance: four modules at the root, 21 below."""
    modules = [
        p for p in SOURCES if p.name != "__init__.py" and p.is_relative_to(ROOT / "adapters")
    ]
    counts = collections.Counter(path.parent for path in modules)

    assert counts[ROOT / "adapters"] <= 4
    assert max(counts.values()) <= MOST_MODULES


def test_package_parts_have_links() -> None:
    """An editable install sees what the wheel will hold."""
    links = ROOT / "src" / "swapchart"
    if not links.exists():
        pytest.skip("not a checkout")
    found = {link.name: link.resolve() for link in links.iterdir() if link.is_symlink()}

    assert found == {part: ROOT / part for part in PARTS}


def test_servers_offered_are_in_an_extra() -> None:
    """`--server NAME` works for each NAME of an installation with `[all]`."""
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    chosen = re.findall(r"[\w-]+", extras["all"][0].partition("[")[2])
    packages = {re.split(r"[<>=]", item)[0] for extra in chosen for item in extras[extra]}

    assert set(servers()) <= packages


def test_compiled_modules_await_in_no_finally() -> None:
    """No compiled coroutine leaves an exception behind as if it were still being handled.

    mypyc 2.4 does so where one passes a ``finally`` that awaits: each later exception has it as
    its context, and the chain grows for ever.
    """
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [
        f"{name}:{inner.lineno}"
        for name in WHEEL["hooks"]["custom"]["modules"]
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        for part in getattr(node, "finalbody", ())
        for inner in ast.walk(part)
        if isinstance(inner, waits)
    ]

    assert found == []


def test_folders_of_python_are_parts_or_no_packages() -> None:
    """A new top-level package cannot be forgotten in the wheel."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert packages == set(FOLDERS)


def test_tests_import_the_installed_package() -> None:
    """Pytest must not put the folder above on the path.

    A conftest.py in the root or an __init__.py in tests/ would make it do that, and then a
    checkout whose folder is called swapchart would be the package.
    """
    assert Path(swapchart.__file__) != ROOT / "__init__.py"
    assert not (ROOT / "conftest.py").exists()
    assert not (ROOT / "tests" / "__init__.py").exists()


@pytest.mark.skipif(os.environ.get("SWAPCHART_COMPILE") != "1", reason="as it is, in Python")
@pytest.mark.parametrize("module", WHEEL["hooks"]["custom"]["modules"])
def test_modules_to_compile_are_compiled(module: str) -> None:
    """Else the tests of what is compiled would pass for what is not."""
    name = module.removesuffix(".py").replace("/", ".")
    found = importlib.import_module(f"swapchart.{name}").__file__

    assert str(found).endswith(".so")


def test_parts_are_no_top_level_packages(tmp_path: Path) -> None:
    """Nobody's ``machine`` or ``runtime`` is shadowed by an installation of ours."""
    code = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, sys.argv[1:])))"
    done = subprocess.run([sys.executable, "-I", "-c", code, *FOLDERS], cwd=tmp_path)

    assert done.returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_inside_the_package_are_relative(path: Path) -> None:
    """So it works under any name, and no checkout is mistaken for it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")

    assert not {name.partition(".")[0] for name in names} & {"swapchart", "tests", *FOLDERS}


@needs_git
def test_package_files_are_not_ignored_by_git() -> None:
    """Hatch leaves out of the wheel what git ignores, tracked or not."""
    assert tracked("--cached", "--ignored", "--exclude-standard") == []


@needs_git
def test_files_name_no_machine_paths() -> None:
    """Whoever clones has other paths and other registries."""
    found = {path: FORBIDDEN.search(path.read_bytes()) for path in tracked()}
    bad = [f"{path.relative_to(ROOT)}: {at[0]!r}" for path, at in found.items() if at]

    assert bad == []


@pytest.mark.parametrize(
    ("text", "is_bad"),
    [
        (b"cd /wo" + b"rk/main", True),
        (b'"/ho' + b'me/jo/models"', True),
        (b"http://127.0.0.1/wo" + b"rk/x", False),
        (b"net" + b"work/main", False),
    ],
)
def test_machine_path_pattern_matches_machine_paths_only(text: bytes, is_bad: bool) -> None:
    assert bool(FORBIDDEN.search(text)) == is_bad


@needs_git
@pytest.mark.parametrize("name", ["dev", ".ci/run"])
def test_commands_are_executable_and_sound(name: str) -> None:
    """Git keeps the mode, and a POSIX shell can read them."""
    mode = subprocess.run(
        ["git", "ls-files", "--stage", name], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout

    assert mode.startswith("100755")
    assert subprocess.run(["sh", "-n", name], cwd=ROOT).returncode == 0


def test_paths_of_tests_in_commands_exist() -> None:
    """A command that names a file which was renamed runs no test at all."""
    named = {
        (command.name, path)
        for command in (ROOT / "dev", ROOT / "tests/conftest.py", *(ROOT / ".ci").iterdir())
        for path in re.findall(r"tests/[\w/.]*\w", command.read_text())
    }

    assert len(named) > 30
    assert [each for each in sorted(named) if not (ROOT / each[1]).exists()] == []


def test_dev_with_unknown_command_lists_its_commands(tmp_path: Path) -> None:
    """From any folder, and before it sets anything up."""
    argv = ["sh", str(ROOT / "dev"), "nonsense"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 2
    assert "./dev COMMAND" in done.stderr
    assert "making" not in done.stderr


@needs_git
@pytest.mark.slow
def test_dev_demo_installs_no_developer_tools(tmp_path: Path) -> None:
    """In a fresh clone the demo answers from an environment with what it needs and no more."""
    for path in tracked():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    for link in filter(Path.is_symlink, (ROOT / "src" / "swapchart").iterdir()):
        copy = tmp_path / link.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(link.readlink())
    argv = ["./dev", "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        argv, cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        try:
            shown = demo.stdout.readline()
            while "Press Ctrl-C" not in shown:
                shown += demo.stdout.readline()
            address = shown.split()[3].rstrip(":")
            body = b'{"model": "hare", "messages": [{"role": "user", "content": "Hello"}]}'
            with urllib.request.urlopen(f"{address}/v1/chat/completions", body, 60) as response:
                assert response.status == 200
            demo.stdout.readline()
            line = demo.stdout.readline()
        finally:
            os.killpg(demo.pid, signal.SIGINT)
            demo.wait(30)
    installed = {path.name for path in tmp_path.glob(".venv-demo/lib/python3*/site-packages/*")}

    assert shown.startswith("swapchart demo on http://127.0.0.1:")
    assert f"open {address}/ui/ in a browser" in shown
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3}  hare +stopped -> before_start +request", line)
    assert not (tmp_path / ".venv").exists()
    assert "hypercorn" in installed
    assert not installed & {"pytest", "mypy", "ruff", "hypothesis"}
