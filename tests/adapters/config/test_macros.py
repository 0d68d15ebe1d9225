"""Specification 1.3 to 1.5: environment, macro declarations, expansion, ports."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.configs import Check, Load
from tools.hooks import argv_of, call_of
from tools.rows import row

from swapchart.adapters.config import Problem, load_config
from swapchart.adapters.config.document.nodes import Scalar
from swapchart.adapters.config.document.source import EnvironmentValues, Source
from swapchart.adapters.config.macros import Scope


def errors(problems: list[Problem]) -> list[str]:
    return [problem.message for problem in problems if problem.severity == "error"]


def one(text: str) -> str:
    """Return a document with one model; *text* are its keys, one a line."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return f"models:\n  m:\n{lines}"


# ---- environment -----------------------------------------------------------------------


def test_env_variable_is_replaced_anywhere(load: Load) -> None:
    """Variables fill keys, values, flow lists, macros and quoted texts."""
    config = load(
        'apiKeys: [${env.KEY}]\nmacros: {dir: "${env.DIR}/x"}\n'
        "models:\n  ${env.NAME}:\n    cmd: s ${dir} ${PORT}\n    ttl: ${env.TTL}\n"
        "    metadata: {n: ${env.TTL}, q: '${env.TTL}', empty: ${env.EMPTY}}\n",
        KEY="k1",
        DIR="/d",
        NAME="gpt",
        TTL="60",
        EMPTY="",
    )
    model = config.models["gpt"]

    assert model.argv == ("s", "/d/x", "5800")
    assert (model.ttl, model.metadata) == (60, {"n": 60, "q": "60", "empty": None})
    assert [key.get_secret_value() for key in config.api_keys] == ["k1"]


def test_env_variable_that_is_not_set_is_an_error(check: Check) -> None:
    """Each use of a variable that is not set is an error at its place."""
    (problem,) = check("# ${env.IN_COMMENT}\napiKeys:\n  - a${env.NOPE}\n")

    assert problem.message == "environment variable 'NOPE' is not set"
    assert (problem.path, problem.line, problem.column) == ("apiKeys[0]", 3, 6)


@pytest.mark.parametrize("value", ["a\nb", "a\rb"])
def test_env_value_with_a_line_break_stays_one_value(check: Check, value: str) -> None:
    """A value with a line break is refused, and not shown."""
    (message,) = errors(check("logLevel: ${env.X}", X=value))

    assert message == "environment variable 'X' contains a line break or a NUL character"


@pytest.mark.parametrize(
    "value", ["a: b", "a #b", "[x]", "*x", "&x y", "!!int x", "'", '"', "\\", "${PORT}", "${env.Y}"]
)
def test_env_value_cannot_change_the_document(load: Load, value: str) -> None:
    """Whatever a value holds, it is a text: never structure, never a reference."""
    text = "models:\n  m:\n    cmd: [s, '${PORT}', %s]\n    name: %s\n"
    for form in ("${env.X}", '"${env.X}"', "'${env.X}'"):
        model = load(text % (form, form), X=value, Y="no").models["m"]

        assert (model.argv[2], model.name) == (value, value)


# ---- declarations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("x" * 64 + ": 1", "exceeds maximum length of 63 characters"),
        ("é" * 32 + ": 1", "exceeds maximum length of 63 characters"),
        ("'a.b': 1", "contains invalid characters"),
        ("'': 1", "contains invalid characters"),
        ("a: 'x${a}'", "macro 'a' contains self-reference"),
        ("a: [1]", "has invalid type list, must be a scalar type"),
        ("a: {b: 1}", "has invalid type mapping, must be a scalar type"),
        ("a: ~", "has invalid type null, must be a scalar type"),
        ("a:", "has invalid type null, must be a scalar type"),
        ("a: 2024-01-01", "has invalid type timestamp, must be a scalar type"),
        ("PID: 1", "macro name 'PID' is reserved"),
        ("PORT: 1", "macro name 'PORT' is reserved"),
        ("MODEL_ID: x", "macro name 'MODEL_ID' is reserved"),
    ],
)
def test_macro_declaration_that_is_invalid_is_refused(
    check: Check, declared: str, message: str
) -> None:
    """Each rule for macro names and values holds globally and in a model, with its line."""
    (everywhere,) = check(f"macros:\n  {declared}\n")
    (local,) = check(one(f"cmd: s ${{PORT}}\nmacros:\n  {declared}"))

    assert message in everywhere.message
    assert (everywhere.line, everywhere.path.startswith("macros.")) == (2, True)
    assert message in local.message
    assert (local.line, local.path.startswith("models.m.macros.")) == (5, True)


def test_macro_name_of_63_bytes_is_accepted(load: Load) -> None:
    """The longest name, and a text that looks like a date, are fine."""
    name = "x" * 63
    config = load(f"macros: {{{name}: 1, when: '2024-01-01'}}")

    assert config.macros == {name: 1, "when": "2024-01-01"}


@pytest.mark.parametrize("value", ["[a]", "text", "7"])
def test_macros_must_be_a_mapping(check: Check, value: str) -> None:
    """Macros that are not a mapping are refused, globally and in a model."""
    assert "macros must be a mapping" in errors(check(f"macros: {value}"))[0]
    assert "macros must be a mapping" in errors(check(one(f"cmd: s ${{PORT}}\nmacros: {value}")))[0]


def test_macro_declared_text_stays_visible(load: Load) -> None:
    """Macro values are not rewritten when they are used."""
    config = load("macros: {a: 1, b: 'x${a}'}\n" + one("cmd: s ${b} ${PORT}\nmacros: {c: '${b}'}"))

    assert config.macros == {"a": 1, "b": "x${a}"}
    assert config.models["m"].macros == {"c": "${b}"}


# ---- expansion -------------------------------------------------------------------------


def test_macro_uses_earlier_macros(load: Load) -> None:
    """A macro may use those declared before it, and a model's own replaces a global one."""
    config = load(
        "macros: {bin: /opt/s, ctx: 4096, args: '--ctx ${ctx}', all: '${bin} ${args}'}\n"
        "models:\n"
        "  a: {cmd: '${all} ${PORT}'}\n"
        "  b: {cmd: '${all} ${PORT} ${x}', macros: {ctx: 99, x: '-c ${ctx}'}}\n"
    )

    assert config.models["a"].argv == ("/opt/s", "--ctx", "4096", "5800")
    assert config.models["b"].argv == ("/opt/s", "--ctx", "99", "5801", "-c", "99")


def test_macro_that_uses_a_later_one_is_refused(check: Check) -> None:
    """A macro that uses a later one is an error where it is used, and says why."""
    (message,) = errors(check("macros: {a: '${b}', b: 1}\n" + one("cmd: s ${PORT} ${a}")))

    assert message == (
        "unknown macro '${b}': it is declared after the macro that uses it; move it before"
    )


@row("B09")
def test_macro_mutual_recursion_is_refused(check: Check) -> None:
    """Macros that use each other end in an error, not in a loop."""
    assert len(errors(check("macros: {a: '${b}', b: 'x${a}'}\n" + one("cmd: s ${PORT} ${a}")))) == 1


@pytest.mark.parametrize(
    ("declared", "exact", "inside"),
    [
        ("0.7", 0.7, "0.7"),
        ("1e3", 1000.0, "1e3"),
        ("1000000.0", 1000000.0, "1000000.0"),
        ("3.10", 3.1, "3.10"),
        ("4096", 4096, "4096"),
        ("0x10", 16, "16"),
        ("1_000", 1000, "1000"),
        ("true", True, "true"),
        ("FALSE", False, "false"),
        ("no", "no", "no"),
        ("12:30:45", "12:30:45", "12:30:45"),
        ("'7'", "7", "7"),
    ],
)
def test_macro_alone_in_a_value_keeps_its_type(
    load: Load, declared: str, exact: Any, inside: str
) -> None:
    """A text that is just a reference becomes the value; inside a text it is interpolated."""
    config = load(
        f"macros: {{v: {declared}, w: '${{v}}'}}\n"
        + one("cmd: s ${PORT}\nname: x${w}\nmetadata: {a: '${v}', b: ['${w}'], c: '<${v}>'}")
    )
    model = config.models["m"]

    assert model.metadata == {"a": exact, "b": [exact], "c": f"<{inside}>"}
    assert type(model.metadata["a"]) is type(exact)
    assert model.name == f"x{inside}"


def test_macro_model_id_and_port_work_in_global_macros(load: Load) -> None:
    """Global macros may mention what only a model knows."""
    config = load("macros: {serve: 's ${MODEL_ID} ${PORT}'}\nmodels: {m/1: {cmd: '${serve}'}}")

    assert config.models["m/1"].argv == ("s", "m/1", "5800")


def test_macro_of_a_model_is_unknown_at_the_top_level(check: Check) -> None:
    """At the top level neither MODEL_ID nor PORT has a value."""
    problems = check("onIdle: '${MODEL_ID}'\napiKeys: ['${PORT}']\nlogToStdout: '${x}'")

    assert [p.path for p in problems] == ["onIdle", "apiKeys[0]", "logToStdout"]
    assert "macro '${MODEL_ID}' has no value here" in problems[0].message
    assert "unknown macro '${x}'" in problems[2].message


def test_macro_is_replaced_at_the_top_level(load: Load) -> None:
    """Every top-level value may use global macros, startPort too."""
    config = load("macros: {p: 9000}\nstartPort: ${p}\n" + one("cmd: s ${PORT}"))

    assert config.models["m"].port == 9000


def test_macro_in_an_unknown_top_level_key_is_not_expanded(check: Check) -> None:
    """References in an ignored key are no problem."""
    assert errors(check("defs: {a: '${nowhere}'}")) == []


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ("cmd: s ${PORT} ${x}", "cmd"),
        ("cmd: [s, '${PORT}', '${x}']", "cmd[2]"),
        ("cmd: s ${PORT}\ncmdStop: halt ${x}", "cmdStop"),
        ("cmd: s ${PORT}\nproxy: http://${x}:${PORT}", "proxy"),
        ("cmd: s ${PORT}\ncheckEndpoint: /${x}", "checkEndpoint"),
        ("cmd: s ${PORT}\nname: ${x}", "name"),
        ("cmd: s ${PORT}\ndescription: ${x}", "description"),
        ("cmd: s ${PORT}\nfilters: {stripParams: '${x}'}", "filters.stripParams"),
        ("cmd: s ${PORT}\ncapabilities: {in: ['${x}']}", "capabilities.in[0]"),
        ("cmd: s ${PORT}\nmetadata: {a: {b: ['${x}']}}", "metadata.a.b[0]"),
        ("cmd: s ${PORT}\nenv: ['A=${x}']", "env[0]"),
        ("cmd: s ${PORT}\nafterHealthy: say ${x}", "afterHealthy"),
        ("cmd: s ${PORT}\nsleep: {enter: 'say ${x}'}", "sleep.enter"),
        ("cmd: s ${PORT}\nunheardOf: ${x}", "unheardOf"),
    ],
)
def test_macro_that_is_unknown_is_an_error(check: Check, keys: str, path: str) -> None:
    """A reference to nothing is an error at its place, in every key of a model."""
    found = [p for p in check(one(keys)) if "unknown macro '${x}'" in p.message]

    assert [p.path for p in found] == [f"models.m.{path}"]
    assert "'$${x}'" in found[0].message


@row("B09")
def test_macro_that_is_unknown_is_reported_in_its_line(check: Check) -> None:
    """In a command of several lines the very line and column are told."""
    (problem,) = check(one("cmd: |\n  serve\n  --port ${PORT} ${typo}"))

    assert (problem.line, problem.column) == (5, 22)


@pytest.mark.parametrize("literal", ["${a.b}", "$X", "${}", "${a b}", "$(x)", "${PORT"])
def test_macro_other_syntax_is_literal(load: Load, literal: str) -> None:
    """Only ``${name}`` is a reference."""
    model = load(one(f"cmd: [s, '${{PORT}}', '{literal}']")).models["m"]

    assert model.argv[2] == literal


def test_macro_escape_is_a_literal(load: Load) -> None:
    """``$${`` is a literal ``${`` for macros, ports, pids and the environment alike."""
    model = load(
        "macros: {a: 1, b: '$${a}'}\n"
        + one("cmd: [s, '${PORT}', '$${a}', '$${PORT}', '$${env.X}', '$$${a}', '${b}', '$$']")
    ).models["m"]

    assert model.argv[2:] == ("${a}", "${PORT}", "${env.X}", "$${a}", "${a}", "$$")


def test_macro_in_a_key_is_expanded_in_set_params_by_id_only(load: Load) -> None:
    """Mapping keys stay as they are, except those of filters.setParamsByID."""
    config = load(
        "macros: {a: high}\n"
        + one(
            "cmd: s ${PORT}\nmetadata: {'${a}': 1}\n"
            "filters: {setParamsByID: {'${MODEL_ID}:${a}': {x: 1}, '${PORT}': {x: 2}}}"
        )
    )
    model = config.models["m"]

    assert model.metadata == {"${a}": 1}
    assert model.filters.set_params_by_id == {"m:high": {"x": 1}, "5800": {"x": 2}}
    assert (config.real_name("m:high"), config.real_name("5800")) == ("m", "m")


def test_set_params_by_id_collision_and_unknown(check: Check) -> None:
    """Two keys that become the same, and a key that stays unresolved, are errors."""
    keys = "cmd: s ${PORT}\nmacros: {a: x, b: x}\nfilters: {setParamsByID: {%s}}"
    (twice,) = errors(check(one(keys % "'${a}': {}, '${b}': {}")))
    (unknown,) = errors(check(one(keys % "'${c}': {}")))

    assert twice == "two keys resolve to the same value 'x'"
    assert "unknown macro '${c}'" in unknown


# ---- PORT and PID ----------------------------------------------------------------------


def test_ports_are_allocated_by_sorted_id(load: Load) -> None:
    """Ports go to models that use one, in the order of their ids, whatever the document's."""
    config = load(
        "startPort: 7000\nmodels:\n"
        "  b: {cmd: 's ${PORT}'}\n"
        "  é: {cmd: 's ${PORT}'}\n"
        "  c: {cmd: s, proxy: 'http://127.0.0.1:1'}\n"
        "  B: {cmd: 's ${PORT}', proxy: 'http://127.0.0.1:${PORT}/v'}\n"
    )

    assert list(config.models) == ["b", "é", "c", "B"]
    assert [m.port for m in config.models.values()] == [7001, 7002, None, 7000]
    assert config.models["B"].proxy == "http://127.0.0.1:7000/v"


def test_ports_are_kept_on_reload(tmp_path: Path) -> None:
    """A model keeps its port; a new one gets the lowest that no model has, had or keeps."""
    file = tmp_path / "a.yaml"
    file.write_text(
        "startPort: 7000\nmodels:\n"
        "  a: {cmd: 's ${PORT}'}\n  b: {cmd: 's ${PORT}'}\n  c: {cmd: 's ${PORT}'}\n"
        "  d: {cmd: s 1, proxy: 'http://127.0.0.1:1'}\n  e: {cmd: 's ${PORT}'}\n"
    )
    config = load_config([file], ports={"c": 7000, "gone": 7002, "d": 7003, "e": 9000})

    assert {m.id: m.port for m in config.models.values()} == {
        "a": 7001, "b": 7004, "c": 7000, "d": None, "e": 9000,
    }  # fmt: skip
    assert config.models["e"].proxy == "http://localhost:9000"


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True),
    st.dictionaries(st.sampled_from("abcdefghij"), st.integers(7000, 7012)),
)
@settings(max_examples=40, deadline=None)
def test_ports_are_never_allocated_twice(models: list[str], ports: dict[str, int]) -> None:
    """Whatever is kept, new models get different ports, and none of another model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.yaml")
        entries = "".join(f"  {name}: {{cmd: 's ${{PORT}}'}}\n" for name in models)
        file.write_text(f"startPort: 7000\nmodels:\n{entries or '  {}'}")
        config = load_config([file], ports=ports)
    new = {m.id: m.port for m in config.models.values() if m.id not in ports}

    assert {name: m.port for name, m in config.models.items() if name in ports} == {
        name: port for name, port in ports.items() if name in models
    }
    assert len(set(new.values())) == len(new)
    assert not set(new.values()) & set(ports.values())


def test_port_macro_is_replaced_in_all_keys_of_a_model(load: Load) -> None:
    """One port is put into every text of the model, as a number where it stands alone."""
    model = load(
        one("cmd: s ${PORT}\nenv: ['P=${PORT}']\nmetadata: {p: '${PORT}', q: ['${PORT}x']}")
    ).models["m"]

    assert model.environment == {"P": "5800"}
    assert model.metadata == {"p": 5800, "q": ["5800x"]}


@pytest.mark.parametrize("proxy", ["", "proxy: http://127.0.0.1:${PORT}"])
def test_port_macro_in_proxy_but_not_in_cmd_is_refused(check: Check, proxy: str) -> None:
    """A fixed port in cmd asks for a proxy that says so; the default proxy does not."""
    (message,) = errors(check(one(f"cmd: s 8080\n{proxy}")))

    assert "proxy uses ${PORT} but cmd does not" in message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("port", "; did you mean '${PORT}'?"),
        ("PROT", "; did you mean '${PORT}'?"),
        ("model-id", "; did you mean '${MODEL_ID}'?"),
        ("llama_servr", "; did you mean '${llama-server}'?"),
        ("HOME", "; did you mean '${env.HOME}'?"),
        ("nothing", ""),
    ],
)
def test_unknown_macro_in_cmd_is_the_only_error_and_names_what_was_meant(
    check: Check, name: str, hint: str
) -> None:
    """The port may be in the unknown macro, so that cmd lacks ${PORT} is not reported too."""
    text = f"macros: {{llama-server: s}}\nmodels: {{m: {{cmd: 's ${{{name}}}'}}}}"
    (message,) = errors(check(text, HOME="h"))

    assert message == (
        f"unknown macro '${{{name}}}'{hint}; for a literal text write '$${{{name}}}'"
    )


@pytest.mark.parametrize(
    "keys", ["afterHealthy: say ${PORT}", "beforeStop: say ${PORT}", "env: ['A=${PORT}']"]
)
def test_port_macro_outside_cmd_and_proxy_allocates_none(check: Check, keys: str) -> None:
    """A port is given for cmd only; a hook that asks for one without is an error."""
    text = one(f"cmd: s 8080\nproxy: http://127.0.0.1:8080\n{keys}")
    (message,) = errors(check(text))

    assert "macro '${PORT}' has no value here" in message


def test_ports_run_out(check: Check) -> None:
    """A port beyond 65535 is an error."""
    text = "startPort: 65535\nmodels: {a: {cmd: 's ${PORT}'}, b: {cmd: 's ${PORT}'}}"
    (problem,) = check(text)

    assert (problem.path, "no port is left" in problem.message) == ("models.b", True)


def test_pid_macro_is_kept_in_commands_that_run_later(load: Load) -> None:
    """Stop commands and hooks keep ``${PID}`` for the time they run."""
    hook = "{http: {url: 'http://h/${PID}', json: {pid: '${PID}'}}}"
    model = load(
        one(
            "cmd: s ${PORT}\ncmdStop: kill ${PID}\nafterHealthy: say ${PID}\n"
            f"beforeStop: [{hook}]\nsettle: {{run: 'free ${{PID}}'}}\nsleep: {{wake: 'w ${{PID}}'}}"
        )
    ).models["m"]
    (after_healthy,), (before_stop,) = model.hooks["afterHealthy"], model.hooks["beforeStop"]

    assert model.stop_argv == ("kill", "${PID}")
    assert (argv_of(model.settle), argv_of(model.sleep.wake[0])) == (
        ("free", "${PID}"),
        ("w", "${PID}"),
    )
    assert argv_of(after_healthy) == ("say", "${PID}")
    assert call_of(before_stop).url == "http://h/${PID}"
    assert call_of(before_stop).body == b'{"pid": "${PID}"}'


def test_host_and_node_are_kept_in_commands_that_run_later_unless_they_are_macros(
    load: Load,
) -> None:
    """A configuration that has a macro of that name keeps its meaning."""
    keys = "cmd: s ${PORT}\ncmdStop: stop ${HOST} ${NODE}\nafterHealthy: say ${NODE}"
    macros = "macros: {HOST: mine}\n"
    model, own = load(one(keys)).models["m"], load(macros + one(keys)).models["m"]

    assert model.stop_argv == ("stop", "${HOST}", "${NODE}")
    assert argv_of(model.hooks["afterHealthy"][0]) == ("say", "${NODE}")
    assert own.stop_argv == ("stop", "mine", "${NODE}")


def test_host_and_node_of_local_models_are_those_of_this_machine(load: Load) -> None:
    """A command is the same on a node of a cluster and here; a literal text is left alone."""
    keys = 'cmd: "s --host ${HOST} --port ${PORT} $${HOST}"\nenv: ["AT=${NODE}:${HOST}"]'
    model = load(one(keys)).models["m"]

    assert model.argv == ("s", "--host", "127.0.0.1", "--port", "5800", "${HOST}")
    assert model.environment == {"AT": f"{socket.gethostname()}:127.0.0.1"}


@pytest.mark.parametrize(("network", "host"), [("", "0.0.0.0"), (", network: host", "127.0.0.1")])
def test_host_of_a_container_is_where_its_port_is_reached(
    load: Load, network: str, host: str
) -> None:
    """An engine forwards a port to the address that a container has in a network of its own."""
    keys = f'container: {{image: i, args: "--host ${{HOST}} --port ${{PORT}}"{network}}}'

    assert load(one(keys)).models["m"].argv[:2] == ("--host", host)


@pytest.mark.parametrize("macros", ["macros: {HOST: mine, NODE: 7}\n", "own"])
def test_macros_override_host_and_node(load: Load, macros: str) -> None:
    """A configuration of llama-swap may have macros of these names, of the model or of all."""
    keys = 'cmd: "s ${HOST} ${NODE} ${PORT}"'
    is_own = macros == "own"
    text = one(f"{keys}\nmacros: {{HOST: mine, NODE: 7}}") if is_own else macros + one(keys)

    assert load(text).models["m"].argv == ("s", "mine", "7", "5800")


def test_host_of_a_macro_that_is_declared_too_late_is_an_error(check: Check) -> None:
    """It is not taken for the address of the server."""
    macros = 'macros: {first: "${HOST}", HOST: mine}\n'
    (message,) = errors(check(macros + one('cmd: "s ${first} ${PORT}"')))

    assert "it is declared after the macro that uses it" in message


@pytest.mark.parametrize("keys", ["cmd: s ${PORT} ${PID}", "cmd: s ${PORT}\nname: ${PID}"])
def test_pid_macro_elsewhere_is_refused(check: Check, keys: str) -> None:
    """Nothing else may mention ``${PID}``."""
    (message,) = errors(check(one(keys)))

    assert "macro '${PID}' is known only while the process runs" in message


# ---- laws ----------------------------------------------------------------------------------


def scalar(value: str | int | float | bool) -> Scalar:
    place = Source("x", "")
    return Scalar(source=place, line=1, column=1, end_line=1, text=str(value), value=value)


NAMES = st.sampled_from(["a", "b", "c", "d-1", "E_2"])
TEXTS = st.lists(
    st.one_of(st.text(alphabet="xy $", max_size=3), NAMES.map(lambda n: f"${{{n}}}")), max_size=5
).map("".join)


@settings(deadline=None)
@given(st.dictionaries(NAMES, TEXTS, max_size=5), TEXTS)
def test_macro_expansion_follows_the_declared_order(macros: dict[str, str], text: str) -> None:
    """Expanding all at once is replacing each macro once, from the last to the first."""
    scope = Scope({name: scalar(value) for name, value in macros.items()}, [0])
    expected = text
    for name, value in reversed(macros.items()):
        expected = expected.replace(f"${{{name}}}", value)

    assert scope.expand_text(text) == expected


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\uf8f0\uf8f1\uf8f2")))
@row("B08")
def test_macro_value_is_one_argument_of_a_command_list(value: str) -> None:
    """In a command given as list, a macro's value is exactly one argument, whatever it holds."""
    scope = Scope({"v": scalar(value)}, [0])
    node = scope.expand(scalar("${v}"))
    assert isinstance(node, Scalar)

    assert EnvironmentValues({}).fill(str(node.value)) == value
