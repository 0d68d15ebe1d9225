"""Keys about access: scopes of keys, names in allowedHosts and allowedOrigins, dropEnv."""

from __future__ import annotations

import pytest
from tools.configs import Check, Load

from swapchart.adapters.proxy.access.origins import HostCheck, OriginCheck


@pytest.mark.parametrize(
    ("entry", "scopes"),
    [
        ("k", {"infer", "admin"}),
        ("{key: k}", {"infer", "admin"}),
        ("{key: k, models: [a]}", {"infer"}),
        ("{key: k, models: [a], scopes: [infer]}", {"infer"}),
        ("{key: k, models: [a], scopes: [admin]}", {"admin"}),
        ("{key: k, models: [a], scopes: [infer, admin]}", {"infer", "admin"}),
    ],
)
def test_api_key_scopes_default_to_infer_for_some_models(
    load: Load, entry: str, scopes: set[str]
) -> None:
    """A key for some models that names no scopes may infer only."""
    (found,) = load(f"apiKeys: [{entry}]").api_key_entries

    assert found.scopes == scopes


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("proxy.lan", "proxy.lan:8080"), ("proxy.lan", "proxy.lan"), ("*.lan", "a.b.lan:1"),
        ("proxy.lan:8080", "Proxy.lan:8080"), ("PROXY.lan", "proxy.LAN"), ("*", "any.example"),
        ("box_1", "box_1"), ("10.0.0.5", "10.0.0.5:8080"), ("'[::1]:8080'", "[::1]:8080"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"), ("*:8080", "any.example:8080"),
        ("proxy.lan:443", "proxy.lan"), ("proxy.lan:443", "proxy.lan:443"),
        ("*.lan:80", "a.lan"), ("proxy.lan.", "proxy.lan"), ("proxy.lan", "proxy.lan.:80"),
        ("proxy.lan.:8080", "proxy.lan:8080"),
    ],
)  # fmt: skip
def test_allowed_hosts_accepted_match(load: Load, text: str, host: str) -> None:
    """Each form that the configuration takes is matched by a Host field."""
    config = load(f"allowedHosts: ['{text}']" if "'" not in text else f"allowedHosts: [{text}]")

    assert HostCheck(config.allowed_hosts).allows(host.encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://proxy.lan", "expected a name without a scheme, such as 'proxy.lan'"),
        ("proxy.lan/", "expected a name"),
        ("proxy.lan:", "expected a name"),
        ("proxy.lan:0", "expected a port from 1 to 65535"),
        ("proxy.lan:65536", "expected a port from 1 to 65535"),
        ("proxy.lan:http", "expected a name"),
        ("me@proxy.lan", "expected a name"),
        ("a b", "expected a name"),
        ("::1", "expected brackets around an IPv6 address: '[::1]'"),
        ("[10.0.0.1]x", "expected a name"),
        ("[1:2]", "expected an IPv6 address between the brackets"),
        ("bücher.example", "expected the ASCII form of the name, as clients send it: 'xn--bcher-"),
        ("", "expected a text that is not empty"),
        (".lan", "expected '*.lan' for the names that end with '.lan'"),
        ("proxy..lan", "expected a name with 1 to 63 characters between its dots"),
        ("a" * 64 + ".lan", "expected a name with 1 to 63 characters between its dots"),
        (".", "expected '*.'"),
        ("proxy.lan:08080", "expected the port without leading zeros: 8080"),
        ("proxy.lan:*", "expected a name, with or without a port"),
    ],
)
def test_allowed_hosts_that_can_never_match_are_refused(
    check: Check, text: str, message: str
) -> None:
    """A name that no Host field can match is an error with its place, and says what to write."""
    (problem,) = check(f"allowedHosts: [fine.lan, '{text}']")

    assert (problem.path, problem.line, problem.column) == ("allowedHosts[1]", 1, 26)
    assert message in problem.message
    assert problem.severity == "error"


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://chat.example.org/", "https://chat.example.org"),
        ("https://*.example.org", "https://a.b.example.org"),
        ("*.example.org", "http://a.example.org"),
        ("http://[fe80::1]:3000", "http://[fe80::1]:3000"),
        ("http://localhost:*", "http://localhost:99"),
        ("chrome-extension://*", "chrome-extension://abcd"),
        ("HTTPS://Chat.Example.org", "https://chat.example.org"),
        ("null", "null"),
        ("*", "moz-extension://abcd"),
        ("https://a.example:8443", "https://a.example:8443"),
        ("http://127.0.0.1:30*", "http://127.0.0.1:3000"),
        ("https://*:8443", "https://a.example:8443"),
        ("https://*", "https://a.example"),
        ("*://a.example", "https://a.example"),
    ],
)
def test_allowed_origins_accepted_match(load: Load, text: str, origin: str) -> None:
    """Each form that the configuration takes is matched by an Origin field."""
    config = load(f"allowedOrigins: ['{text}']")

    assert OriginCheck(config.allowed_origins).allows(origin.encode(), b"127.0.0.1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chat.example.org", "expected scheme and host"),
        ("https://chat.example.org/app", "expected scheme and host"),
        ("https://me@chat.example.org", "expected scheme and host"),
        ("https://chat.example.org?x", "expected scheme and host"),
        ("https:", "expected scheme and host"),
        ("https://", "expected scheme and host"),
        ("a b", "expected scheme and host"),
        ("https://chat.example.org:443", "browsers leave out the port 443 of https"),
        ("http://box.lan:80", "expected http://box.lan: browsers leave out the port 80"),
        ("http://box.lan:70000", "expected a port from 1 to 65535"),
        ("https://bücher.example", "expected the ASCII form"),
        ("https://.example.org", "expected '*.example.org'"),
        ("https://chat..example.org", "between its dots"),
        ("https://chat.example.org:", "expected a host, with or without a port"),
        ("https://chat.example.org:web", "expected a host, with or without a port"),
        ("https://chat.example.org:08443", "expected the port without leading zeros: 8443"),
        ("https://chat.example.org,https://b.example", "expected"),
        ("http://[::1", "expected a host"),
        ("http://[1:2]", "expected an IPv6 address between the brackets"),
    ],
)
def test_allowed_origins_that_can_never_match_are_refused(
    check: Check, text: str, message: str
) -> None:
    """An origin that no browser sends is an error, and says what to write."""
    (problem,) = check(f"allowedOrigins: ['{text}']")

    assert problem.path == "allowedOrigins[0]"
    assert message in problem.message
    assert problem.severity == "error"


def test_drop_env_includes_the_variables_of_api_keys(load: Load) -> None:
    """Variables that are read into apiKeys, by macros too, are dropped, as are named ones."""
    text = (
        "macros: {inner: '${env.BY_MACRO}', outer: 'x${inner}'}\n"
        "apiKeys: ['${env.PLAIN}', {key: '${outer}-${env.MIXED}'}, fixed]\n"
        "dropEnv: [NAMED]\n"
        "models: {a: {cmd: 's ${PORT} ${env.FOR_MODEL}'}}\n"
    )
    names = ("PLAIN", "BY_MACRO", "MIXED", "FOR_MODEL")
    config = load(text, **{name: name.lower() for name in names})

    assert config.drop_env == {"PLAIN", "BY_MACRO", "MIXED", "NAMED", "SWAPCHART_API_KEY"}
    assert load("apiKeys: [fixed]").drop_env == {"SWAPCHART_API_KEY"}  # of commands


@pytest.mark.parametrize("text", ["A=b", ""])
def test_drop_env_refuses_invalid_names(check: Check, text: str) -> None:
    """A name of a variable holds no value."""
    (problem,) = check(f"dropEnv: ['{text}']")

    assert problem.path == "dropEnv[0]"
    assert problem.severity == "error"
