"""`config keys`: the reference of all keys, of one, and guesses."""

from __future__ import annotations

import json
import re

import pytest
from tools.key_reference import PAGE

from swapchart.adapters.cli import main
from swapchart.adapters.cli.keys import all_keys, find
from swapchart.adapters.config.schema.reference import tables, title

PLACES = [title((*path, key)) for each in tables() for path in each.paths for key in each.keys]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["config", "keys", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_keys_prints_every_key_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each row of docs/keys.md, with the same meaning."""
    code, out, _ = run(capsys)
    rows = re.findall(
        r"^\| `(\S+)` \| .* \| (.*) \| `.*` \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    printed = [re.split(r" {2,}", line) for line in out.splitlines()[1:]]

    assert code == 0
    assert [(name.rpartition(".")[2], line[-1]) for name, *line in printed] == [
        (name, meaning.replace("\\|", "|")) for name, meaning in rows
    ]


def test_keys_finds_each_key_at_each_of_its_places(capsys: pytest.CaptureFixture[str]) -> None:
    """It has the path that was asked for; the JSON output has all of them."""
    every = all_keys()
    for path in PLACES:
        assert path.removeprefix("models.*.") in {
            key.name.removeprefix("models.*.") for key in find(every, path)
        }
    found = [
        place
        for row in json.loads(run(capsys, "--json")[1])
        for place in (row["key"], *row["also"])
    ]
    assert sorted(found) == sorted(PLACES)


def test_keys_of_one_key_says_type_default_and_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "models.qwen.ttl") == (
        0,
        "models.*.ttl: Idle seconds until the model is stopped; 0 is never, -1 is `globalTTL`.\n"
        "  type: integer >= -1\n  default: -1\n  example: ttl: 600\n",
        "",
    )
    assert run(capsys, "ttl") == run(capsys, "models.*.ttl")
    (row,) = json.loads(run(capsys, "ttl", "--json")[1])
    assert (row["key"], row["default"], row["required"]) == ("models.*.ttl", -1, False)


def test_keys_of_a_mapping_lists_the_keys_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "models.*.drain")[1]

    assert re.search(r"^    models\.\*\.drain\.timeout +number > 0 +30 +Seconds", out, re.MULTILINE)
    assert "policy" in out
    assert "    models.*.ttl " in run(capsys, "models")[1]
    assert out.count("\n\n") == 0


def test_keys_of_a_name_at_several_places_prints_all(capsys: pytest.CaptureFixture[str]) -> None:
    """A key of the top level and of a model; and one that is only further below."""
    out = run(capsys, "stallTimeout")[1]
    assert re.findall(r"^(\S+): ", out, re.MULTILINE) == ["stallTimeout", "models.*.stallTimeout"]
    out = run(capsys, "timeout")[1]
    assert {"drain.timeout", "queue.timeout"} <= set(re.findall(r"^(\S+): ", out, re.MULTILINE))


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("stalTimeout", "did you mean 'stallTimeout'?"),
        ("TTL", "did you mean 'ttl'?"),
        ("models.qwen.tll", "did you mean 'models.*.ttl'?"),
        ("drain.timeot", "did you mean 'drain.timeout'?"),
        ("zzzz", "`swapchart config keys` lists all"),
        ("", "`swapchart config keys` lists all"),
        ("a..b[", "`swapchart config keys` lists all"),
    ],
)
def test_keys_unknown_key_is_one_line_with_a_guess(
    given: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, given) == (
        2, "", f"swapchart: config keys: unknown key {given!r}; {hint}\n",
    )  # fmt: skip
