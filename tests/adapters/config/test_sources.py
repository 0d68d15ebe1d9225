"""Specification 1.1 and 1.2: which files are read, and how they become one document."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.configs import Check, Load

from swapchart.adapters.config import (
    ConfigProblems,
    Problem,
    check_config,
    format_problems,
    load_config,
)
from swapchart.machine.errors import SwapchartError

MODEL = "models: {%s: {cmd: 's ${PORT}'}}"


def messages(problems: list[Problem]) -> str:
    return "\n".join(problem.message for problem in problems)


def test_directory_lists_yaml_by_name(tmp_path: Path) -> None:
    """Only direct children that end in .yml or .yaml are read, by name, after the file."""
    folder = tmp_path / "conf"
    (folder / "sub.yaml").mkdir(parents=True)
    for name in ("b.yaml", "a.yml", "C.yaml"):
        (folder / name).write_text(MODEL % name[0])
    for name in ("x.YAML", "x.yaml.bak", "x.txt"):
        (folder / name).write_text("not: [yaml")
    first = tmp_path / "z.yaml"
    first.write_text(MODEL % "z")
    config = load_config([first], folder)

    assert list(config.models) == ["z", "C", "a", "b"]
    assert list(config.sources) == [
        str(first),
        *(str(folder / n) for n in sorted(("b.yaml", "a.yml", "C.yaml"))),
    ]


def test_sources_overlap_of_file_and_directory_is_read_once(tmp_path: Path) -> None:
    """The same file by another path is found, symbolic links resolved."""
    (tmp_path / "a.yaml").write_text(MODEL % "a")
    (tmp_path / "link").symlink_to(tmp_path / "a.yaml")
    (problem,) = check_config([tmp_path / "link"], tmp_path)

    assert "also present in" in problem.message
    assert problem.file == str(tmp_path / "a.yaml")


def test_sources_without_files_are_an_error(tmp_path: Path) -> None:
    """No source at all, an empty directory, and a directory that is not there are errors."""
    assert "no configuration sources found" in messages(check_config())
    assert "no configuration sources found" in messages(check_config((), tmp_path))
    assert "cannot be listed" in messages(check_config((), tmp_path / "absent"))
    assert "cannot be read" in messages(check_config([tmp_path / "absent"]))
    assert "cannot be read" in messages(check_config([tmp_path]))
    (problem,) = check_config([tmp_path / "absent"])
    assert str(problem).startswith(f"{tmp_path}/absent: error: cannot be read: ")
    assert str(check_config()[0]).startswith("error: no configuration sources found")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "~", "\ufeff"])
def test_sources_empty_file_is_skipped(load: Load, text: str) -> None:
    """Empty files count for nothing; when all are empty there are just no models."""
    assert dict(load(text).models) == {}
    assert list(load(text, MODEL % "a", text).models) == ["a"]


@pytest.mark.parametrize(
    ("text", "is_warned"),
    [
        ("", True), ("# only a comment", True), ("models: {}", True), ("models:", True),
        ("services: {web: {image: nginx}}", True), ("modles: {a: {cmd: s}}", True),
        ("peers: {}", True), (MODEL % "a", False),
        ("peers: {p: {proxy: 'http://h', models: [m]}}", False),
    ],
)  # fmt: skip
def test_document_without_models_is_warned_of(check: Check, text: str, is_warned: bool) -> None:
    """A file that offers no model is probably no configuration, or has a typing error."""
    found = [p for p in check(text) if p.path == "models"]

    assert [(p.severity, p.line) for p in found] == [("warning", 0)] * is_warned
    assert all("there are no models and no peers" in p.message for p in found)


@pytest.mark.parametrize("text", ["[a]", "text", "7"])
def test_sources_root_must_be_a_mapping(check: Check, text: str) -> None:
    """Anything but a mapping at the top is an error."""
    assert "expected a mapping at the top level" in messages(check(text))


def test_sources_anchors_belong_to_a_file(load: Load, check: Check) -> None:
    """Anchors, aliases and merges work within a file, and not across."""
    text = (
        "x-base: &base {ttl: 5, name: base}\nx-more: &more {ttl: 9, description: d}\n"
        "models:\n  a: {<<: *base, cmd: 's ${PORT}', ttl: 7}\n"
        "  b:\n    <<: [*base, *more]\n    cmd: 's ${PORT}'\n"
    )
    models = load(text).models

    assert (models["a"].ttl, models["a"].name) == (7, "base")
    assert (models["b"].ttl, models["b"].name, models["b"].description) == (5, "base", "d")
    assert "stands for nothing in this file" in messages(check(text, "models: {c: *base}"))


@pytest.mark.parametrize(
    "kind",
    [
        "models: {%s: {cmd: 's ${PORT}'}}",
        "groups: {%s: {}}",
        "profiles: {%s: {pins: {x: ~}}}",
        "selectors: {%s: {strategy: pin, targets: [m]}}",
        "peers: {%s: {proxy: 'http://h', models: [m]}}",
        "matrix: {sets: {%s: m}}",
        "matrix: {vars: {%s: m}}",
        "routing: {router: {settings: {groups: {%s: {}}}}}",
        "routing: {router: {settings: {matrix: {sets: {%s: m}}}}}",
    ],
)
def test_sources_named_entries_are_joined(check: Check, kind: str) -> None:
    """Named things of two files are put together; the same name twice is an error."""
    twice = check(kind % "a", kind % "a")
    apart = check(kind % "a", kind % "b")

    assert "duplicate" in messages(twice)
    assert "already defined in" in messages(twice)
    assert "duplicate" not in messages(apart)


def test_sources_other_mappings_are_merged(load: Load, check: Check) -> None:
    """Macros and other mappings recurse; the same scalar twice is fine, another is not."""
    one = "macros: {a: 1, b: x}\nui: {activity: {}}\nttl: 1"
    config = load(one, "macros: {c: '${a}', a: 1}\n" + MODEL % "m")
    assert list(config.macros) == ["a", "b", "c"]

    (conflict,) = [p for p in check(one, "macros: {a: 2}") if p.severity == "error"]
    assert (conflict.path, conflict.line) == ("macros.a", 1)
    assert "sets a different value" in conflict.message
    assert "sets a different value" in messages(check("a: 1", "a: '1'"))
    assert "different kind of value" in messages(check("models: {}", "models: []"))


def test_sources_lists_are_concatenated(load: Load) -> None:
    """Lists of two files follow each other."""
    config = load("apiKeys: [a]", "apiKeys: [b]", "apiKeys: [c]")

    assert [key.get_secret_value() for key in config.api_keys] == ["a", "b", "c"]


@pytest.mark.parametrize("null", ["", "~", "null"])
def test_sources_null_yields_to_a_value(load: Load, null: str) -> None:
    """A null on one side leaves the other side's value."""
    assert load(f"globalTTL: {null}", "globalTTL: 7").global_ttl == 7
    assert load("globalTTL: 7", f"globalTTL: {null}").global_ttl == 7


def test_macros_of_one_file_serve_another(load: Load) -> None:
    """Macros hold in the joined document; their order is that of the files."""
    config = load("macros: {a: 1}", "macros: {b: 'x${a}'}", "models: {m: {cmd: 's ${b} ${PORT}'}}")

    assert config.models["m"].argv == ("s", "x1", "5800")


def test_document_definition_order_is_kept(load: Load) -> None:
    """Order of models and of matrix sets is the document's."""
    config = load(
        "models: {z: {cmd: 's ${PORT}'}, a: {cmd: 's ${PORT}'}, 10: {cmd: 's ${PORT}'}}\n"
        "matrix: {sets: {z: z, b: a, a: '+z & a'}}"
    )
    assert config.routing.matrix is not None

    assert list(config.models) == ["z", "a", "10"]
    assert list(config.routing.matrix.sets) == ["z", "b", "a"]


@pytest.mark.parametrize(("key", "name"), [("7", "7"), ("0x7", "0x7"), ("1.50", "1.50")])
def test_document_model_id_that_is_not_text_is_refused(load: Load, key: str, name: str) -> None:
    """A number as model id is read as the text it is written as, with a warning."""
    config = load(f"models: {{{key}: {{cmd: 's ${{PORT}}'}}, b: {{cmd: 's ${{PORT}}'}}}}")

    assert list(config.models) == [name, "b"]
    assert [w.path for w in config.warnings] == ["models"]
    assert "is read as one; quote it" in config.warnings[0].message


@pytest.mark.parametrize(
    ("text", "value"), [("yes", True), ("on", True), ("y", True), ("no", False), ("OFF", False)]
)
def test_document_boolean_accepts_yes_and_no(load: Load, text: str, value: bool) -> None:
    """A boolean key also takes yes and no, on and off; a text key takes them as texts."""
    model = load(f"models: {{m: {{cmd: 's ${{PORT}}', unlisted: {text}, name: {text}}}}}").models[
        "m"
    ]

    assert (model.unlisted, model.name) == (value, text)


def test_document_number_is_accepted_as_text(load: Load) -> None:
    """A number in a text key is its text, as the author wrote it."""
    text = "models: {m: {cmd: 's ${PORT}', name: 3.10, description: 0x10, aliases: [7, 1e3]}}"
    model = load(text).models["m"]

    assert (model.name, model.description, model.aliases) == ("3.10", "16", ("7", "1e3"))


def test_document_problems_are_reported_at_once(check: Check) -> None:
    """All problems are told at once, each with its place, in the order of the document."""
    problems = check(
        "healthCheckTimeout: soon\n"
        "logLevl: debug\n"
        "models:\n"
        "  a:\n"
        "    cmd: s ${PORT} ${x}\n"
        "    ttl: -2\n"
        "    concurencyLimit: 3\n"
        "  b:\n"
        "    cmd: s\n"
        "    aliases: [a1, a1]\n"
        "  c: nothing\n"
        "selectors:\n"
        "  s: {strategy: best, targets: []}\n"
        "groups: {g: {members: [nobody, a, a]}}\n"
    )

    assert [(p.path, p.line, p.severity) for p in problems] == [
        ("healthCheckTimeout", 1, "error"),
        ("logLevl", 2, "warning"),
        ("models.a.cmd", 5, "error"),
        ("models.a.ttl", 6, "error"),
        ("models.a.concurencyLimit", 7, "warning"),
        ("models.b.proxy", 9, "error"),
        ("models.b.aliases[1]", 10, "error"),
        ("models.c", 11, "error"),
        ("selectors.s.strategy", 13, "error"),
        ("selectors.s.targets", 13, "error"),
        ("groups.g.members[2]", 14, "error"),
    ]
    text = format_problems(problems)
    assert "0.yaml:1:21: error: healthCheckTimeout: expected an integer, found 'soon'" in text
    assert "unknown key 'concurencyLimit' is ignored; did you mean 'concurrencyLimit'?" in text


def test_document_errors_raise_and_warnings_do_not(load: Load) -> None:
    """Loading raises one error with all problems; warnings come with the configuration."""
    with pytest.raises(ConfigProblems) as caught:
        load("models: 7\nlogLevl: x")
    assert isinstance(caught.value, SwapchartError)
    assert [p.severity for p in caught.value.problems] == ["error", "warning"]
    assert "expected a mapping of models, found 7" in str(caught.value)

    config = load("logLevl: x\n" + MODEL % "m")
    assert [w.path for w in config.warnings] == ["logLevl"]


def test_document_keys_that_hold_anchors_are_not_reported(load: Load) -> None:
    """Keys that hold anchors, and keys that begin with x-, are not warned of."""
    config = load("defs: {a: &a {ttl: 1}}\nlist: [&b 1]\nx-note: {}\nplain: 1\n")

    assert [w.path for w in config.warnings] == ["models", "plain"]


def test_load_runs_no_command_and_opens_no_store(load: Load, tmp_path: Path) -> None:
    """Loading runs no command and opens no store."""
    mark, store = tmp_path / "ran", tmp_path / "store.db"
    load(
        f"store: {{path: '{store}'}}\n"
        f"models: {{m: {{cmd: 'touch {mark} ${{PORT}}', cmdStop: 'touch {mark}', "
        f"beforeStart: {{run: 'touch {mark}', shell: true}}}}}}"
    )

    assert not mark.exists()
    assert not store.exists()
