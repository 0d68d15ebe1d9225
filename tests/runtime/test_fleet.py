"""Fleets: policies that ship, names, and services that run side by side."""

from __future__ import annotations

import pydoc

import pytest
from tools.virtual import World, run_scenario

from swapchart.runtime import (
    ConfigError,
    Group,
    Policy,
    RequestError,
    Supervisor,
    UnknownServiceError,
)
from swapchart.runtime.testing import service

NAMES = ("a", "b", "c")
FLEET = [service(name) for name in NAMES]


# ---- policies
def test_policy_all_runs_services_side_by_side() -> None:
    """No service is evicted for another one."""

    async def scenario(world: World) -> None:
        for name in NAMES:
            await world.supervisor.load(name)

        assert {world[name].state for name in NAMES} == {"ready"}

    run_scenario(scenario, *FLEET, policy=Policy.all())


def test_policy_groups_evicts_within_the_group_only() -> None:
    """A group that swaps and is not exclusive leaves the services of other groups alone."""
    pair = Group(members=frozenset({"a", "b"}), exclusive=False)
    rest = Group(members=frozenset({"c"}), exclusive=False)

    async def scenario(world: World) -> None:
        for name in ("c", "a", "b"):
            await world.supervisor.load(name)

        assert [world[name].state for name in NAMES] == ["stopped", "ready", "ready"]

    run_scenario(scenario, *FLEET, policy=Policy.groups(pair, rest))


def test_policy_groups_with_a_service_in_two_is_refused() -> None:
    """The error names the service."""
    with pytest.raises(ConfigError, match="b: expected in one group"):
        Policy.groups(Group(members=frozenset({"a", "b"})), Group(members=frozenset({"b"})))


def test_policy_one_at_a_time_is_the_default() -> None:
    """It evicts each other service."""

    async def scenario(world: World) -> None:
        for name in NAMES:
            await world.supervisor.load(name)

        assert [world[name].state for name in NAMES] == ["stopped", "stopped", "ready"]

    run_scenario(scenario, *FLEET, policy=Policy.one_at_a_time)
    run_scenario(scenario, *FLEET)


# ---- names
def test_supervisor_unknown_service_raises_request_error_with_status() -> None:
    """An embedding server can answer 404 by the hint; the error is a `KeyError` too."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor
        for use in (supervisor.acquire, supervisor.load, supervisor.unload, supervisor.remove):
            with pytest.raises(RequestError, match=r"^there is no service 'nope'$") as refused:
                await use("nope")
            assert (refused.value.status_hint, refused.value.code) == (404, "unknown_service")
            assert isinstance(refused.value, KeyError)
        with pytest.raises(UnknownServiceError):
            async with supervisor.lease("nope"):
                pass
        with pytest.raises(UnknownServiceError):
            supervisor.update(service("nope"))
        with pytest.raises(UnknownServiceError):
            supervisor["nope"]

    run_scenario(scenario, *FLEET)


def test_supervisor_item_and_get_return_the_lifecycle() -> None:
    """`get` returns None for a name that is unknown."""

    async def scenario(world: World) -> None:
        supervisor = world.supervisor

        assert supervisor.get("a") is supervisor["a"]
        assert supervisor["a"].spec.name == "a"
        assert supervisor.get("nope") is None

    run_scenario(scenario, *FLEET)


def test_supervisor_help_shows_how_to_look_up_a_service() -> None:
    """Item access, `get` and `in` are part of what `help` prints."""
    text = pydoc.plain(pydoc.render_doc(Supervisor))

    assert 'supervisor["web"]' in text
    for method in ("__getitem__", "__contains__", "get(self, name"):
        assert method in text, method
