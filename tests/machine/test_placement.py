"""Places of states for a drawing in a browser."""

from __future__ import annotations

from itertools import combinations

import pytest

from swapchart.machine.drawing.diagram_model import picture
from swapchart.machine.drawing.placement import Place, places

from .charts import NAMES, chart


def overlap(one: Place, other: Place) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


@pytest.mark.parametrize("name", ["lifecycle", *NAMES])
def test_places_of_states_nest_and_do_not_overlap(name: str) -> None:
    """Each state lies within its parent, below the parent's name, and beside its siblings."""
    drawn = picture(chart(name))
    found = places(drawn)

    assert found.keys() == drawn.nodes.keys()
    for one, other in combinations(drawn.nodes.values(), 2):
        if one.above == other.above:
            assert not overlap(found[one.id], found[other.id]), (one.id, other.id)
    for node in drawn.nodes.values():
        own = found[node.id]
        assert own.width >= 7 * len(node.id)
        if node.above:
            parent = found[node.above[-1]]
            assert parent.x < own.x
            assert parent.y + 28 <= own.y
            assert own.x + own.width < parent.x + parent.width
            assert own.y + own.height < parent.y + parent.height


def test_places_of_the_lifecycle_follow_its_ways() -> None:
    """A start goes downwards, in a drawing that is not wider than a page."""
    found = places(picture(chart("lifecycle")))
    way = [found[name].y for name in ("before_start", "launching", "health_checking")]

    assert way == sorted(set(way))
    assert max(place.x + place.width for place in found.values()) < 1000
