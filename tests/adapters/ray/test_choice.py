"""Choice of a node, and names of resources."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapchart.adapters.ray.messages import LineBuffer, encode
from swapchart.adapters.ray.node_choice import NodeState, candidates
from swapchart.adapters.ray.resources import GIB, capacity_of, needs_of, reservation_of
from swapchart.runtime import Command, EngineError, PlacementError
from swapchart.runtime.ports import Placement, Resources


def node(name: str, *, is_up: bool = True, **resources: float) -> NodeState:
    state = NodeState(
        {
            "id": f"id-{name}", "name": name, "address": "10.0.0.1", "resources": resources,
            "labels": {"host": name}, "is_own": False,
        }
    )  # fmt: skip
    state.is_up = is_up
    return state


def command(**fields: object) -> Command:
    return Command(argv=("x",), **fields)  # type: ignore[arg-type]


def names(found: list[NodeState]) -> list[str]:
    return [state.name for state in found]


def test_candidates_order_is_that_of_nodes_then_the_emptier_one() -> None:
    nodes = [node("a"), node("b"), node("c")]

    assert names(candidates(command(), nodes, ["id-a"])) == ["b", "c", "a"]
    placement = Placement(nodes=("c", "a"))
    assert names(candidates(command(placement=placement), nodes, ["id-c"])) == ["c", "a"]


def test_candidates_without_nodes_and_with_nodes_that_are_down() -> None:
    with pytest.raises(EngineError, match="the cluster has no nodes"):
        candidates(command(), [], [])
    with pytest.raises(PlacementError, match="do not respond: a") as caught:
        candidates(command(), [node("a", is_up=False)], [])
    assert not caught.value.is_infeasible


def test_candidates_node_that_left_may_come_back_and_counts_once_it_has() -> None:
    gone, other = node("a", is_up=False, VRAM_0=24), node("b")
    gone.is_gone = True
    wanted = command(resources=Resources(memory={"GPU0": 20 * GIB}))
    with pytest.raises(PlacementError, match=r"do not respond: a$") as caught:
        candidates(wanted, [gone, other], [])
    assert not caught.value.is_infeasible

    with pytest.raises(PlacementError) as caught:  # it is back with less
        candidates(wanted, [gone, node("a", VRAM_0=12), other], [])
    assert caught.value.is_infeasible


@given(st.dictionaries(st.sampled_from(["GPU0", "GPU1", "RAM"]), st.integers(1, 100 << 30)))
def test_reservation_is_never_less_than_the_need(memory: dict[str, int]) -> None:
    needs = needs_of(Resources(memory=memory))
    reserved = capacity_of(reservation_of(needs))

    assert reserved.keys() == needs.keys()
    for name, amount in needs.items():
        assert amount <= reserved[name] <= amount + GIB // 1000


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers())), st.integers(1, 50))
def test_messages_survive_any_cut(messages: list[dict[str, object]], size: int) -> None:
    stream = b"".join(encode(message) for message in messages)
    buffer = LineBuffer()
    found = []
    for at in range(0, len(stream), size):
        found += buffer.feed(stream[at : at + size])

    assert found == messages
