"""Reading a configuration takes time in proportion to its size, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.growth import growth

from swapchart.adapters.config import ConfigProblems, check_config, load_config
from swapchart.adapters.config.document.nodes import Scalar
from swapchart.adapters.config.document.source import Source
from swapchart.adapters.config.macros import Scope
from swapchart.adapters.config.validate import is_secret

MODEL = "models:\n  m:\n    cmd: s ${PORT}\n"


def lines(text: str, count: int) -> str:
    return "".join(text.replace("#", str(i)) for i in range(count))


#: What grew with the square of its size, or more: number of parts -> document, and how many parts.
SHAPES: dict[str, tuple[Callable[[int], str], int]] = {
    "unknown macros in one block": (
        lambda n: f"{MODEL}    description: |\n{lines('      ${x#}' + chr(10), n)}",
        2500,
    ),
    "unset variables in one block": (
        lambda n: f"{MODEL}    description: |\n{lines('      ${env.x#}' + chr(10), n)}",
        2000,
    ),
    "unknown macros in one line": (
        lambda n: f"{MODEL}    name: '{lines('${x#}', n)}'\n",
        10_000,
    ),
    "macros for each model": (
        lambda n: (
            f"macros:\n{lines('  k#: v' + chr(10), n)}"
            + "models:\n"
            + lines("  m#: {cmd: 'a ${k#} ${PORT}'}\n", n)
        ),
        700,
    ),
    "digits of a duration": (lambda n: f"performance: {{every: '{'1' * n}'}}\n", 5000),
    "blanks behind a set": (lambda n: f"{MODEL}matrix: {{sets: {{a: 'm{' ' * n}'}}}}\n", 4000),
    "unknown keys": (lambda n: lines("unknownkey#: 1\n", n), 2000),
    "selectors over one large set": (
        lambda n: (
            f"{MODEL}  n: {{cmd: 's ${{PORT}}'}}\n"
            f"matrix: {{sets: {{a: 'm & n{' | m' * n}'}}}}\nselectors:\n"
            + lines("  s#: {strategy: spillover, targets: [m, n], settings: {spillover: 1}}\n", n)
        ),
        150,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_check_time_grows_with_the_size_of_the_file(tmp_path: Path, shape: str) -> None:
    """Four times as much takes some four times as long; with the square it would be sixteen."""
    make, count = SHAPES[shape]
    small, large = tmp_path / "small.yaml", tmp_path / "large.yaml"
    small.write_text(make(count))
    large.write_text(make(4 * count))
    ratio = growth(
        lambda: check_config([small], env={}),
        lambda: check_config([large], env={}),
        limit=9.0,
        floor_s=0.02,
    )

    assert ratio <= 9.0


BOUNDED = {
    "defaults in each model": (
        "hooks: {afterHealthy: [" + "a b," * 2000 + "]}\nmodels:\n"
        + lines("  m#: {cmd: 's ${PORT}'}\n", 3000),
        "defaults make more than 500000 values",
    ),
    "alias of a long text": (
        f"x-a: &a '{'é' * 100_000}'\n{MODEL}    metadata: {{x: [{'*a ,' * 5000}]}}\n",
        "characters, aliases written out",
    ),
    "key too long": (f"? {'k' * 10_000}\n: 1\n", "keys of at most 512 characters"),
    "alias of a key too long": (
        f"x-a: &a {'k' * 10_000}\nx-b: {{*a : 1}}\n",
        "keys of at most 512 characters",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BOUNDED.values(), ids=BOUNDED)
def test_document_that_stands_for_a_larger_one_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    """What a short text would be written out to is counted, and refused with a place."""
    path = tmp_path / "a.yaml"
    path.write_text(text)
    problems = [p for p in check_config([path], env={}) if p.severity == "error"]

    assert len(problems) == 1
    assert message in problems[0].message
    assert problems[0].line >= 1


def test_problems_beyond_a_thousand_are_counted_not_kept(tmp_path: Path) -> None:
    """Errors and warnings are told up to a number and a length, and that there are more."""
    path = tmp_path / "a.yaml"
    path.write_text(
        f"models:\n  m:\n    cmd: s ${{PORT}}\n    name: '{lines('${x#}', 5000)}'\n"
        f"    ttl: '{'y' * 100_000}'\n" + lines("unknown#: 1\n", 3000)
    )
    problems = check_config([path], env={})
    errors = [p for p in problems if p.severity == "error"]

    assert len(errors) == 1001
    assert len(problems) == 2002
    assert sum("there are more" in p.message for p in problems) == 2
    assert all(len(p.message) + len(p.path) < 2000 for p in problems)
    with pytest.raises(ConfigProblems):
        load_config([path], env={})


TEXTS = st.lists(
    st.sampled_from(["${a}", "${b}", "${c}", "${MODEL_ID}", "x", "${", "}", "$", " "]), max_size=6
).map("".join)


def scalar(text: str) -> Scalar:
    source = Source("a", "")
    return Scalar(source=source, line=1, column=1, end_line=1, text=text, value=text)


def one_by_one(text: str, macros: dict[str, str]) -> str:
    """Replace every macro from the last to the first: the rule, at its word."""
    for name, value in reversed(macros.items()):
        text = text.replace(f"${{{name}}}", value)
    return text


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), TEXTS, max_size=3),
    st.dictionaries(st.sampled_from("abc"), TEXTS, max_size=3),
    TEXTS,
)
def test_macros_are_replaced_from_the_last_to_the_first(
    shared: dict[str, str], own: dict[str, str], text: str
) -> None:
    """To look at those only that a text mentions gives what going through all of them gives."""
    top = Scope({name: scalar(value) for name, value in shared.items()}, [0])
    inner = {"MODEL_ID": "id", **own}
    scope = Scope({name: scalar(value) for name, value in inner.items()}, [0], top)

    assert scope.expand_text(text) == one_by_one(text, {"MODEL_ID": "id", **shared, **own})
    assert top.expand_text(text) == one_by_one(text, shared)


def test_find_returns_the_first_reference_between_two_lines() -> None:
    """The place of a reference is that of its first mention within the lines of its value."""
    source = Source("a", "x: ${a} ${b}\ny:  ${a}\n\nz: $${a} ${a-b}\n")

    assert source.find("${a}", 1, 4) == (1, 4)
    assert source.find("${b}", 1, 1) == (1, 9)
    assert source.find("${a}", 2, 2) == (2, 5)
    assert source.find("${a}", 3, 3) is None
    assert source.find("${a}", 3, 4) == (4, 5)
    assert source.find("${a-b}", 1, 9) == (4, 10)
    assert source.find("${c}", 1, 4) is None


def test_secret_below_a_key_with_a_line_break_is_not_shown() -> None:
    """A line break in a model's name does not make its environment readable."""
    assert is_secret("models.a\nb.env[0]")
    assert is_secret("peers.a\nb.apiKey")
    assert is_secret("models.a\nb.afterHealthy.http.headers.A")
    assert not is_secret("models.a\nb.name")
