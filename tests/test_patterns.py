"""No regular expression of the package takes more than linear time."""

from __future__ import annotations

import re

import pytest
from test_layout import FOLDERS, ROOT, SOURCES
from tools.patterns import Found, MisreadError, SuperlinearError, check, patterns_of

#: Place -> why its patterns are not ours. Patterns of a configuration are their author's.
FOREIGN = {
    "checks.py": "`pattern` of fields of the schema, each of one class of characters",
    "load.py": "`ignorePaths` of the configuration",
    "json_path.py": "`fnmatch.translate`, which makes atomic groups of several `*`",
}
#: Pattern -> why it may search, although a text without its end would take long.
ALLOWED = {
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*"': "only searched for where every text is known to have its end",
}


def found() -> list[Found]:
    sources = "\n".join(path.read_text() for path in SOURCES)
    patterns: list[Found] = []
    for path in SOURCES:
        name = ".".join(("swapchart", *path.relative_to(ROOT).with_suffix("").parts))
        if path.name != "__main__.py":
            patterns += patterns_of(path, name.removesuffix(".__init__"), sources)
    return patterns


def test_patterns_of_the_package_are_found() -> None:
    """The walk sees the patterns that are known to be there, so it cannot pass by seeing none."""
    places = {pattern.place.partition(":")[0] for pattern in found()}

    assert len(found()) > 40
    assert {
        "multipart.py",
        "json_scan.py",
        "token_usage.py",
        "validation.py",
        "effectiveness.py",
    } <= places
    assert FOLDERS


@pytest.mark.parametrize("pattern", found(), ids=lambda pattern: pattern.place)
def test_pattern_of_the_package_is_linear(pattern: Found) -> None:
    """No text of any sender makes a pattern try all divisions of itself."""
    if pattern.pattern is None:
        assert pattern.place.partition(":")[0] in FOREIGN
        return
    if pattern.pattern in ALLOWED:
        return
    for use in pattern.uses:
        check(pattern.pattern, pattern.flags, use=use)


_ONE = r';\s*([^=;\s"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;\s"]*+)\s*'


@pytest.mark.parametrize(
    ("pattern", "use"),
    [
        (rf'\s*[^;"]*({_ONE})*;?\s*', "fullmatch"),  # once read form parameters, in cubic time
        (r"(a+)+$", "match"),
        (r"(a*)*$", "match"),
        (r"(?:a|a)*$", "match"),
        (r"(?:[^a]+|b)*x", "match"),
        (r"(a|ab|b)*$", "match"),
        (r"\s*\s*x", "match"),
        (r"\s+$", "search"),
        (r"[^x]*,[^x]*$", "match"),
        (r"a*b?a*$", "match"),
        (r"a*(?:b|c?)a*$", "match"),
        (r"\d+\d+", "fullmatch"),
        (r"a{0,9999}a{0,9999}$", "match"),
        (r".*?,.*?;", "match"),
        (r"a*(?=a*b)c", "match"),
        (r'"(?:[^"\\]++|\\.)*"', "search"),
        (r"(?:ab|ac*)*$", "match"),
        (r"(?:x[^y]*)*y", "match"),
        (r"x*(\w+)\1$", "match"),
    ],
)
def test_check_refuses_patterns_that_backtrack(pattern: str, use: str) -> None:
    """Overlapping neighbours, nested repetitions and searches that begin with one are refused."""
    with pytest.raises(SuperlinearError):
        check(pattern, use=use)


@pytest.mark.parametrize(
    ("pattern", "use"),
    [
        (r"\s*+[^\s]*+x", "match"),
        (r"[a-z]+\d+$", "match"),
        (r"(?:[^\"\\]|\\.)*$", "match"),
        (r"[ \t]+", "search"),
        (r"^[a-z]*\d*$", "search"),
        (r"a{1,9}a{1,9}$", "match"),
        (r"(\d+(?:\.\d*)?|\.\d+)(ns|us|ms|s|m|h)", "match"),
        (r"a*,a*,a*$", "match"),
        (r'"[^"\\]*+(?:\\.[^"\\]*+)*"\s*+:', "match"),
        (r"(?:ab|ac)*$", "match"),
    ],
)
def test_check_accepts_linear_patterns(pattern: str, use: str) -> None:
    """Patterns whose parts cannot take one another's text pass."""
    assert re.compile(pattern)
    check(pattern, use=use)


@pytest.mark.parametrize(
    "pattern", [r'"(?:[^"\\]++|\\.)*+"', r"(?:ab?c)*+", r"\d+(?:\.\d)?+", r"(?>ab)c"]
)
def test_check_refuses_patterns_that_some_python_matches_wrongly(pattern: str) -> None:
    """In Python 3.11.2, of Debian 12, such a pattern takes a string that has no end."""
    with pytest.raises(MisreadError):
        check(pattern, use="match")
