"""Specification 1.7 to 1.9: keys at the top level and of a model, their defaults and rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tools.configs import Check, Load, one_model

from swapchart.adapters.config import Capabilities, Timeouts

MODEL = "models: {m: {cmd: 's ${PORT}'}}\n"


# ---- top level -------------------------------------------------------------------------


def test_top_level_empty_document_has_defaults(load: Load) -> None:
    """An empty document has llama-swap's defaults."""
    config = load("")

    assert (config.health_check_timeout, config.unload_timeout, config.global_ttl) == (120, 10, 0)
    assert (config.log_level, config.log_time_format, config.log_to_stdout) == ("info", "", "proxy")
    assert (config.metrics_max_in_memory, config.capture_bytes) == (1000, 5 << 20)
    assert (config.store_path, config.performance_every, config.start_port) == (None, 5.0, 5800)
    assert config.session_headers == ("X-Session-ID", "X-Litellm-Session-Id")
    assert (config.send_loading_state, config.include_aliases_in_list) == (False, False)
    assert [p.pattern for p in config.ignore_paths] == [
        r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$"
    ]
    assert (config.api_keys, config.preload) == ((), ())
    assert [warning.path for warning in config.warnings] == ["models"]


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("healthCheckTimeout: 500", "health_check_timeout", 500),
        ("logLevel: ' WARN '", "log_level", "warn"),
        ("logTimeFormat: RFC3339", "log_time_format", "rfc3339"),
        ("logToStdout: both", "log_to_stdout", "both"),
        ("logRequests: true", "log_level", "info"),
        ("metricsMaxInMemory: 0", "metrics_max_in_memory", 1000),
        ("metricsMaxInMemory: 5", "metrics_max_in_memory", 5),
        ("captureBuffer: 0", "capture_bytes", 0),
        ("captureBuffer: -1", "capture_bytes", 0),
        ("captureBuffer: 15", "capture_bytes", 15 << 20),
        ("ui: {activity: {session_id: [' A ', '', a, B]}}", "session_headers", ("A", "B")),
        ("ui: {activity: {session_id: []}}", "session_headers", ()),
        ("performance: {disabled: true}", "performance_every", None),
        ("performance: {every: 1h30m}", "performance_every", 5400.0),
        ("performance: {every: 7.5s}", "performance_every", 7.5),
        ("performance: {every: '0'}", "performance_every", 5.0),
        ("performance: {every: 0s}", "performance_every", 5.0),
        ("startPort: 1", "start_port", 1),
        ("startPort: 9000.0", "start_port", 9000),
        ("globalTTL: 7", "global_ttl", 7),
        ("unloadTimeout: 0", "unload_timeout", 10),
        ("sendLoadingState: true", "send_loading_state", True),
        ("includeAliasesInList: yes", "include_aliases_in_list", True),
        ("onIdleAfter: 5", "on_idle_after", 5),
        ("hookTimeout: 5", "hook_timeout", 5),
        ("hookLimit: 3", "hook_limit", 3),
        ("shutdownTimeout: 5.5", "shutdown_timeout", 5.5),
    ],
)
def test_top_level_key_has_its_effect(load: Load, text: str, attribute: str, value: Any) -> None:
    """Each key of the top level has its effect."""
    assert getattr(load(text), attribute) == value


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("healthCheckTimeout: 1.5", "healthCheckTimeout", "expected an integer, found 1.5"),
        ("healthCheckTimeout: '9'", "healthCheckTimeout", "expected an integer, found '9'"),
        ("logToStdout: all", "logToStdout", "expected 'proxy', 'upstream', 'both' or 'none'"),
        ("store: {path: ''}", "store.path", "expected a text that is not empty"),
        ("store: {}", "store.path", "path is required"),
        ("store: {path: /nowhere/at/all.db}", "store.path", "in a directory that exists"),
        ("store: {path: /}", "store.path", "expected a file, found a directory"),
        ("performance: {every: 4s}", "performance", "every must be at least 5s"),
        ("performance: {every: -5s}", "performance", "every must be at least 5s"),
        ("performance: {every: 15}", "performance.every", "expected a duration such as 15s"),
        ("performance: {every: 15 s}", "performance.every", "expected a duration such as 15s"),
        ("startPort: 0", "startPort", "expected >= 1, found 0"),
        ("startPort: 65536", "startPort", "expected <= 65535, found 65536"),
        ("startPort: true", "startPort", "expected an integer, found true"),
        ("globalTTL: -1", "globalTTL", "expected >= 0, found -1"),
        ("unloadTimeout: -1", "unloadTimeout", "expected >= 0, found -1"),
        ("sendLoadingState: 1", "sendLoadingState", "expected true or false, found 1"),
        ("sendLoadingState: maybe", "sendLoadingState", "expected true or false, found 'maybe'"),
        ("apiKeys: ['']", "apiKeys[0]", "empty api key found in apiKeys"),
        ("apiKeys: [a, b c]", "apiKeys[1]", "api key cannot contain spaces"),
        ("apiKeys: a", "apiKeys", "expected a list"),
        ("upstream: {ignorePaths: [a, '(']}", "upstream.ignorePaths[1]", "invalid regular expres"),
        (
            "upstream: {startOnGet: page}",
            "upstream.startOnGet",
            "expected 'all', 'pages' or 'none'",
        ),
        ("onIdle: nobody", "onIdle", "unknown model 'nobody'"),
        ("onIdleAfter: 0", "onIdleAfter", "expected > 0, found 0"),
        ("hookTimeout: .nan", "hookTimeout", "expected a finite number, found .nan"),
        ("hookTimeout: .inf", "hookTimeout", "expected a finite number, found .inf"),
        ("hookLimit: 0", "hookLimit", "expected >= 1, found 0"),
        ("queue: {limit: 0}", "queue.limit", "expected >= 1, found 0"),
    ],
)
def test_top_level_key_that_is_invalid_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """Each rule of the top level is an error that says what was expected and found."""
    (problem,) = check(text)

    assert (problem.path, problem.severity, problem.line) == (path, "error", 1)
    assert message in problem.message


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("healthCheckTimeout: 3", "healthCheckTimeout", "raised to 15"),
        ("healthCheckTimeout: -3", "healthCheckTimeout", "raised to 15"),
        ("logLevel: loud", "logLevel", "found 'loud': info is used"),
        ("logTimeFormat: iso", "logTimeFormat", "no time is logged"),
        ("hooks: {on_startup: {preload: [nobody]}}", "hooks.on_startup.preload[0]", "not preloade"),
    ],
)
def test_top_level_key_that_llama_swap_ignores_is_warned_of(
    check: Check, text: str, path: str, message: str
) -> None:
    """What llama-swap passes over in silence is a warning."""
    (problem,) = check(f"{text}\nmodels: {{a: {{cmd: 's ${{PORT}}'}}}}")

    assert (problem.path, problem.severity) == (path, "warning")
    assert message in problem.message


def test_tab_in_api_key_passes(load: Load) -> None:
    """Only spaces are refused in a key."""
    assert load('apiKeys: ["a\\tb"]').api_keys[0].get_secret_value() == "a\tb"


def test_store_path_must_exist_and_be_writable(load: Load, check: Check, tmp_path: Path) -> None:
    """The file or its directory must be there; nothing is created."""
    assert load(f"store: {{path: '{tmp_path}/a.db'}}").store_path == f"{tmp_path}/a.db"
    assert not (tmp_path / "a.db").exists()


def test_ignore_paths_are_searched_patterns(load: Load) -> None:
    """Patterns are searched, not matched; an empty list means the default."""
    config = load(r"upstream: {ignorePaths: ['^/ws$|^/api/jobs$', 'x']}")

    assert config.ignore_paths[0].search("/ws")
    assert config.ignore_paths[1].search("/axb")
    assert load("upstream: {ignorePaths: []}").ignore_paths == load("").ignore_paths


def test_start_on_get_is_all_unless_it_is_set(load: Load) -> None:
    """As in llama-swap, a GET starts its model; the key makes that rarer."""
    assert load("").start_on_get == load("upstream: {ignorePaths: [a]}").start_on_get == "all"
    assert load("upstream: {startOnGet: pages}").start_on_get == "pages"
    assert load("upstream: {startOnGet: none}").start_on_get == "none"


def test_preload_names_are_trimmed_and_resolved(load: Load) -> None:
    """Preload names are trimmed, blanks dropped, aliases resolved; order stays."""
    config = load(
        "models: {a: {cmd: 's ${PORT}', aliases: [x]}, b: {cmd: 's ${PORT}'}}\n"
        "hooks: {on_startup: {preload: [' b ', '', x]}}\nonIdle: x"
    )

    assert (config.preload, config.on_idle) == (("b", "a"), "a")


# ---- model -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("ttl: 60", "ttl", 60),
        ("ttl: 0", "ttl", 0),
        ("ttl: -1", "ttl", 300),
        ("unloadTimeout: 0", "unload_timeout", 20),
        ("unloadTimeout: 5", "unload_timeout", 5),
        ("healthCheckTimeout: 5", "health_check_timeout", 33),
        ("unlisted: true", "unlisted", True),
        ("useModelName: a/b", "use_model_name", "a/b"),
        ("name: ' A '", "name", "A"),
        ("description: ' d\n\n\n    '", "description", "d"),
        ("concurrencyLimit: 3", "concurrency_limit", 3),
        ("concurrencyLimit: 0", "concurrency_limit", None),
        ("concurrencyLimit: -3", "concurrency_limit", None),
        ("sendLoadingState: false", "send_loading_state", False),
        ("sendLoadingState:", "send_loading_state", True),
        ("env: [A=1, B=x=y, A=2, 'C=']", "environment", {"A": "2", "B": "x=y", "C": ""}),
        ("aliases: [x, y]", "aliases", ("x", "y")),
        ("metadata: {a: {b: [1, ~]}}", "metadata", {"a": {"b": [1, None]}}),
        ("compat: {ignoreWebsockets: true}", "ignore_websockets", True),
        ("timeouts: {connect: 1, keepalive: 0}", "timeouts", (1, 0, 0, 10, 1, 90)),
        ("timeouts:", "timeouts", (30, 30, 0, 10, 1, 90)),
        ("capabilities: {in: [text, image], tools: true}", "capabilities", ("text", "image")),
        ("proxy: http://127.0.0.1:${PORT}/v/", "proxy", "http://127.0.0.1:5800/v"),
        ("proxy: https://[::1]:${PORT}", "check_url", "https://[::1]:5800/health"),
        ("checkEndpoint: ' none '", "check_url", None),
        ("checkEndpoint: ok?a=b", "check_url", "http://localhost:5800/ok?a=b"),
        ("checkEndpoint: ''", "check_url", "http://localhost:5800/"),
        ("checkEndpoint: http://other:1/x?y=z", "check_url", "http://localhost:5800/x?y=z"),
        ("proxy: http://h:${PORT}/v\ncheckEndpoint: /x", "check_url", "http://h:5800/v/x"),
        ("cmdStop: docker stop 'a b'", "stop_argv", ("docker", "stop", "a b")),
        ("cmdStop: [docker, stop, a b]", "stop_argv", ("docker", "stop", "a b")),
        ("cmdStop: '# nothing'", "stop_argv", ()),
    ],
)
def test_model_key_has_its_effect(load: Load, text: str, attribute: str, value: Any) -> None:
    """Each key of a model has its effect; what it leaves open comes from the top level."""
    top = "globalTTL: 300\nunloadTimeout: 20\nhealthCheckTimeout: 33\nsendLoadingState: true\n"
    found = getattr(load(top + one_model(text)).models["m"], attribute)
    if isinstance(found, Timeouts):
        found = tuple(getattr(found, name) for name in found.model_fields)
    if isinstance(found, Capabilities):
        found = found.inputs

    assert found == value


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("ttl: -2", "ttl", "expected >= -1, found -2"),
        ("unloadTimeout: -1", "unloadTimeout", "expected >= 0, found -1"),
        ("proxy: localhost:8080", "proxy", "expected a URL such as"),
        ("proxy: ftp://h", "proxy", "expected a URL such as"),
        ("proxy: http://", "proxy", "expected a URL such as"),
        ("proxy: http://h:99999", "proxy", "expected a URL such as"),
        ("proxy: 'http://[::1'", "proxy", "expected a URL such as"),
        ("env: {A: 1}", "env", "expected a list"),
        ("env: [[A]]", "env[0]", "expected a text"),
        ("aliases: x", "aliases", "expected a list, found 'x'"),
        ("aliases: [[x]]", "aliases[0]", "expected a text, found a list"),
        (
            "capabilities: {in: [video]}",
            "capabilities.in[0]",
            "expected 'text', 'audio' or 'image'",
        ),
        ("capabilities: {context: -1}", "capabilities.context", "expected >= 0, found -1"),
        ("metadata: [a]", "metadata", "expected a mapping, found a list"),
        ("filters: x", "filters", "expected a mapping, found 'x'"),
        ("filters: {setParamsByID: {a: 1}}", "filters.setParamsByID.a", "expected a mapping"),
        ("timeouts: {connect: soon}", "timeouts.connect", "expected an integer, found 'soon'"),
        ("checkEndpoint: 'http://[x'", "checkEndpoint", "expected a path"),
    ],
)
def test_model_key_that_is_invalid_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """Each rule of a model is an error at its key."""
    (problem,) = check(one_model(text))

    assert (problem.path, problem.severity) == (f"models.m.{path}", "error")
    assert (problem.line, problem.column > 5) == (4, True)
    assert message in problem.message


def test_model_without_cmd_is_refused(check: Check) -> None:
    """A model without a command is an error at the model, and no other."""
    (problem,) = check("models:\n  m:\n    ttl: 3\n")

    assert (problem.path, problem.message) == ("models.m.cmd", "cmd or container is required")


@pytest.mark.parametrize(
    ("text", "argv", "proxy"),
    [
        ("proxy: http://127.0.0.1:9", (), "http://127.0.0.1:9"),
        (
            "cmd: systemctl start x\n    proxy: http://h:9",
            ("systemctl", "start", "x"),
            "http://h:9",
        ),
        ("cmd: start ${PORT}", ("start", "5800"), "http://localhost:5800"),
    ],
)
def test_external_model_needs_no_cmd(
    load: Load, text: str, argv: tuple[str, ...], proxy: str
) -> None:
    """Without one it has no port of its own, either."""
    model = load(f"models:\n  m:\n    external: true\n    {text}\n").models["m"]

    assert (model.external, model.argv, model.proxy) == (True, argv, proxy)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("ttl: 0", "proxy", "expected the address of the server"),
        ("proxy: 'http://h:${PORT}'", "proxy", "expected the address of the server"),
        ("proxy: 'http://h', kv: keep", "kv", "expected off"),
        ("proxy: 'http://h', cmdStop: 'kill ${PID}'", "cmdStop", "`${PID}` has no value"),
        ("proxy: 'http://h', cmdStop: [kill, '${PID}']", "cmdStop", "`${PID}` has no value"),
        ("proxy: 'http://h', cmd: ''", "cmd", "empty command"),
    ],
)
def test_external_model_that_cannot_work_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """The error is at the key that is missing or has no meaning."""
    (problem,) = check(f"models: {{m: {{external: true, {text}}}}}")

    assert problem.severity == "error"
    assert problem.path == f"models.m.{path}"
    assert message in problem.message


def test_external_model_without_stop_command_has_no_ttl(check: Check) -> None:
    """A `ttl` of its own is a warning; with `cmdStop` it has its effect."""
    text = "models: {{m: {{external: true, proxy: 'http://h', ttl: 5{more}}}}}"
    (problem,) = check(text.format(more=""))

    assert (problem.path, problem.severity) == ("models.m.ttl", "warning")
    assert not check(text.format(more=", cmdStop: x"))


def test_env_entry_without_value_is_refused(load: Load) -> None:
    """What is no assignment is ignored with a warning that does not show it."""
    config = load(one_model("env: [A, =b, C=1]"))

    assert config.models["m"].environment == {"C": "1"}
    assert [w.path for w in config.warnings] == ["models.m.env[0]", "models.m.env[1]"]


def test_comfyui_model_has_its_limits(load: Load) -> None:
    """The model comfyui_auto has room for 50 requests and ignores websockets."""
    config = load(
        "models: {comfyui_auto: {cmd: 's ${PORT}', concurrencyLimit: 7},"
        " b: {cmd: 's ${PORT}', concurrencyLimit: 70}}"
    )
    model = config.models["comfyui_auto"]

    assert (model.concurrency_limit, model.ignore_websockets) == (50, True)
    assert config.models["b"].concurrency_limit == 70


def test_comfyui_model_without_a_limit_gets_the_default(load: Load) -> None:
    """Without a limit of its own, comfyui_auto has none, as any other model."""
    model = load("models: {comfyui_auto: {cmd: 's ${PORT}'}}").models["comfyui_auto"]

    assert (model.concurrency_limit, model.ignore_websockets) == (None, True)


def test_aliases_are_unique(check: Check) -> None:
    """An alias used twice, in two models or in one, is an error that names the owner."""
    problems = check(
        "models:\n  a: {cmd: 's ${PORT}', aliases: [x, x]}\n  b: {cmd: 's ${PORT}', aliases: [x]}\n"
    )

    assert [p.path for p in problems] == ["models.a.aliases[1]", "models.b.aliases[0]"]
    assert all("duplicate alias 'x', already used by model 'a'" in p.message for p in problems)


def test_model_id_takes_precedence_over_alias(load: Load) -> None:
    """An alias that is another model's id is warned of, and the id wins."""
    config = load("models: {a: {cmd: 's ${PORT}', aliases: [b]}, b: {cmd: 's ${PORT}'}}")

    assert config.real_name("b") == "b"
    assert [w.path for w in config.warnings] == ["models.a.aliases[0]"]


def test_real_name_resolves_ids_and_aliases(load: Load) -> None:
    """A name is an id, an alias, or unknown."""
    config = load(one_model("aliases: [x]\nfilters: {setParamsByID: {'m:high': {}, x: {}, m: {}}}"))

    assert [config.real_name(n) for n in ("m", "x", "m:high", "y")] == ["m", "m", "m", None]
    assert config.models["m"].aliases == ("x", "m:high")


@pytest.mark.parametrize(
    ("key", "message"),
    [("b", "conflicts with an existing model ID"), ("y", "duplicate alias 'y'")],
)
def test_automatic_alias_that_conflicts_is_refused(check: Check, key: str, message: str) -> None:
    """A key of setParamsByID must not be a name of another model."""
    problems = check(
        "models:\n  b: {cmd: 's ${PORT}', aliases: [y]}\n"
        f"  a: {{cmd: 's ${{PORT}}', filters: {{setParamsByID: {{{key}: {{}}}}}}}}\n"
    )

    assert [p.path for p in problems] == [f"models.a.filters.setParamsByID.{key}"]
    assert message in problems[0].message


# ---- filters ---------------------------------------------------------------------------


def test_filters_are_trimmed_and_sorted(load: Load) -> None:
    """Lists are trimmed and sorted, ``model`` is protected, values stay as they are."""
    filters = (
        load(
            one_model(
                "filters:\n"
                "  stripParams: 'top_p, temperature ,, top_p, model'\n"
                "  setParams: {z: 1, model: x, a.b: [0.70, {c: ~}]}\n"
                "  setParamsByID: {m: {model: y, b: no}}\n"
            )
        )
        .models["m"]
        .filters
    )

    assert filters.strip == ("temperature", "top_p")
    assert list(filters.set_params.items()) == [("a.b", [0.7, {"c": None}]), ("z", 1)]
    assert filters.set_params_by_id == {"m": {"b": "no"}}
    assert type(filters.set_params["a.b"][0]) is float


@pytest.mark.parametrize(
    ("text", "strip"),
    [("strip_params: a", ("a",)), ("strip_params: a, stripParams: b", ("b",))],
)
def test_filters_old_spelling_counts_if_the_new_one_is_empty(
    load: Load, text: str, strip: tuple[str, ...]
) -> None:
    """The old spelling counts when the new one is empty."""
    assert load(one_model(f"filters: {{{text}}}")).models["m"].filters.strip == strip


@pytest.mark.parametrize(
    ("filters", "where", "message"),
    [
        ("setParams: {'m.#(a==1).b': 2}", "setParams", "without queries"),
        ("setParams: {'': 2}", "setParams", "got an empty text"),
        ("setParamsByID: {m: {'#(a==1)': 2}}", "setParamsByID.m", "without queries"),
        ("stripParams: 'a, m.#(a==1)'", "stripParams", "without queries"),
    ],
)
def test_filter_path_that_cannot_work_is_refused(
    check: Check, filters: str, where: str, message: str
) -> None:
    """A query would set nothing in any request, and an empty path fails in llama-swap."""
    problems = check(one_model(f"filters: {{{filters}}}"))

    assert [problem.path for problem in problems] == [f"models.m.filters.{where}"]
    assert message in problems[0].message


# ---- suggestions
_OPTION = "is ignored; the address to listen on is an option of the command: serve --listen"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("modles", "did you mean 'models'?"),
        ("Models", "did you mean 'models'?"),
        ("log_level", "did you mean 'logLevel'?"),
        ("macro", "did you mean 'macros'?"),
        ("ttl", "did you mean 'globalTTL'?"),
        ("global_ttl", "did you mean 'globalTTL'?"),
        ("readyTimeout", "did you mean 'startTimeout'?"),
        ("host", _OPTION),
        ("port", _OPTION),
        ("listen", _OPTION),
        ("services", "is this a compose file?"),
        ("cmd", "it belongs in a model: models.NAME.cmd"),
        ("aliases", "it belongs in a model: models.NAME.aliases"),
        ("beforeStop", "it belongs in a model (models.NAME.beforeStop), or below 'hooks'"),
    ],
)
def test_unknown_top_level_key_names_what_was_meant(check: Check, key: str, message: str) -> None:
    """Keys of other programs, other spellings and other places are recognized."""
    (problem,) = check(f"{key}: {{}}\npeers: {{p: {{proxy: 'http://h', models: [m]}}}}")

    assert (problem.path, problem.severity) == (key, "warning")
    assert message in problem.message


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("health_check_timeout", "is ignored; did you mean 'startTimeout'?"),
        ("healthCheckTimeout", "has no effect in one model, as in llama-swap; did you mean 'start"),
        ("check_endpoint", "did you mean 'checkEndpoint'?"),
        ("aliass", "did you mean 'aliases'?"),
        ("command", "did you mean 'cmd'?"),
        ("url", "did you mean 'proxy'?"),
        ("environment", "did you mean 'env'?"),
        ("globalTTL", "did you mean 'ttl'?"),
        ("port", "the address of the model belongs in cmd and proxy"),
        ("logLevel", "it belongs at the top level"),
        ("hooks", "are keys of the model itself"),
    ],
)
def test_unknown_model_key_names_what_was_meant(check: Check, key: str, message: str) -> None:
    """Keys of a model are recognized likewise, and one without effect is named."""
    (problem,) = check(f"models:\n  m:\n    cmd: s ${{PORT}}\n    {key}: 20\n")

    assert (problem.path, problem.line, problem.severity) == (f"models.m.{key}", 4, "warning")
    assert message in problem.message


@pytest.mark.parametrize("key", ["hosts", "version", "networks", "zzz", "x" * 100, "???"])
def test_unknown_key_without_a_similar_one_gets_no_suggestion(check: Check, key: str) -> None:
    """A wrong suggestion is worse than none."""
    (problem,) = check(f"'{key}': 1\npeers: {{p: {{proxy: 'http://h', models: [m]}}}}")

    assert problem.message == f"unknown key {key!r} is ignored"
