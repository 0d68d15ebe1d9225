"""Our own keys: hooks, supervision, sleep, and what the top level says for all models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tools.configs import Check, Load, one_model
from tools.hooks import argv_of, call_of, runs

from swapchart.adapters.config import (
    ApiKeyEntry,
    Drain,
    Kv,
    Liveness,
    Queue,
    Restart,
    config_schema,
)
from swapchart.adapters.config.schema.section import SecretStr
from swapchart.runtime import Hook

POINTS = (
    *("beforeStart", "afterStart", "afterHealthy", "afterReady", "beforeStop", "afterStop"),
    "onFailure",
)


# ---- hooks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("say 'a b' ${PORT}", [runs("say", "a b", "5800")]),
        ("[say a, say b]", [runs("say", "a"), runs("say", "b")]),
        ("{run: say a}", [runs("say", "a")]),
        ("[{run: [say, a b]}]", [runs("say", "a b")]),
        (
            "{run: 'a | b $${X}', shell: true}",
            [runs("/bin/sh", "-c", "a | b ${X}")],
        ),
        (
            "{run: a, timeout: 1.5, retries: 2, delay: 0, onError: fail}",
            [runs("a", timeout_s=1.5, retries=2, delay_s=0, on_error="fail")],
        ),
        ("{run: a, timeout: ~, retries: null}", [runs("a")]),
        ("''", []),
        ("[]", []),
        ("~", []),
    ],
)
def test_hook_accepts_text_action_or_list(
    load: Load, point: str, hook: str, expected: list[Hook]
) -> None:
    """Every point takes a text, one action or a list, and no shell is used unasked."""
    hooks = load(one_model(f"{point}: {hook}")).models["m"].hooks

    assert list(hooks.get(point, ())) == expected
    assert list(hooks) == ([point] if expected else [])


def test_hook_with_http_becomes_a_call(load: Load) -> None:
    """An HTTP action becomes a call: JSON body with its type, headers, expected status."""
    hooks = (
        load(
            one_model(
                "afterHealthy:\n"
                "  - http: {url: 'http://127.0.0.1:${PORT}/slots/0', method: put, expect: 201,\n"
                "      json: {n: '${PORT}', x: [1.50, ~, é]}, headers: {X-A: 7}}\n"
                "  - http: {url: 'https://h/', body: text, expect: [200, 404],\n"
                "      headers: {content-type: text/plain}}\n"
                "  - http: {url: 'https://h/', json: {}, headers: {content-type: a/b}}\n"
            )
        )
        .models["m"]
        .hooks["afterHealthy"]
    )
    first, second, third = map(call_of, hooks)

    assert (first.method, first.url) == ("PUT", "http://127.0.0.1:5800/slots/0")
    assert json.loads(first.body or b"") == {"n": 5800, "x": [1.5, None, "é"]}
    assert first.headers == {"X-A": "7", "Content-Type": "application/json"}
    assert first.expect == {201}
    assert (second.method, second.body) == ("POST", b"text")
    assert second.expect == {200, 404}
    assert third.headers == {"content-type": "a/b"}


@pytest.mark.parametrize(
    ("hook", "path", "message"),
    [
        ("{}", "", "expected either run or http, found neither"),
        ("{run: a, http: {url: 'http://h'}}", "", "expected either run or http, found both"),
        ("{run: [a], shell: true}", "", "expected run to be a text, since shell is true"),
        ("7", "", "expected a mapping, found 7"),
        ("[7]", "[0]", "expected a mapping, found 7"),
        ("[[a]]", "[0]", "expected a mapping, found a list"),
        ("{run: a, timeout: 0}", ".timeout", "expected > 0, found 0"),
        ("{run: a, timeout: soon}", ".timeout", "expected a number, found 'soon'"),
        ("{run: a, retries: -1}", ".retries", "expected >= 0, found -1"),
        ("{run: a, delay: -1}", ".delay", "expected >= 0, found -1"),
        ("{run: a, onError: stop}", ".onError", "expected 'warn', 'ignore' or 'fail', found 'st"),
        ("{run: '# x'}", ".run", "empty command"),
        ("{run: {a: b}}", ".run", "expected a command as text, or as a list of texts"),
        ('[{run: a}, {run: "x \'y"}]', "[1].run", "unterminated quote"),
        ("{http: {}}", ".http.url", "url is required"),
        ("{http: {url: /slots}}", ".http.url", "expected a URL such as"),
        (
            "{http: {url: 'http://h', method: 'A B'}}",
            ".http.method",
            "expected a text that matches",
        ),
        ("{http: {url: 'http://h', expect: 99}}", ".http.expect", "expected an HTTP status"),
        ("{http: {url: 'http://h', expect: [x]}}", ".http.expect", "expected an HTTP status"),
        (
            "{http: {url: 'http://h', json: 1, body: a}}",
            ".http",
            "expected json or body, found both",
        ),
        ("{http: {url: 'http://h', json: .inf}}", ".http.json", "expected what JSON can say"),
        (
            '{http: {url: "http://h", headers: {a: "b\\nc"}}}',
            ".http.headers",
            "without line breaks",
        ),
    ],
)
def test_hook_that_is_invalid_is_refused_with_its_position(
    check: Check, hook: str, path: str, message: str
) -> None:
    """What is wrong with an action is told at its place."""
    (problem,) = check(one_model(f"afterReady: {hook}"))

    assert (problem.path, problem.line) == (f"models.m.afterReady{path}", 4)
    assert message in problem.message


def test_hook_with_unknown_key_is_warned_of(load: Load) -> None:
    """An unknown key of an action is warned of, with what may have been meant."""
    (warning,) = load(one_model("afterReady: [{run: a, onErr: fail}]")).warnings

    assert warning.path == "models.m.afterReady[0].onErr"
    assert "did you mean 'onError'?" in warning.message


def test_hook_without_timeout_has_the_default(load: Load) -> None:
    """``hookTimeout`` is the timeout of actions that have none."""
    hooks = (
        load("hookTimeout: 5\n" + one_model("afterReady: [a, {run: b, timeout: 7}]"))
        .models["m"]
        .hooks
    )

    assert [action.timeout_s for action in hooks["afterReady"]] == [5, 7]


def test_hook_comments_are_removed_and_shell_is_explicit(load: Load) -> None:
    """Comment lines go from commands, but not from what a shell will read."""
    hooks = (
        load(
            one_model(
                "afterReady:\n  - run: |\n      # ${nowhere}\n      a\n"
                "  - shell: true\n    run: |\n      # kept\n      b\n  - |\n    # gone\n    c\n"
            )
        )
        .models["m"]
        .hooks
    )

    assert [argv_of(hook) for hook in hooks["afterReady"]] == [
        ("a",),
        ("/bin/sh", "-c", "# kept\nb\n"),
        ("c",),
    ]


def test_hook_action_text_shows_no_argument_and_no_credentials(load: Load) -> None:
    """Logs name an action by its program, or by method and URL without user and query."""
    hooks = (
        load(
            one_model(
                "afterReady: [say secret, {run: 'a secret', shell: true},"
                " {http: {url: 'http://u:secret@h:1/slots?secret'}}]"
            )
        )
        .models["m"]
        .hooks
    )

    assert [str(hook.action) for hook in hooks["afterReady"]] == [
        "run say", "run /bin/sh", "POST http://h:1/slots",
    ]  # fmt: skip


def test_hooks_of_the_top_level_are_defaults(load: Load) -> None:
    """A hook beside on_startup is every model's, in the model's own macros, unless it has one."""
    config = load(
        "macros: {who: world}\n"
        "hooks:\n  on_startup: {preload: [a]}\n"
        "  afterHealthy: say ${who} ${MODEL_ID} ${PORT} ${PID}\n"
        "  beforeStop: [{run: 'save ${slot}'}]\n"
        "models:\n  a: {cmd: 's ${PORT}', macros: {who: mine, slot: 1}}\n"
        "  b: {cmd: 's ${PORT}', beforeStop: own, macros: {slot: 2}}\n"
        "  c: {cmd: 's ${PORT}', beforeStop: [], macros: {slot: 2}}\n"
    )
    models = config.models

    assert argv_of(models["a"].hooks["afterHealthy"][0]) == ("say", "mine", "a", "5800", "${PID}")
    assert argv_of(models["b"].hooks["afterHealthy"][0]) == ("say", "world", "b", "5801", "${PID}")
    assert [models[m].hooks.get("beforeStop", ()) for m in "abc"] == [
        (runs("save", "1"),),
        (runs("own"),),
        (),
    ]
    assert config.preload == ("a",)


def test_default_that_is_invalid_is_reported_once(check: Check) -> None:
    """A problem of a default is told where it stands, not once for each model."""
    models = ", ".join(f"m{n}: {{cmd: 's ${{PORT}}'}}" for n in range(20))
    (problem,) = check(f"restart: {{intensity: -1}}\nmodels: {{{models}}}")

    assert (problem.path, problem.line) == ("restart.intensity", 1)


def test_default_hook_with_unknown_macro_is_refused(check: Check) -> None:
    """A macro that no model knows is told at the default, once a place."""
    (problem,) = check("hooks:\n  afterHealthy: say ${nobody}\n" + one_model(""))

    assert (problem.path, problem.line, problem.column) == ("models.m.afterHealthy", 2, 21)


OWN_POINT = """
lifecycle:
  actions:
    prepare: {do: {effect: activity.start, activity: hooks, point: beforeLaunch}}
    polish: {do: [{effect: notify, name: x}, {effect: activity.start, activity: hooks, point: p2}]}
"""


def test_custom_hook_points_have_hooks(load: Load) -> None:
    """What `lifecycle` adds is filled by model or for all of them, with macros and comments."""
    config = load(
        OWN_POINT + "hookPoints: {beforeLaunch: 'say ${MODEL_ID} ${PORT} ${PID}', p2: all}\n"
        "models:\n  a: {cmd: 's ${PORT}', hookPoints: {p2: [own, {run: x, retries: 2}]}}\n"
        "  b:\n    cmd: s ${PORT}\n    hookPoints:\n"
        "      beforeLaunch: |\n        # none\n        go\n"
        "  c: {cmd: 's ${PORT}', hookPoints: {beforeLaunch: []}}\n"
    )
    a, b, c = (config.models[name].hooks for name in "abc")

    assert argv_of(a["beforeLaunch"][0]) == ("say", "a", "5800", "${PID}")
    assert [(argv_of(hook), hook.retries) for hook in a["p2"]] == [(("own",), 0), (("x",), 2)]
    assert argv_of(b["beforeLaunch"][0]) == ("go",)
    assert [argv_of(hook) for hook in b["p2"]] == [("all",)]
    assert list(c) == ["p2"]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (
            OWN_POINT + one_model("hookPoints: {beforeLunch: x}"),
            "models.m.hookPoints.beforeLunch",
            "expected a point that an action of lifecycle runs; it has: beforeLaunch, p2",
        ),
        (
            one_model("hookPoints: {beforeStart: x}"),
            "models.m.hookPoints.beforeStart",
            "expected a point that an action of lifecycle runs; it has none",
        ),
        (
            OWN_POINT + one_model("hookPoints: {p2: {run: ''}}"),
            "models.m.hookPoints.p2.run",
            "empty command",
        ),
        (one_model("hookPoints: x"), "models.m.hookPoints", "expected a mapping, found 'x'"),
        (
            "lifecycle: {actions: [x]}\n" + one_model("hookPoints: {p2: x}"),
            "models.m.hookPoints.p2",
            "expected a point that an action of lifecycle runs; it has none",
        ),
    ],
)
def test_custom_hook_point_that_is_unknown_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """A hook at a point that the chart never runs is refused."""
    (problem,) = check(text)

    assert (problem.path, problem.severity) == (path, "error")
    assert message in problem.message


# ---- supervision ---------------------------------------------------------------------------

SHOWN = {
    "restart": ("policy", "intensity", "period"),
    "liveness": ("every", "path"),
    "drain": ("policy", "timeout"),
    "sleep": ("after_s", "stop_after_s", "enter", "wake"),
    "kv": ("mode", "dir", "max_bytes", "max_age", "min_tokens", "manage_args"),
}
NAP = runs("nap", "${PID}", on_error="fail")


@pytest.mark.parametrize(
    ("text", "attribute", "value"),
    [
        ("", "restart", Restart()),
        ("restart: {policy: permanent, intensity: 0}", "restart", ("permanent", 0, 60.0)),
        ("liveness: {every: 5, path: /live, request: {json: {a: 1}}}", "liveness", (5.0, "/live")),
        ("", "liveness", Liveness()),
        ("drain: {policy: wait}", "drain", ("wait", 30.0)),
        ("", "drain", Drain()),
        ("abandon: abort", "abandon", "abort"),
        ("startTimeout: 600", "start_timeout", 600),
        ("", "start_timeout", 120),
        ("stallTimeout: 30.5", "stall_timeout", 30.5),
        ("maxKeepAlive: 600", "max_keep_alive", 600),
        ("", "max_keep_alive", 0),
        ("probeTimeout: 7.5", "probe_timeout", 7.5),
        ("", "probe_timeout", 2),
        ("pinned: true", "pinned", True),
        ("prefetch: off", "prefetch", "off"),
        ("prefetch: auto", "prefetch", "auto"),
        ("", "prefetch", "auto"),
        ("passKeys: true", "pass_keys", True),
        ("", "pass_keys", False),
        (
            "settle: {run: 'free 8G ${PORT}', timeout: 3}",
            "settle",
            runs("free", "8G", "5800", timeout_s=3),
        ),
        ("settle: {run: [free, 8 G]}", "settle", runs("free", "8 G", timeout_s=10)),
        ("", "settle", None),
        ("sleep: {after: 60, enter: 'nap ${PID}', stopAfter: 600}", "sleep", (60, 600, (NAP,), ())),
        ("", "kv", Kv(mode="off")),
        ("kv: keep", "kv", Kv()),
        ("kv: off", "kv", Kv(mode="off")),
        ("kv: engine", "kv", Kv(mode="engine")),
        (
            "kv: {library: 1.5GiB, writeBudget: 512MiB}",
            "kv",
            Kv(library=3 << 29, write_budget=1 << 29),
        ),
        ("kv: {checkpoint: auto, maxBytes: 2GB}", "kv", Kv(checkpoint="auto", max_bytes=2 * 10**9)),
        ("kv: {dir: /x, maxBytes: 10, maxAge: 5}", "kv", ("keep", "/x", 10, 5.0, 256, False)),
    ],
)
def test_supervision_key_has_its_effect(load: Load, text: str, attribute: str, value: Any) -> None:
    """Each key has its effect, in a model and as default of all models alike."""
    for config in (
        load(one_model(text)),
        load(text.replace("${PORT}", "5800") + "\n" + one_model("")),
    ):
        found = getattr(config.models["m"], attribute)
        if isinstance(value, tuple) and attribute in SHOWN:
            found = tuple(getattr(found, name) for name in SHOWN[attribute])

        assert found == value


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("restart: {policy: always}", "restart.policy", "expected 'temporary', 'transient' or"),
        ("restart: {intensity: -1}", "restart.intensity", "expected >= 0, found -1"),
        ("restart: {period: 0}", "restart.period", "expected > 0, found 0"),
        ("restart: {backoff: 9, backoffMax: 1}", "restart", "expected backoffMax >= backoff"),
        ("liveness: {every: -1}", "liveness.every", "expected >= 0, found -1"),
        ("liveness: {firstByte: -1}", "liveness.firstByte", "expected >= 0, found -1"),
        ("liveness: {path: live}", "liveness.path", "expected a text that matches ^/"),
        ("liveness: {failures: 0}", "liveness.failures", "expected >= 1, found 0"),
        ("liveness: {request: {path: /x}}", "liveness.request.json", "json is required"),
        ("drain: {policy: drop}", "drain.policy", "expected 'cut', 'wait' or 'refuse'"),
        ("drain: {timeout: .nan}", "drain.timeout", "expected a finite number, found .nan"),
        ("abandon: maybe", "abandon", "expected 'finish' or 'abort', found 'maybe'"),
        ("startTimeout: 0", "startTimeout", "expected > 0, found 0"),
        ("stallTimeout: -1", "stallTimeout", "expected >= 0, found -1"),
        ("maxKeepAlive: -1", "maxKeepAlive", "expected >= 0, found -1"),
        ("probeTimeout: 0", "probeTimeout", "expected > 0, found 0"),
        ("settle: free", "settle", "expected a mapping, found 'free'"),
        ("settle: {timeout: 1}", "settle", "either run or gpuBelow, found neither"),
        ("pinned: 1", "pinned", "expected true or false, found 1"),
        ("prefetch: on", "prefetch", "expected 'auto' or 'off', found"),
        ("passKeys: key", "passKeys", "expected true or false, found 'key'"),
        ("kv: always", "kv", "expected 'keep', 'engine' or 'off', found 'always'"),
        ("kv: {maxBytes: 0}", "kv.maxBytes", "expected > 0, found 0"),
        ("kv: {library: much}", "kv.library", "expected a size such as 20GiB or 512MiB"),
        ("kv: {writeBudget: 0B}", "kv.writeBudget", "expected > 0, found"),
        ("kv: {checkpoint: often}", "kv.checkpoint", "expected 'auto' or 'off', found 'often'"),
        ("sleep: {after: x}", "sleep.after", "expected a number, found 'x'"),
        ("sleep: {wake: {run: ''}}", "sleep.wake.run", "empty command"),
    ],
)
def test_supervision_key_that_is_invalid_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """Each rule holds in a model and as default, and is told at the key."""
    (own,) = check(one_model(text))
    (default,) = check(text + "\n" + one_model(""))

    assert own.path == f"models.m.{path}"
    assert default.path.removeprefix("models.m.") == path
    assert (own.line, default.line) == (4, 1)
    assert message in own.message
    assert own.message == default.message


def test_defaults_are_joined_key_by_key(load: Load) -> None:
    """A model that sets one key of a mapping keeps the top level's other keys."""
    config = load(
        "restart: {intensity: 3, backoff: 2}\nkv: {dir: /kv, minTokens: 1}\n"
        "models:\n  a: {cmd: 's ${PORT}', restart: {intensity: 9}, kv: off}\n"
        "  b: {cmd: 's ${PORT}', restart: ~, kv: {minTokens: 7}}\n"
    )
    a, b = config.models["a"], config.models["b"]

    assert (a.restart.intensity, a.restart.backoff) == (9, 2)
    assert (b.restart.intensity, b.restart.backoff) == (3, 2)
    assert (a.kv.mode, a.kv.dir, b.kv.mode, b.kv.dir) == ("off", "/kv", "keep", "/kv")
    assert (a.kv.min_tokens, b.kv.min_tokens) == (1, 7)


def test_queue_has_defaults_and_can_be_set(load: Load) -> None:
    """The queue's bounds have defaults and can be set."""
    assert load("").queue == Queue(limit=512, timeout=300.0, max_wait=30.0, min_residency=0.0)
    assert load("queue: {limit: 1, maxWait: 0}").queue.max_wait == 0


# ---- access --------------------------------------------------------------------------------


def test_api_keys_are_texts_or_mappings(load: Load) -> None:
    """A text is a key for everything; a mapping says what its key is good for."""
    config = load(
        "apiKeys: [plain, 123, {key: '${env.K}', scopes: [infer], models: [a, 'qwen*']},"
        " {key: 7, scopes: [admin]}]",
        K="secret",
    )

    assert config.api_key_entries == (
        ApiKeyEntry(key=SecretStr("plain")),
        ApiKeyEntry(key=SecretStr("123")),
        ApiKeyEntry(
            key=SecretStr("secret"),
            scopes=frozenset({"infer"}),
            models=frozenset({"a", "qwen*"}),
        ),
        ApiKeyEntry(key=SecretStr("7"), scopes=frozenset({"admin"})),
    )
    assert [key.get_secret_value() for key in config.api_keys] == ["plain", "123", "secret", "7"]
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("entry", "path", "message"),
    [
        ("{scopes: [infer]}", "apiKeys[0].key", "key is required"),
        ("{key: ''}", "apiKeys[0].key", "empty api key found in apiKeys"),
        ("{key: 'a b'}", "apiKeys[0].key", "api key cannot contain spaces"),
        (
            "{key: k, scopes: [root]}",
            "apiKeys[0].scopes[0]",
            "expected 'infer', 'admin' or 'metrics'",
        ),
        ("{key: k, scopes: []}", "apiKeys[0].scopes", "expected a list that is not empty"),
        ("{key: k, models: []}", "apiKeys[0].models", "expected a list that is not empty"),
        ("{key: k, models: a}", "apiKeys[0].models", "expected a list"),
        ("[k]", "apiKeys[0]", "expected a key as text, or a mapping with key, scopes and models"),
        ("~", "apiKeys[0]", "expected a key as text, or a mapping with key, scopes and models"),
    ],
)
def test_api_keys_that_are_invalid_are_refused(
    check: Check, entry: str, path: str, message: str
) -> None:
    """What is wrong with a key is told at its place; the key itself never is."""
    (problem,) = check(f"apiKeys: [{entry}]")

    assert (problem.path, problem.message) == (path, message)


def test_access_lists_are_read(load: Load) -> None:
    """Origins, hosts and proxies that are trusted are lists at the top level."""
    config = load(
        "allowedOrigins: ['https://*.example.org']\nallowedHosts: [box.lan]\n"
        "trustedProxies: [10.0.0.1/8, '::1']"
    )

    assert config.allowed_origins == ("https://*.example.org",)
    assert config.allowed_hosts == ("box.lan",)
    assert config.trusted_proxies == ("10.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("allowedOrigins: ['']", "allowedOrigins[0]", "expected a text that is not empty"),
        ("allowedHosts: box", "allowedHosts", "expected a list"),
        (
            "trustedProxies: [10.0.0.0/8, here]",
            "trustedProxies[1]",
            "expected an address or a network such as 10.0.0.0/8, found 'here'",
        ),
    ],
)
def test_access_list_entry_that_never_matches_is_refused(
    check: Check, text: str, path: str, message: str
) -> None:
    """Nothing that could never match is taken in silence."""
    (problem,) = check(text)

    assert problem.path == path
    assert message in problem.message


def test_changes_to_the_chart_are_kept_as_written(load: Load, check: Check) -> None:
    """`lifecycle` is the machine's to check: any mapping passes."""
    text = "lifecycle: {states: {ready: {enter: [beep]}}, events: {beep: ~}}"
    (problem,) = check("lifecycle: [a]")

    assert load(text).lifecycle == {
        "states": {"ready": {"enter": ["beep"]}},
        "events": {"beep": None},
    }
    assert load("").lifecycle == {}
    assert (problem.path, problem.message) == ("lifecycle", "expected a mapping, found a list")


# ---- equality and schema -------------------------------------------------------------------


def test_equal_models_are_equal(load: Load) -> None:
    """Loading the same twice gives equal models; a change of the command does not."""
    text = one_model("afterHealthy: {http: {url: 'http://h', json: {a: 1}}}\nenv: [A=1]\nttl: 5")
    first = load(text).models["m"]

    assert first == load(text + "macros: {unused: 1}\n").models["m"]
    assert first != load(text.replace("cmd: s", "cmd: t")).models["m"]
    assert first != load(text.replace("a: 1}", "a: 2}")).models["m"]


def test_schema_describes_each_key() -> None:
    """The JSON Schema names all keys of the document and of a model, and closes them."""
    schema = config_schema()
    model = schema["$defs"]["ModelSection"]["properties"]

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert {"models", "macros", "apiKeys", "globalTTL", "hooks", "queue"} <= set(
        schema["properties"]
    )
    assert {*POINTS, "cmd", "ttl", "useModelName", "kv", "sleep", "macros"} <= set(model)
    needed = [choice["required"] for choice in schema["$defs"]["ModelSection"]["anyOf"]]
    assert needed == [["cmd"], ["container"], ["external"]]
    assert schema["additionalProperties"] is False
    assert {"type": "string"} in schema["$defs"]["HookSection"]["properties"]["run"]["anyOf"]
    hook = model["afterHealthy"]["anyOf"]
    assert {"type": "string"} in hook
    assert json.loads(json.dumps(schema)) == schema
