"""Names that python-statemachine gives a meaning of its own."""

from __future__ import annotations

from typing import Any

import pytest

from swapchart.machine import ChartError, Compiled, from_mapping


def raw(action: str = "note", inside: str = "one") -> dict[str, Any]:
    return {
        "format": "swapchart.chart/v1",
        "events": {"go": {}},
        "actions": {action: {"do": {"effect": "notify", "name": "noted"}}},
        "chart": {
            "states": {
                "top": {
                    "initial": True,
                    "states": {
                        inside: {
                            "initial": True,
                            "transitions": [{"event": "go", "target": "two", "on": action}],
                        },
                        "two": {"transitions": [{"event": "go", "target": inside}]},
                    },
                }
            }
        },
    }


@pytest.mark.parametrize("name", ["parent", "value", "final", "initial", "history", "to", "enter"])
def test_from_mapping_state_inside_with_a_name_of_the_library_is_refused(name: str) -> None:
    """The library would take the inner state for a property of the outer one."""
    with pytest.raises(ChartError, match=f"{name!r} is not an identifier, or the library's own"):
        from_mapping(raw(inside=name))


@pytest.mark.parametrize("name", ["raise_", "send", "add_listener"])
def test_from_mapping_action_with_a_name_of_the_library_is_refused(name: str) -> None:
    """The library would call its own method in place of the action."""
    with pytest.raises(ChartError, match="python-statemachine uses this name itself"):
        from_mapping(raw(action=name))


@pytest.mark.parametrize(
    "name", ["on_enter_two", "on_exit_two", "before_go", "after_go", "on_go", "on_transition"]
)
@pytest.mark.parametrize("kind", ["stepper", "reference"])
def test_stepper_action_named_like_a_callback_runs_where_the_chart_says(
    name: str, kind: str
) -> None:
    """The library calls methods by such names; in a document they are names like any other."""
    stepper = getattr(Compiled(from_mapping(raw(action=name))), kind)()
    stepper.begin()

    assert [len(stepper.step("go")) for _ in range(4)] == [1, 0, 1, 0]
