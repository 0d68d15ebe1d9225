"""Specification 1.10 to 1.12: peers, profiles and selectors."""

from __future__ import annotations

import pytest
from tools.configs import Check, Load, found

BASE = (
    "models:\n"
    "  a: {cmd: 's ${PORT}', aliases: [alias]}\n"
    "  b: {cmd: 's ${PORT}'}\n"
    "  c: {cmd: 's ${PORT}'}\n"
    "peers:\n"
    "  p: {proxy: 'http://h/api/', models: [x/1, both]}\n"
    "  q: {proxy: 'https://h', models: [both, a]}\n"
)


# ---- peers ----------------------------------------------------------------------------


def test_peer_has_filters_and_timeouts(load: Load) -> None:
    """A peer has filters and timeouts as a model has, but waits 60 s for headers."""
    config = load(
        BASE + "  r:\n    proxy: http://h\n    apiKey: k\n    models: [m]\n"
        "    filters: {stripParams: 'b,a', setParams: {z: {y: 1}}}\n    timeouts: {connect: 5}\n"
    )
    peer, other = config.peers["r"], config.peers["p"]
    assert peer.api_key is not None

    assert (peer.api_key.get_secret_value(), other.api_key) == ("k", None)
    assert (peer.timeouts.connect, peer.timeouts.response_header) == (5, 60)
    assert (peer.filters.strip, peer.filters.set_params) == (("a", "b"), {"z": {"y": 1}})
    assert other.proxy == "http://h/api"


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("p/x/1", ("p", "x/1")),
        ("x/1", ("p", "x/1")),
        ("both", None),
        ("p/both", ("p", "both")),
        ("q/both", ("q", "both")),
        ("a", ("q", "a")),
        ("nobody", None),
        ("p/nobody", None),
    ],
)
def test_peer_model_names_are_full_or_short(
    load: Load, name: str, peer: tuple[str, str] | None
) -> None:
    """A remote model is found by its full name, or by its bare one if no other peer has it."""
    assert load(BASE).peer_names.get(name) == peer


@pytest.mark.parametrize(
    ("peer", "path", "message"),
    [
        ("{models: [m]}", "r.proxy", "proxy is required"),
        ("{proxy: '', models: [m]}", "r.proxy", "proxy is required"),
        ("{proxy: h, models: [m]}", "r.proxy", "invalid peer proxy URL: expected a URL"),
        ("{proxy: 'http://h'}", "r.models", "models is required"),
        ("{proxy: 'http://h', models: []}", "r.models", "peer models can not be empty"),
        ("{proxy: 'http://h', models: [m, m]}", "r.models[1]", '"r/m" is ambiguous'),
        ("{proxy: 'http://h', models: [m], useModelName: x}", "r.useModelName", "unknown key"),
        ("~", "r.proxy", "proxy is required"),
    ],
)
def test_peer_that_is_invalid_is_refused(check: Check, peer: str, path: str, message: str) -> None:
    """Each rule for peers is told at its place."""
    (path_found, message_found), *_ = found(check(f"peers:\n  r: {peer}\n"))

    assert (path_found, message in message_found) == (f"peers.{path}", True)


def test_peer_short_name_of_two_peers_is_ambiguous(check: Check) -> None:
    """Two peers whose names join to the same are refused."""
    ((path, message),) = found(
        check(
            "peers: {a: {proxy: 'http://h', models: [b/c]}, a/b: {proxy: 'http://h', models: [c]}}"
        )
    )

    assert (path, '"a/b/c" is ambiguous' in message) == ("peers.a/b.models[0]", True)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("models: {p/m: {cmd: 's ${PORT}'}}", "models.p/m"),
        ("models: {m: {cmd: 's ${PORT}', aliases: [p/m]}}", "models.m.aliases"),
        (
            "models: {m: {cmd: 's ${PORT}', filters: {setParamsByID: {p/m: {}}}}}",
            "models.m.aliases",
        ),
        ("selectors: {p/m: {strategy: pin, targets: [m]}}", "selectors.p/m"),
        ("profiles: {f: {pins: {p/m: m}}}", "profiles.f.pins.p/m"),
    ],
)
def test_peer_full_names_are_reserved(check: Check, text: str, path: str) -> None:
    """The full name of a remote model can mean nothing else."""
    ((where, message),) = found(check("peers: {p: {proxy: 'http://h', models: [m]}}\n" + text))

    assert "conflicts with fully qualified peer model name" in message
    assert path.startswith(where)


# ---- profiles -------------------------------------------------------------------------


def test_profile_pins_known_names(load: Load) -> None:
    """A pin leads to any known name, or nowhere."""
    config = load(
        BASE + "selectors: {s: {strategy: pin, targets: [a]}}\n"
        "profiles: {f: {description: d, pins: {1: a, 2: alias, 3: p/x/1, 4: x/1, 5: s, 6: '',"
        " 7: ~, a: b}}}\n"
    )

    assert config.profiles["f"].pins == {
        "1": "a",
        "2": "alias",
        "3": "p/x/1",
        "4": "x/1",
        "5": "s",
        "6": None,
        "7": None,
        "a": "b",
    }
    assert config.profiles["f"].description == "d"


@pytest.mark.parametrize(
    ("profile", "path", "message"),
    [
        ("f: [a, b]", "profiles.f", "the list form of profiles was removed"),
        ("'': {pins: {x: a}}", "profiles.", "expected a name for the profile"),
        ("f: {pins: {}}", "profiles.f.pins", "expected at least one pin"),
        ("f: {description: d}", "profiles.f.pins", "pins is required"),
        ("f: {pins: {' ': a}}", "profiles.f.pins. ", "expected a name for the pin"),
        ("f: {pins: {x: nobody}}", "profiles.f.pins.x", "unknown model 'nobody'"),
        ("f: {pins: {x: both}}", "profiles.f.pins.x", "unknown model 'both'"),
        ("f: {pins: {x: a, y: x}}", "profiles.f.pins.y", "unknown model 'x'"),
    ],
)
def test_profile_that_is_invalid_is_refused(
    check: Check, profile: str, path: str, message: str
) -> None:
    """Each rule for profiles is told at its place."""
    ((where, told),) = found(check(BASE + f"profiles:\n  {profile}\n"))

    assert (where, message in told) == (path, True)


# ---- selectors ------------------------------------------------------------------------


def test_selector_keeps_targets_and_listing(load: Load) -> None:
    """A selector keeps its targets as written, and has a place in listings."""
    config = load(
        BASE + "selectors:\n  s: {strategy: warm, targets: [alias, b], name: S, unlisted: true,\n"
        "      description: d, metadata: {k: 1}}\n"
        "  both: {strategy: pin, targets: [q/both, a, x/1]}\n"
    )
    selector = config.selectors["s"]

    assert (selector.strategy, selector.targets, selector.spillover) == ("warm", ("alias", "b"), 1)
    assert (selector.name, selector.description, selector.unlisted) == ("S", "d", True)
    assert selector.metadata == {"k": 1}


@pytest.mark.parametrize(
    ("selector", "path", "message"),
    [
        ("s: {targets: [a]}", "selectors.s.strategy", "strategy is required"),
        ("s: {strategy: best, targets: [a]}", "selectors.s.strategy", "expected 'warm', 'pin' or"),
        ("s: {strategy: pin}", "selectors.s.targets", "targets is required"),
        ("s: {strategy: pin, targets: []}", "selectors.s.targets", "expected a list that is not e"),
        ("s: {strategy: pin, targets: [nobody]}", "selectors.s.targets[0]", "unknown model 'nobo"),
        ("s: {strategy: pin, targets: [s]}", "selectors.s.targets[0]", "chaining is not supported"),
        ("s: {strategy: warm, targets: [x/1]}", "selectors.s.targets[0]", "must be local"),
        ("' ': {strategy: pin, targets: [a]}", "selectors. ", "expected a name for the selector"),
        ("a: {strategy: pin, targets: [b]}", "selectors.a", "is also a name of model 'a'"),
        ("alias: {strategy: pin, targets: [b]}", "selectors.alias", "is also a name of model 'a'"),
    ],
)
def test_selector_that_is_invalid_is_refused(
    check: Check, selector: str, path: str, message: str
) -> None:
    """Each rule for selectors is told at its place."""
    ((where, told),) = found(check(BASE + f"selectors:\n  {selector}\n"))

    assert (where, message in told) == (path, True)


SPILL = "selectors: {s: {strategy: spillover, targets: [%s]}}\n"


@pytest.mark.parametrize(
    ("targets", "routing", "message"),
    [
        ("a, p/x/1, q/both", "", None),
        ("a, b", "groups: {g: {swap: false, members: [b, c, a]}}", None),
        ("a, b", "", "one group with swap: false"),
        ("a, b", "groups: {g: {members: [a, b]}}", "one group with swap: false"),
        ("a, b", "groups: {g: {swap: false, members: [a]}}", "one group with swap: false"),
        ("a, b", "matrix: {sets: {x: a & c, y: '(b | c) & +x'}}", None),
        ("a, b", "matrix: {vars: {v: b}, sets: {x: v & alpha, y: 'a & v'}}", "unknown variable"),
        ("a, b", "matrix: {vars: {v: b}, sets: {y: 'a & v'}}", None),
        ("a, b", "matrix: {sets: {x: a | b, y: a & c, z: b & c}}", "a set of the matrix"),
        ("a, alias", "", "must be distinct"),
        ("x/1, p/x/1", "", "must be distinct"),
    ],
)
def test_spillover_targets_differ_and_fit_together(
    check: Check, targets: str, routing: str, message: str | None
) -> None:
    """Targets of spillover differ, and the local ones can run together."""
    told = [text for _, text in found(check(BASE + SPILL % targets + routing))]

    assert (len(told), message or "") == (0 if message is None else 1, message or "")
    assert all((message or "") in text for text in told)


def test_spillover_setting_is_at_least_one(load: Load, check: Check) -> None:
    """The setting is at least one, where it is used."""
    text = BASE + "selectors: {s: {strategy: %s, targets: [a], settings: {spillover: %d}}}"
    assert load(text % ("spillover", 4)).selectors["s"].spillover == 4
    assert load(text % ("pin", 0)).selectors["s"].spillover == 0

    ((path, message),) = found(check(text % ("spillover", 0)))
    assert (path, message) == ("selectors.s.settings.spillover", "expected spillover >= 1, found 0")


def test_spillover_over_invalid_or_many_targets_is_refused(check: Check) -> None:
    """A matrix that is wrong is told once, and a check that would be too large is left out."""
    wrong = found(check(BASE + SPILL % "a, b" + "matrix: {sets: {x: 'a &'}}"))
    names = [f"m{n}" for n in range(11)]
    models = "models:\n" + "".join(f"  {name}: {{cmd: 's ${{PORT}}'}}\n" for name in names)
    large = check(models + SPILL % ", ".join(names) + "matrix: {sets: {x: m1}}")

    assert [path for path, _ in wrong] == ["matrix.sets.x"]
    assert large == []


def test_names_that_could_not_be_read_are_not_reported_as_missing(check: Check) -> None:
    """When a model or peer cannot be read, what refers to its names is not blamed."""
    problems = check(
        "models: {a: {cmd: s, proxy: 'http://h', aliases: {}}, b: 7}\n"
        "selectors: {s: {strategy: pin, targets: [x, b]}}\nonIdle: x\n"
        "profiles: {f: {pins: {y: x}}}\n"
    )

    assert [p.path for p in problems] == ["models.a.aliases", "models.b"]
