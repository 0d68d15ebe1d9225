"""Section ``ollama``: its address, and the key that its clients stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swapchart.adapters.app.proxy_setup import proxy_options
from swapchart.adapters.config import Config, Problem
from swapchart.adapters.proxy.access.api_keys import ApiKeys
from swapchart.adapters.proxy.access.guest_key import with_guest_key
from swapchart.adapters.system.addresses import is_loopback, parse_address

KEYS = "apiKeys: [{name: home, key: sk-home, scopes: [infer], models: [a]}, sk-all]\n"


def test_ollama_listener_is_off_unless_it_is_configured(load: Callable[..., Config]) -> None:
    assert load("").ollama is None
    found = load("ollama: {}").ollama
    assert found is not None
    assert found.listen == "127.0.0.1:11434"
    other = load(KEYS + "ollama: {listen: '0.0.0.0:1234', key: home}").ollama
    assert other is not None
    assert (other.listen, other.key) == ("0.0.0.0:1234", "home")


@pytest.mark.parametrize("address", ["0.0.0.0:11434", ":11434", "[::]:1", "192.168.1.2:11434"])
def test_ollama_listener_without_keys_is_for_this_machine_only(
    check: Callable[..., list[Problem]], address: str
) -> None:
    """The error says which address, why, and what to do."""
    problems = check(f"macros: {{}}\nollama: {{listen: '{address}'}}")
    (problem,) = [each for each in problems if each.severity == "error"]

    assert (problem.path, problem.line) == ("ollama.listen", 2)
    assert f"{address} can be reached from other machines and no apiKeys" in problem.message
    assert "listen on 127.0.0.1" in problem.message


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("ollama: {listen: '11434'}", "ollama.listen", "expected HOST:PORT"),
        ("ollama: {listen: '127.0.0.1:99999'}", "ollama.listen", "expected HOST:PORT"),
        ("ollama: {key: home}", "ollama.key", "(none has a name), got 'home'"),
        (KEYS + "ollama: {key: guest}", "ollama.key", "(home), got 'guest'"),
        (
            "apiKeys: [{name: a, key: x}, {name: a, key: y}]",
            "apiKeys[1].name", "an API key before is called 'a' too",
        ),
    ],
)  # fmt: skip
def test_ollama_settings_that_cannot_work_are_errors(
    check: Callable[..., list[Problem]], text: str, path: str, message: str
) -> None:
    (problem,) = [each for each in check(text) if each.severity == "error"]

    assert problem.path == path
    assert message in problem.message


def test_guest_key_has_the_rights_of_the_named_one_and_is_made_up(
    load: Callable[..., Config],
) -> None:
    """Neither the key itself nor its hash is used for clients that send none."""
    config = load(KEYS + "ollama: {key: home}")
    options = proxy_options(config)
    keys = ApiKeys(options.keys)
    guest, named = keys.access(options.ollama_key.encode()), keys.access(b"sk-home")

    assert guest == named
    assert guest is not None
    assert named is not None
    assert guest.client == named.client == "key 1"
    assert options.ollama_key not in ("", proxy_options(config).ollama_key)
    assert options.ollama_key not in repr(options)
    assert proxy_options(load(KEYS + "ollama: {}")).ollama_key == ""


def test_guest_key_replaces_credentials_that_are_not_valid(load: Callable[..., Config]) -> None:
    """A valid key is left alone, and a browser's checks stay, as the guest's is like a password."""
    options = proxy_options(load(KEYS + "ollama: {key: home}"))
    keys, other = ApiKeys(options.keys), (b"x-mine", b"1")
    for credential in (
        (b"authorization", b"Bearer ollama"), (b"authorization", b"nonsense"), (b"x-api-key", b"x"),
    ):  # fmt: skip
        first, second = with_guest_key([other, credential], keys, options.ollama_key)
        assert first == other
        access, is_added = keys.first_valid([second[1]], [])
        assert access == keys.access(b"sk-home")
        assert not is_added
    for credential in ((b"authorization", b"Bearer sk-all"), (b"x-api-key", b"sk-home")):
        given = [other, credential]
        assert with_guest_key(given, keys, options.ollama_key) == given
    assert with_guest_key([other], keys, "") == [other]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)), (":80", ("0.0.0.0", 80)), ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)  # fmt: skip
def test_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected
    assert is_loopback(expected[0]) is (expected[0] != "0.0.0.0")


@pytest.mark.parametrize("text", ["", "80", "a", "a:", "a:b", "a:-1", "a:65536", "a:1e3", "a:²"])
def test_address_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="expected HOST:PORT"):
        parse_address(text)
