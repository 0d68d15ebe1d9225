"""Charts of other tools with random mistakes: read, or refused by a ChartError that says why."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swapchart.machine import ChartError, Document, from_native, from_scxml, from_xstate, to_xstate
from swapchart.machine.format.parse import load_yaml

from .charts import chart
from .test_native import OWN
from .test_scxml import TRAFFIC
from .test_xstate import EXAMPLES

ODD: list[Any] = [
    None, True, 0, -1, 1.5, "", "x", "#x", ".a", "a b", "*", [], {}, [1], ["a", None], {"a": 1},
    "a.b", "__init__", "name", "parent", "xstate.raise", {"type": 3}, {"target": 5}, [[]], 10**30,
]  # fmt: skip
KEYS = (
    "states", "on", "initial", "type", "after", "invoke", "always", "entry", "history", "target",
    "guard", "cond", "transitions", "enter", "event", "datamodel", "id",
)  # fmt: skip
VALUES = ("", "x", "a b", "1", "In('red')", "n +", "++n", "_event.data", "#_parent", "work", "red")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in *value* with each of its keys."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from places(value[key])


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))


def with_mistakes(value: Any, rng: random.Random) -> Any:
    """Return a copy of *value* in which one to three parts are replaced, moved or gone."""
    found = copied(value)
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(list(places(found)) or [({"": 0}, "")])
        kind = rng.random()
        if kind < 0.55:
            container[key] = copied(rng.choice(ODD))
        elif kind < 0.75 and isinstance(container, dict):
            container[rng.choice(KEYS)] = copied(container[key])
        else:
            del container[key]
    return found


def xstate(rng: random.Random) -> str:
    order = json.loads(to_xstate(chart("order")))
    del order["meta"]
    return json.dumps(with_mistakes(rng.choice([*(e[0] for e in EXAMPLES.values()), order]), rng))


def native(rng: random.Random) -> str:
    return json.dumps(with_mistakes(load_yaml(OWN), rng))


def scxml(rng: random.Random) -> str:
    tokens = re.findall(r"<[^>]*>|[^<]+", TRAFFIC.strip())
    at = rng.randrange(len(tokens))
    value = rng.choice(VALUES)
    tokens[at] = "" if rng.random() < 0.4 else re.sub('="[^"]*"', f'="{value}"', tokens[at])
    return "".join(tokens)


@pytest.mark.parametrize(
    ("write", "read_back"),
    [(xstate, from_xstate), (native, from_native), (scxml, from_scxml)],
    ids=["xstate", "native", "scxml"],
)
def test_reader_of_a_chart_with_mistakes_returns_a_document_or_says_why(
    write: Callable[[random.Random], str], read_back: Callable[..., Document]
) -> None:
    """No other exception, no endless loop, and no message that repeats the file."""
    rng = random.Random(5)
    messages = []
    for _ in range(300):
        text = write(rng)
        try:
            read_back(text, lost=[])
        except ChartError as error:
            messages.append(str(error))

    assert 10 < len(messages) < 300
    assert max(map(len, messages)) < 600
