"""Specification 1.6: command strings become argv without a shell."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.configs import Check, Load
from tools.hooks import argv_of
from tools.rows import row

from swapchart.adapters.config import split_command
from swapchart.adapters.config.command_line import UnterminatedQuoteError


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("a b", ("a", "b")),
        ("  a \t b \n c ", ("a", "b", "c")),
        ("", ()),
        ("# only\n  # comments", ()),
        ("a '' b", ("a", "", "b")),
        ('a "" b', ("a", "", "b")),
        ("a'b'\"c\"d", ("abcd",)),
        (r"a 'b\n$c'", ("a", r"b\n$c")),
        (r'a "\$ \` \" \\ \n"', ("a", r"$ ` \" \ \n".replace(r"\"", '"'))),
        (r"a\ b \'c", ("a b", "'c")),
        ("a \\\n  b", ("a", "b")),
        ("a \\   \nb", ("a", "b")),
        ("a\\\nb", ("a", "b")),
        ("a\n# comment\nb", ("a", "b")),
        ("a\n   # comment\nb", ("a", "b")),
        ("a # not a comment", ("a", "#", "not", "a", "comment")),
        ("a 'x\n# gone\ny'", ("a", "x\ny")),
        ("a 'x\ny'", ("a", "x\ny")),
        ("$HOME ~ * $(id) `id` ; |", ("$HOME", "~", "*", "$(id)", "`id`", ";", "|")),
        ('-d \'{"a": "b"}\'', ("-d", '{"a": "b"}')),
        ("a\xa0b", ("a\xa0b",)),
    ],
)
def test_split_follows_posix_and_llama_swap(text: str, argv: tuple[str, ...]) -> None:
    """Quotes, escapes, comments and continued lines mean what POSIX and llama-swap say."""
    assert split_command(text) == argv


@pytest.mark.parametrize(
    ("text", "line"), [("a 'b", 0), ('a\n"b', 1), ('# c\n\na "b\\"', 2), ("a 'b' \"", 0)]
)
def test_unterminated_quote_is_refused(text: str, line: int) -> None:
    """A quote that is never closed is an error that knows its line, comments counted."""
    with pytest.raises(UnterminatedQuoteError) as caught:
        split_command(text)

    assert caught.value.line == line


@settings(deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\r\0", codec="utf-8")), min_size=1))
def test_split_keeps_quoted_arguments(argv: list[str]) -> None:
    """Whatever the arguments are, quoting and splitting gives them back."""
    lines = any(
        line.strip().startswith("#") or line.rstrip().endswith("\\")
        for line in shlex.join(argv).split("\n")
    )
    if not lines:  # comments and continued lines are read inside quotes too, as llama-swap does
        assert split_command(shlex.join(argv)) == tuple(argv)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="ab'\"\\ \t$x", max_size=20))
def test_split_agrees_with_a_real_shell(text: str) -> None:
    """For quotes, escapes and white space the result is that of /bin/sh."""
    text = text.replace("$", "")  # a shell would expand it
    try:
        argv = split_command(text)
    except UnterminatedQuoteError:
        return
    if text.strip().endswith("\\"):
        return  # in a shell the line would go on
    script = f'for a in {text}\ndo printf "%s\\0" "$a"; done' if argv else ":"
    shown = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True)

    assert tuple(shown.stdout.decode().split("\0")[:-1]) == argv


@settings(deadline=None)
@given(st.text(max_size=200))
def test_split_of_any_text_succeeds_or_is_refused(text: str) -> None:
    """No text breaks the splitter, and no argument it makes is a comment line."""
    try:
        argv = split_command(text)
    except UnterminatedQuoteError:
        return

    assert all(isinstance(part, str) for part in argv)


def test_comments_are_removed_before_macros_expand(load: Load) -> None:
    """A macro in a comment neither expands into the command nor needs to exist."""
    config = load(
        """
        macros: {two: "x\\ny"}
        models:
          m:
            proxy: http://127.0.0.1:1
            cmd: |
              # ${nowhere} ${two}
              serve
              # --port ${PORT}
            cmdStop: |
              # ${nowhere}
              halt ${PID}
            beforeStop: |
              # ${nowhere}
              save
        """
    )
    model = config.models["m"]

    assert (model.argv, model.stop_argv, model.port) == (("serve",), ("halt", "${PID}"), None)
    assert argv_of(model.hooks["beforeStop"][0]) == ("save",)


@row("B09")
def test_unterminated_quote_is_reported_with_its_line(check: Check) -> None:
    """An unterminated quote in a block is found in its own line, at load."""
    text = "models:\n  m:\n    cmd: |\n      # note\n      serve ${PORT}\n      --name 'x\n"
    (problem,) = check(text)

    assert (problem.path, problem.line, problem.severity) == ("models.m.cmd", 6, "error")
    assert "unterminated quote" in problem.message


@pytest.mark.parametrize("key", ["cmdStop", "afterHealthy", "beforeStop"])
def test_unterminated_quote_in_other_commands(check: Check, key: str) -> None:
    """Commands that run later are checked at load as well."""
    (problem,) = check(f"models:\n  m:\n    cmd: s ${{PORT}}\n    {key}: say it's\n")

    assert (problem.line, problem.column) == (4, 7 + len(key))
    assert problem.path.startswith(f"models.m.{key}")


@pytest.mark.parametrize(
    "cmd", ["''", "'  '", '"# nothing"', "[]", "['']", "{a: 1}", "[[a]]", "[a, ~]", "~"]
)
def test_empty_or_odd_command_is_refused(check: Check, cmd: str) -> None:
    """What could never be started is an error at load."""
    (problem,) = check(f"models: {{m: {{proxy: 'http://127.0.0.1:1', cmd: {cmd}}}}}")

    assert (problem.path, problem.severity) == ("models.m.cmd", "error")


def test_command_as_list_is_not_split(load: Load) -> None:
    """A command given as list is argv as it stands: one item stays one argument."""
    model = load(
        """
        macros: {odd: "a b; $(id) 'c'"}
        models: {m: {cmd: [serve, "${odd}", "# x", 7, "--port", "${PORT}"]}}
        """.replace('"${odd}"', "'${odd}'")
    ).models["m"]

    assert model.argv == ("serve", "a b; $(id) 'c'", "# x", "7", "--port", "5800")
    assert split_command(model.cmd) == model.argv
