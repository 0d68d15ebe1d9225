"""The order process in short forms: as short as promised, the same chart, and hard to misspell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from swapchart.machine import ChartError, Document, Machine, StartTimer, check, read
from swapchart.machine.checking.explore import Behavior, Reaction, behavior
from swapchart.machine.effects import CancelTimer

from .charts import chart

FILE = Path(__file__).parents[1] / "charts" / "short" / "order.yaml"
TEXT = FILE.read_text("utf-8")
LINES = TEXT.splitlines()
KNOWN = read(TEXT)
#: Event that the short form generates -> that of the long form.
LONG_NAMES = {"waiting_after_2d": "overdue"}
#: Largest amount: counts up to it are followed.
MOST = 5000
#: Letters that stand in no name and no key of the chart.
TYPO = "qqq"
WORD = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


def test_order_in_short_forms_has_at_most_sixty_lines() -> None:
    """Without short forms it takes twice as many, and 130 columns are enough."""
    assert len(LINES) <= 60
    assert max(map(len, LINES)) <= 130


def renamed(reaction: Reaction | None) -> Any:
    """Return *reaction* with the timer of the long form."""
    if reaction is None:
        return None
    effects = tuple(
        type(effect)("escalation") if isinstance(effect, (StartTimer, CancelTimer)) else effect
        for effect in reaction.effects
    )
    return reaction._replace(effects=effects)


def comparable(found: Behavior) -> Mapping[Any, Mapping[str, Any]]:
    """Return the reactions by the names of the long form."""
    return {
        key: {
            str(what._replace(event=LONG_NAMES.get(what.event, what.event))): renamed(reaction)
            for what, reaction in row.items()
        }
        for key, row in found.reactions.items()
    }


@pytest.mark.parametrize("needed", [1, 2])
def test_order_in_short_forms_behaves_as_the_long_form(needed: int) -> None:
    """Every reaction of every situation is the same."""
    short = behavior(read(TEXT), parameters={"needed": needed}, counts=MOST)
    long = behavior(chart("order"), parameters={"needed": needed}, counts=MOST)

    assert renamed(short.begin) == renamed(long.begin)
    assert comparable(short) == comparable(long)
    assert len(long.reactions) > 100


def mutations() -> Iterator[tuple[str, str]]:
    """Yield (word or empty, text) for each line left out or doubled and each word misspelled."""
    for number, line in enumerate(LINES):
        for put in ([], [line, line]):
            yield "", "\n".join([*LINES[:number], *put, *LINES[number + 1 :]])
        for word in WORD.finditer(line.partition("#")[0]):
            typo = f"{line[: word.end()]}{TYPO}{line[word.end() :]}"
            yield word[0], "\n".join([*LINES[:number], typo, *LINES[number + 1 :]])


def behaviors(document: Document) -> str:
    """Return what *document* does for each parameter; misspelled names are corrected."""
    found = [comparable(behavior(document, parameters={"needed": n}, counts=MOST)) for n in (1, 2)]
    return repr(found).replace(TYPO, "")


def is_renamed(document: Document) -> bool:
    """Return True if *document* is that of `TEXT` but for names that are misspelled everywhere."""
    found = repr(document)
    words = set(re.findall(r"\w+", found))
    is_unique = not any(TYPO in word and word.replace(TYPO, "") in words for word in words)
    return is_unique and found.replace(TYPO, "") == repr(KNOWN)


def verdict(text: str, known: str) -> str:
    """Return what becomes of *text*: refused, refuted, warned of, the same, or nothing at all.

    A name that is used once can be misspelled without harm: it is a name still.
    """
    try:
        document = read(text)
    except ChartError:
        return "refused"
    if is_renamed(document):
        return "same"
    report = check(document, stop_at_first=True)
    if not report.is_ok:
        return "refuted"
    if report.warnings:
        return "warned of"
    is_same = Machine(document).digest == Machine(KNOWN).digest or known == behaviors(document)
    return "same" if is_same else "nothing"


def test_order_with_a_changed_line_is_caught_or_the_same() -> None:
    """No line can be lost, doubled or misspelled in silence."""
    known = behaviors(KNOWN)
    found: dict[str, list[str]] = {}
    for word, text in mutations():
        found.setdefault(verdict(text, known), []).append(word or text)

    assert found.get("nothing", []) == []
    assert len(found["refused"]) > 250
    assert len(found["refuted"]) >= 10
    assert len(found["same"]) < 100
