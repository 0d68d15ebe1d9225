"""The documentation: examples load, links lead somewhere, and cited files and tests exist."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from tools import shown
from tools.documents import DOCUMENTS, PAGES, ROOT, blocks, commands, is_command, prose
from tools.documents import shown as shown_on

from swapchart.adapters.app.chart_setup import chart
from swapchart.adapters.cli import main
from swapchart.adapters.cli.parsers import build_parser
from swapchart.adapters.config import check_config, load_config
from swapchart.adapters.config.schema.document import TOP_KEYS, DocumentSection
from swapchart.adapters.config.schema.hooks import HookSection, SettleSection
from swapchart.adapters.config.schema.kv import Kv
from swapchart.adapters.config.schema.model import ModelSection
from swapchart.adapters.config.schema.section import Section
from swapchart.adapters.demo.server import add_arguments
from swapchart.runtime import hook_actions

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_VARIABLE = re.compile(r"\$\{env\.(\w+)\}")
_CODE = re.compile(r"`([^`\n]+)`")
_FOLDERS = "adapters|benchmarks|diagrams|docs|examples|machine|runtime|tests"
_PATH = re.compile(rf"(?:{_FOLDERS})/[\w./-]*")
_MODULE = re.compile(r"[\w/]+\.py")
SOURCES = list(ROOT.glob("*.py")) + [
    path
    for folder in ("adapters", "benchmarks", "machine", "runtime", "tests")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md", ".js", ".html") and "__pycache__" not in path.parts
]


def headings(text: str) -> list[str]:
    """Return the headings of *text*, without their marks."""
    return re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of *text*."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in headings(text)
    }


EXAMPLES = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in DOCUMENTS.items()
    for number, block in enumerate(blocks(text, "yaml"), 1)
    if "format: swapchart.chart/" not in block  # those are run by tests/machine/test_chart_page.py
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_docs_example_of_a_configuration_loads(text: str, tmp_path: Path) -> None:
    """Each YAML block is a complete configuration without errors and warnings."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    variables = {name: f"value-of-{name.lower()}" for name in _VARIABLE.findall(text)}

    assert check_config([path], env=variables) == []
    chart(load_config([path], env=variables))


def console_examples() -> Iterator[ParameterSet]:
    """Yield (named YAML blocks of the page, command, expected output) of each console block."""
    for name, text in PAGES.items():
        files = dict(re.findall(r"^```yaml\n# ([\w.]+)\n(.*?)^```$", text, re.M | re.S))
        for block in blocks(text, "console"):
            command, _, output = block.partition("\n")
            yield pytest.param(files, command, output, id=f"{name}: {command}")


@pytest.mark.parametrize(("files", "command", "output"), list(console_examples()))
def test_docs_console_example_prints_what_is_shown(
    files: dict[str, str],
    command: str,
    output: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A console block shows one `swapchart` command and its complete output."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    prompt, program, *arguments = command.split()
    assert (prompt, program) == ("$", "swapchart")

    main(arguments)
    assert capsys.readouterr().out == output


@pytest.mark.parametrize("name", DOCUMENTS)
def test_docs_link_leads_to_a_file_and_a_heading(name: str) -> None:
    """Relative links name files of the repository, and anchors name headings."""
    folder = (ROOT / name).parent
    broken = []
    for link in _LINK.findall(prose(DOCUMENTS[name])):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_docs_cited_file_exists(name: str) -> None:
    """A path in backticks names a file or a folder; of a module, the end of its path suffices."""
    missing = [
        cited
        for cited in _CODE.findall(prose(DOCUMENTS[name]))
        if (_PATH.fullmatch(cited) and not (ROOT / cited).exists())
        or (_MODULE.fullmatch(cited) and not any(path.match(cited) for path in SOURCES))
    ]

    assert missing == []


def test_docs_cited_test_exists() -> None:
    """A test in backticks is a function of a test file."""
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    cited = set(re.findall(r"`(test_\w+)`", "".join(DOCUMENTS.values())))

    assert len(cited) > 120
    assert cited - known == set()


def test_docs_security_has_the_sections_that_refusals_name() -> None:
    """A response with status 403 or 421 cites a section of docs/security.md."""
    assert {"Keys", "Host", "Origins"} <= set(headings(PAGES["security.md"]))


def swapchart_commands() -> list[str]:
    """Return each `swapchart` command of the documentation, in blocks, units and backticks."""
    found = []
    for text in DOCUMENTS.values():
        units = re.findall(r"^ExecStart=\S*/(swapchart .*)$", "".join(blocks(text, "ini")), re.M)
        shown = [line.removeprefix("$ ") for line in "".join(blocks(text, "console")).splitlines()]
        found += [*commands(text), *shown, *_CODE.findall(prose(text)), *units]
    return sorted({line for line in found if re.fullmatch(r"swapchart [a-z][^|]*", line)})


@pytest.mark.parametrize("command", swapchart_commands())
def test_docs_swapchart_command_is_understood(command: str) -> None:
    """Each `swapchart` command that is shown has options and arguments that exist."""
    arguments = shlex.split(command.partition(">")[0] if " > " in command else command)[1:]
    if not any(re.search(r"[^a-z-]|^-", word) for word in arguments):  # a name, or nearly
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*arguments[:2], "--help"])
    elif arguments[0] == "demo-server":
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        parser.parse_args(arguments[1:])
    else:
        build_parser().parse_args(arguments)


def test_docs_each_block_and_command_is_run_by_a_test() -> None:
    """The table of tools/shown.py has each item of each page, and no other."""
    pages = [page for page in DOCUMENTS if page != "CHANGELOG.md"]
    needed = {item for page in pages for item in shown_on(page)}
    of_language = {
        item for item in needed if re.fullmatch(rf".*: (?:{'|'.join(shown.OF_LANGUAGE)}) \d+", item)
    }
    listed = [*(item for items in shown.BY_TEST.values() for item in items), *shown.BY_CI]
    listed += [*shown.NOT_RUN, *(f"{page}: {command}" for page, command in shown.alone())]

    assert sorted(needed - of_language - set(listed)) == [], "say in tools/shown.py what runs these"
    assert sorted(set(listed) - needed) == [], "these are on no page anymore"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("test", [*shown.BY_TEST, *shown.OF_LANGUAGE.values()])
def test_docs_test_that_runs_commands_exists(test: str) -> None:
    """Each test of tools/shown.py is a function of its file, and none that is always skipped."""
    path, _, name = test.partition("::")
    functions = [
        node for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
    ]  # fmt: skip

    assert len(functions) == 1
    assert "skip" not in {getattr(mark, "attr", "") for mark in functions[0].decorator_list}


@pytest.mark.parametrize(("page", "option"), shown.items(shown.CHART_OPTIONS))
def test_docs_option_of_chart_export_exists(
    page: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option of the page is one of `swapchart chart export`, with its choices."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["chart", "export", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    choices = [word for word in option.split()[1].split("|") if word.islower() or word == "TB"]

    for name in re.findall(r"--[\w-]+", option):
        assert re.search(rf"{name}\b", text)
    assert [word for word in choices if "." not in word and word not in text] == []


@pytest.mark.parametrize("item", shown.BY_CI)
def test_docs_command_of_ci_is_run_there(item: str) -> None:
    """What only the script of CI runs stands in it."""
    assert shown.BY_CI[item] in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("item", shown.NOT_RUN)
def test_docs_command_that_is_not_run_exists(item: str) -> None:
    """The program knows the subcommand or option that is shown."""
    why, command, words = shown.NOT_RUN[item]
    if not shutil.which(command[0]):
        pytest.skip(f"NOT TESTED: no {command[0]}, and {why}")
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert words in done.stdout


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("./dev", True),
        ("SWAPCHART_COMPILE=1 pip install .", True),
        ("--listen :8080", True),
        ("pip", False),
        ("GET /health", False),
        ("kv: keep", False),
    ],
)
def test_is_command_tells_commands_from_other_code(code: str, expected: bool) -> None:
    assert is_command(code) is expected


def test_is_command_of_unknown_kind_raises() -> None:
    """A new program cannot be shown without being listed."""
    with pytest.raises(ValueError, match="of no known kind"):
        is_command("launchctl load swapchart.plist")


def test_docs_dev_command_exists() -> None:
    """Each `./dev` command is listed by ./dev."""
    known = set(re.findall(r"^  ([\w-]+) ", (ROOT / "dev").read_text("utf-8"), re.MULTILINE))
    shown = {name for text in DOCUMENTS.values() for name in re.findall(r"\./dev ([\w-]+)", text)}

    assert shown - known == set()


def test_docs_index_has_each_page() -> None:
    """README.md links every page of docs/."""
    linked = set(re.findall(r"\]\(docs/(\w[\w-]*\.md)\)", DOCUMENTS["README.md"]))

    assert linked == set(PAGES)


_RECIPES = "| file | change | contains |\n| --- | --- | --- |\n"


def recipe_rows() -> list[tuple[str, ...]]:
    """Return the cells of the tables in docs/contributing.md that list files to change."""
    tables = PAGES["contributing.md"].split(_RECIPES)[1:]
    rows = [line for table in tables for line in table.partition("\n\n")[0].splitlines()]
    return [tuple(row.strip("|").split(" | ")) for row in rows]


@pytest.mark.parametrize(("files", "change", "needed"), recipe_rows())
def test_docs_contributing_file_contains_what_is_said(files: str, change: str, needed: str) -> None:
    """Each file of a recipe exists, and one of them contains each text of the last column."""
    paths = [ROOT / name for name in _CODE.findall(files)]
    assert paths
    assert [path for path in paths if not path.exists()] == []
    texts = [path.read_text("utf-8") for path in paths if path.is_file()]

    assert [text for text in _CODE.findall(needed) if not any(text in file for file in texts)] == []


def test_docs_contributing_hook_action_lists_the_files_of_the_source() -> None:
    """The recipe for a hook action has the five files that runtime/hook_actions.py lists."""
    section = PAGES["contributing.md"].partition("# New hook action")[2].partition("\n### ")[0]
    listed = re.findall(r"^\d\. ``(\S+)``", hook_actions.__doc__ or "", re.MULTILINE)

    assert re.findall(r"^\| `(\S+\.py)`", section, re.MULTILINE) == listed


#: Words of docs/contributing.md, Wording, that stand for an actor or a term that has a name.
_PRIVATE_WORDS = re.compile(
    r"\b(nobody|somebody|whoever|deaf|owes?|owed|forgives?|forgiven|haste|so many|for so long|"
    r"seen to|(?:is|are|was) told|in peace)\b",
    re.IGNORECASE,
)

_BRITISH = re.compile(
    r"\b(?:behaviour|cancelled|cancelling|catalogue|colour|favour|honour|licence|neighbour)\w*",
    re.I,
)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_docs_page_uses_standard_words(name: str) -> None:
    """Pages name the actor, use standard terms in American spelling, and have nouns as headings."""
    text = prose(DOCUMENTS[name])

    assert _PRIVATE_WORDS.findall(re.sub(_CODE, "", text)) == []
    assert _BRITISH.findall(re.sub(_CODE, "", text)) == []
    assert [line for line in headings(text) if re.match(r"(What|Who|How|So|As)\b", line)] == []


def test_docs_page_cited_by_a_source_exists() -> None:
    """A page of docs/ that a source, a test or a message names is there."""
    cited = {
        (path.name, name)
        for path in SOURCES
        for name in re.findall(r"(?<![\w/])docs/([\w-]+\.md)", path.read_text("utf-8"))
    }

    assert {name for _, name in cited} >= {"security.md", "reliability.md"}
    assert {(path, name) for path, name in cited if name not in PAGES} == set()


def test_docs_mention_each_key_of_the_configuration() -> None:
    """Each key of the document and of a model stands in backticks or in an example."""
    text = "".join(PAGES.values())
    shown = " ".join(_CODE.findall(prose(text)) + blocks(text, "yaml"))
    models = {field.alias for field in ModelSection.model_fields.values()}

    assert (TOP_KEYS | models) - set(re.findall(r"\w+", shown)) == set()


def test_docs_reliability_counts_the_rows_of_the_catalogue() -> None:
    """The numbers of covered rows are those of the catalogue, less the rows listed without one."""
    lines = (ROOT / "tests" / "faults" / "rows.tsv").read_text("utf-8").splitlines()[1:]
    priorities = [line.split("\t")[1] for line in lines]
    text = PAGES["reliability.md"]
    uncovered = len(re.findall(r"^\| [A-E]\d\d \|", text, re.MULTILINE))
    required = priorities.count("P0")

    assert f"| priority P0 | {required} | {required} |" in text
    assert f"| all | {len(lines) - uncovered} | {len(lines)} |" in text
    assert f"lists {len(lines)} faults" in " ".join(text.split())


def defaults(section: type[Section], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield each key of *section* and of the sections below it, dotted, with its default."""
    for field in section.model_fields.values():
        key = f"{prefix}{field.alias}"
        yield key, field.default
        if isinstance(field.default, Section):
            yield from defaults(type(field.default), f"{key}.")


@pytest.mark.parametrize(
    ("page", "sections", "least"),
    [
        ("lifecycle.md", (ModelSection, DocumentSection), 15),
        ("kv.md", (Kv,), 2),
        ("hooks.md", (HookSection,), 2),
    ],
)
def test_docs_table_of_keys_has_the_defaults_of_the_schema(
    page: str, sections: tuple[type[Section], ...], least: int
) -> None:
    """A number in the column of defaults is the default of the key beside it."""
    known = dict(defaults(SettleSection, "settle."))  # by itself, since there is none by default
    for section in sections:
        known.update(defaults(section))
    shown = [
        (key, float(value))
        for keys, values in re.findall(
            r"^\| (`\w.*?) \| (\d[\d, ]*)(?: \(.*?\))? \|", PAGES[page], re.M
        )
        for key, value in zip(_CODE.findall(keys), values.split(", "), strict=True)
    ]

    assert len(shown) >= least
    assert [(key, value) for key, value in shown if known.get(key) != value] == []
