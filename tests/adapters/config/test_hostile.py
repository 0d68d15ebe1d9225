"""Hostile and broken configuration files."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.configs import Check, Load
from tools.rows import row

from swapchart.adapters.config import ConfigProblems, check_config, load_config
from swapchart.adapters.config.document.nodes import walk
from swapchart.adapters.config.document.parse import parse
from swapchart.adapters.config.document.source import EnvironmentValues, Source
from swapchart.adapters.config.problem_collector import ProblemCollector

#: Processor seconds a load may take; measuring coverage makes everything slower.
LIMIT_S = 1.0 if sys.gettrace() is None else 20.0


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def staircase(steps: int) -> str:
    """Each anchor is 40 deep and holds the one before: deep only when aliases are followed."""
    lines = [f"a0: &a0 {'[' * 40}x{']' * 40}"]
    lines += [f"a{n}: &a{n} {'[' * 40}*a{n - 1}{']' * 40}" for n in range(1, steps)]
    return "\n".join(lines)


CORPUS = {
    "alias bomb": (bomb(9), "aliases written out"),
    "alias bomb in models": (
        f"models:\n{bomb(9)}".replace("\n", "\n  "),
        "aliases written out",
    ),
    "alias staircase": (staircase(100), "levels of nesting"),
    "self alias in list": ("a: &a [*a]", "inside what it stands for"),
    "self alias in mapping": ("a: &a {b: {c: *a}}", "inside what it stands for"),
    "self merge": ("a: &a {<<: *a}", "inside what it stands for"),
    "unknown alias": ("a: *b", "stands for nothing"),
    "100k flow nesting": ("a: " + "[" * 100_000, "nest"),
    "100k block nesting": ("- " * 100_000, "nest"),
    "51 levels": ("[" * 51 + "]" * 51, "levels of nesting"),
    "python tag": ("a: !!python/object/apply:os.system [id]", "!!python/object/apply:os.system"),
    "python tag on scalar": ("a: !!python/name:os.system x", "cannot be used here"),
    "own tag": ("a: !mine x", "the tag !mine cannot be used here"),
    "binary": ("a: !!binary aGk=", "cannot be used here"),
    "wrong int": ("a: !!int x", "does not fit"),
    "duplicate key": ("logLevel: info\nlogLevel: debug", "defined twice; the first time in line 1"),
    "duplicate model": (
        "models:\n  m: {cmd: 's ${PORT}'}\n  m: {cmd: 't ${PORT}'}",
        "defined twice",
    ),
    "duplicate by escape": ('a: 1\n"\\x61": 2', "defined twice"),
    "two documents": ("a: 1\n---\nb: 2", "expected one document"),
    "mapping as key": ("{a: 1}: 2", "expected a text as key"),
    "list as key": ("? [a]\n: 2", "expected a text as key"),
    "alias of mapping as key": ("a: &a {}\n*a : 1", "expected a text as key"),
    "merge of a text": ("<<: x", "expected a mapping or a list of mappings"),
    "not closed": ("a: [1", "not valid YAML"),
    "tab": ("a:\n\tb: 1", "not valid YAML"),
    "control character": ("a: \x01", "not valid YAML"),
    "NUL": ('a: "x\\0y"', "NUL character"),
    "five MiB": ("a: " + "x" * (5 << 20), "at most 4 MiB"),
    "100,001 values": ("a: [" + "1," * 100_000 + "]", "at most 100000 values"),
    "macro bomb": (
        "macros:\n  m0: xxxxxxxxxx\n"
        + "".join(f"  m{n}: '{f'${{m{n - 1}}}' * 10}'\n" for n in range(1, 12))
        + "onIdle: '${m11}'",
        "macros make a text longer than",
    ),
    "macro bomb in a key": (
        "macros:\n  m0: xxxxxxxxxx\n"
        + "".join(f"  m{n}: '{f'${{m{n - 1}}}' * 10}'\n" for n in range(1, 9))
        + "models: {m: {cmd: 's ${PORT}', filters: {setParamsByID: {'${m8}': {}}}}}",
        "macros make a text longer than",
    ),
    "our own characters": ("a: \uf8f0", "U+F8F0"),
    "deep expression": (
        "models: {m: {cmd: 's ${PORT}'}}\nmatrix: {sets: {a: '" + "(" * 5000 + "'}}",
        "nested parentheses",
    ),
    "endless expression": (
        "models: {m: {cmd: 's ${PORT}'}}\nmatrix: {sets: {a: 'm" + "|m" * 30_000 + "'}}",
        "at most 20000 names in all sets",
    ),
    "endless number": ("startPort: " + "9" * 5000, "expected an integer"),
    "model is null": ("models: {m: }", "expected a mapping with cmd, found nothing"),
    "model is a list": ("models: {m: []}", "expected a mapping with cmd, found a list"),
    "models is a list": ("models: []", "expected a mapping of models"),
}


@pytest.mark.parametrize(("text", "message"), CORPUS.values(), ids=CORPUS.keys())
@row("C39")
def test_hostile_file_is_refused_quickly_with_its_position(
    check: Check, text: str, message: str
) -> None:
    """Each is an error with a place, within a second of this process's time."""
    began = time.process_time()
    problems = [p for p in check(text) if p.severity == "error"]
    spent = time.process_time() - began

    assert message in "\n".join(p.message for p in problems)
    assert all(
        p.line >= 1 and p.column >= 1
        for p in problems
        if "MiB" not in p.message and "U+" not in p.message
    )
    assert len(problems) == 1
    assert spent < LIMIT_S


@row("C39")
def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """A file that is no UTF-8 is refused, and its bytes are not shown."""
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\xfe")

    assert [p.message for p in check_config([path])] == ["expected UTF-8, found byte 3 that is not"]


@row("C39")
def test_yaml_words_and_numbers_stay_as_in_go(load: Load) -> None:
    """What YAML 1.1 would turn into something else stays what Go's library makes of it."""
    metadata = load(
        "models:\n  m:\n    cmd: s ${PORT}\n    metadata:\n"
        "      a: [no, off, y, 12:30:45, 0777, 1e3, 0o17, 0b11, 1_000, 2024-01-01, ~, .5]\n"
        "      b: [+1, -0x1F, 08, 1., 1e, _1, .inf, '1', !!str 1, !!float 2, =, '', -]\n"
    )
    values = metadata.models["m"].metadata

    assert values["a"] == [
        *("no", "off", "y", "12:30:45", 511, 1000.0, 15, 3, 1000, "2024-01-01", None, 0.5)
    ]
    assert values["b"] == [
        *(1, -31, 8.0, 1.0, "1e", "_1", float("inf"), "1", "1", 2.0, "=", "", "-")
    ]


@row("C39")
def test_yaml_tags_and_odd_keys_are_refused(load: Load) -> None:
    """The tags of YAML's own types work, and an alias may stand for a text in a key."""
    values = (
        load(
            "models:\n  m:\n    cmd: s ${PORT}\n    metadata:\n      &k key: !!str &v 1\n"
            "      a: [!!null x, !!int '7', !!bool 'true', !!str no, ! 5, *k, *v]\n"
            "      *v : [!!float 3]\n      c: !!map {d: !!seq [e]}\n"
        )
        .models["m"]
        .metadata
    )

    assert values == {
        "key": "1",
        "a": [None, 7, True, "no", "5", "key", "1"],
        "1": [3.0],
        "c": {"d": ["e"]},
    }


@row("C39")
def test_many_models_load_within_a_second(tmp_path: Path) -> None:
    """A thousand ordinary models take less than a second of processor time."""
    path = tmp_path / "a.yaml"
    path.write_text(
        "macros: {bin: /opt/s, args: '--port ${PORT}'}\nmodels:\n"
        + "".join(
            f"  m{n}:\n    cmd: |\n      ${{bin}} ${{args}}\n      --model /m/{n}.gguf\n"
            f"    ttl: 60\n    aliases: [a{n}, b{n}]\n    env: [A={n}]\n"
            "    afterHealthy: curl http://localhost:${PORT}/x\n"
            "    metadata: {x: 1, y: [1, 2]}\n"
            for n in range(1000)
        )
    )
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        config = load_config([path], env={})
        best = min(best, time.process_time() - began)

    assert len(config.models) == 1000
    assert best < LIMIT_S


@row("C39")
def test_matrix_with_a_long_chain_of_sets_loads(load: Load) -> None:
    """Thousands of sets that build on each other are read without recursion."""
    sets = "".join(f"    s{n}: '+s{n - 1} | m'\n" for n in range(1, 5000))
    config = load(
        "models: {m: {cmd: 's ${PORT}'}, n: {cmd: 's ${PORT}'}}\n"
        "selectors: {x: {strategy: spillover, targets: [m, n]}}\n"
        f"matrix:\n  sets:\n    s0: m & n\n{sets}"
    )
    assert config.routing.matrix is not None

    assert len(config.routing.matrix.sets) == 5000


# ---- secrets -------------------------------------------------------------------------------

SECRETS = (
    "apiKeys: ['{s} x', '{s}', '']\n"
    "peers:\n  p: {{proxy: 'http://u:{s}@h:1', apiKey: {s}, models: [a]}}\n"
    "  q: {{proxy: '//u:{s}@h', apiKey: [{s}], models: [a]}}\n"
    "models:\n  m:\n    cmd: serve --key {s} ${{PORT}}\n    proxy: http://u:{s}@h:1/\n"
    "    env: ['K={s}', '{s}', [{s}]]\n"
    "    afterHealthy: {{http: {{url: 'http://u:{s}@h/', headers: {{Authorization: {s}}}}}}}\n"
    "    beforeStop: {{http: {{url: 'u:{s}@h/', headers: {{A: [{s}]}}}}}}\n"
)


@row("C36")
def test_problems_show_no_secret(check: Check) -> None:
    """Keys, env, headers and credentials in URLs are in no message, right or wrong."""
    problems = check(SECRETS.format(s="canary"))
    problems += check("peers: {q: {proxy: '//u:canary@h', models: [a]}}")

    assert len(problems) == 6
    assert "canary" not in "\n".join(map(str, problems))


@row("C36")
def test_problems_show_environment_values_as_references(check: Check) -> None:
    """A value of the environment in the wrong place is shown as its reference."""
    problems = check(
        "globalTTL: ${env.S}\nlogToStdout: ${env.S}\nmacros: {a: '${env.S}'}\n"
        "models: {m: {cmd: 's ${PORT}', ttl: '${a}', unlisted: '${env.S}', proxy: '${a}'}}",
        S="canary",
    )

    assert [p.severity for p in problems] == ["error"] * 5
    assert "canary" not in "\n".join(map(str, problems))
    assert "expected an integer, found '${env.S}'" in problems[0].message


@row("C36")
def test_repr_of_the_configuration_shows_no_secret(load: Load) -> None:
    """The configuration's repr holds no key, no value of env, no header and no command."""
    config = load(
        "apiKeys: [canary]\nmacros: {k: canary}\n"
        "peers: {p: {proxy: 'http://u:canary@h:1', apiKey: canary, models: [a]}}\n"
        "models:\n  m:\n    cmd: serve --key ${k} --other ${env.S} ${PORT}\n"
        "    proxy: http://u:canary@h:1/\n    cmdStop: x canary\n    env: ['K=canary']\n"
        "    afterHealthy: [say canary, {http: {url: 'http://u:canary@h/', json: canary,\n"
        "      headers: {Authorization: canary}}}]\n    settle: {run: canary}\n"
        "    sleep: {enter: 'say canary'}\n    metadata: {a: canary}\n",
        S="canary2",
    )
    model = config.models["m"]

    assert "canary" not in repr(config)
    assert model.cmd_shown == "serve --key canary --other ${env.S} 5800"
    assert model.cmd == "serve --key canary --other canary2 5800"
    assert [str(hook.action) for hook in model.hooks["afterHealthy"]] == [
        "run say",
        "POST http://h/",
    ]


# ---- laws ----------------------------------------------------------------------------------

YAMLISH = st.lists(
    st.sampled_from(
        [
            *("models", "m", "cmd", ": ", "- ", "\n", "  ", "    ", "[", "]", "{", "}", ",", "&a "),
            *("*a", "<<", "!!int ", "|\n", "'", '"', "${PORT}", "${env.X}", "$${", "#", "~", "1"),
            *("afterHealthy", "run", "http", "url", "peers", "aliases", "macros", "\t", "\\", "é"),
        ]
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(YAMLISH)
@row("C39")
def test_load_of_any_text_succeeds_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    """No text makes loading fail in any other way than by problems with messages."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_config([path], env={"X": "1"})
    except ConfigProblems as caught:
        problems = caught.problems
    else:
        return

    assert all(problem.message for problem in problems)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 99), st.text("ab: #-", max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["cmd", "run", "http", "url", "json", "mode", "timeout", "pins", "targets", "sets"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        *("ttl", "env", "aliases", "filters", "metadata", "timeouts", "capabilities", "macros"),
        *("afterHealthy", "onFailure", "restart", "liveness", "drain", "sleep", "settle", "kv"),
        *("peers", "profiles", "selectors", "groups", "matrix", "routing", "hooks", "store", "ui"),
        *("upstream", "performance", "queue", "apiKeys", "startPort", "onIdle", "proxy", "name"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.dictionaries(KEYS, VALUES, max_size=4))
@row("C39")
def test_load_of_any_values_succeeds_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, top: dict[str, object], model: dict[str, object]
) -> None:
    """Whatever kind of value a key gets, it is taken or told with its place."""
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    # JSON is YAML; its texts are quoted

    path.write_text(json.dumps({**top, "models": {"m": {"cmd": "s ${PORT}", **model}}}))
    for problem in check_config([path], env={}):
        assert problem.line == 1
        assert problem.path


def test_nodes_have_line_and_column() -> None:
    """Every node knows the line and column it begins at, environment references or not."""
    source = Source("x", "a: ${env.LONG_NAME}\nb: [1, ${env.X}, two]\n")
    tree = parse(
        source, EnvironmentValues({"LONG_NAME": "v", "X": "w"}), findings := ProblemCollector()
    )

    assert findings.all() == []
    assert tree is not None
    places = [(s.line, s.column) for _, s in walk(tree)]
    assert places == [(1, 4), (2, 5), (2, 8), (2, 18)]
