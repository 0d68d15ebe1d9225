"""Waits for states of one instance."""

from __future__ import annotations

import anyio

from ...machine import Configuration, Machine
from ..arguments import guess, shown
from .errors import EndedError, UnknownStateError


def check_states(machine: Machine, name: str, states: tuple[str, ...]) -> None:
    """Check that *machine* can be found in each of *states*.

    Args:
        machine: The chart.
        name: Id of the instance, or name of the service, for errors.
        states: Names of states, at least one.

    Raises:
        UnknownStateError: The chart has no such state, or leaves it in the step that enters it.
    """
    if not states:
        raise UnknownStateError(f"{name}: expected the name of a state to wait for, got none")
    for state in states:
        if not isinstance(state, str) or state not in machine.states:
            close = guess(state, machine.states)
            raise UnknownStateError(f"{name}: no state {shown(state)}{close}")
        if state not in machine.reach.lasting:
            raise UnknownStateError(
                f"{name}: state {state!r} is left in the step that enters it; "
                "wait for a state after it"
            )


class _Wait:
    __slots__ = ("event", "states", "why")

    def __init__(self, states: frozenset[str]) -> None:
        self.states = states
        self.event = anyio.Event()
        self.why = ""  # the states cannot come any more


class Waits:
    """Callers that wait for a state of one instance.

    Args:
        machine: The chart.
        name: Id of the instance, for errors.
    """

    __slots__ = ("_machine", "_name", "_waiting")

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self._name = machine, name
        self._waiting: list[_Wait] = []

    async def wait(self, states: tuple[str, ...], configuration: Configuration, why: str) -> None:
        """Wait until one of *states* is active, if only for one step.

        Args:
            states: Names of states.
            configuration: The present one.
            why: Why no step follows; empty if one may.

        Raises:
            UnknownStateError: The chart has no such state, or leaves it in the step that enters it.
            EndedError: None of the states can come any more.
        """
        check_states(self._machine, self._name, states)
        wanted = frozenset(states)
        if not wanted.isdisjoint(configuration):
            return
        why = why or self._lost(wanted, configuration)
        if why:
            raise EndedError(self._name, states, why)
        wait = _Wait(wanted)
        self._waiting.append(wait)
        try:
            await wait.event.wait()
        finally:
            if wait in self._waiting:
                self._waiting.remove(wait)
        if wait.why:
            raise EndedError(self._name, states, wait.why)

    def _lost(self, states: frozenset[str], configuration: Configuration) -> str:
        if states.isdisjoint(self._machine.reach.states(configuration)):
            return f"nothing leads there from {'.'.join(configuration)}"
        return ""

    def entered(self, configuration: Configuration, why: str) -> None:
        """Wake who waits for a state of *configuration*, or for one that cannot come any more."""
        for wait in list(self._waiting):
            is_there = not wait.states.isdisjoint(configuration)
            if not is_there:
                wait.why = why or self._lost(wait.states, configuration)
            if is_there or wait.why:
                self._waiting.remove(wait)
                wait.event.set()

    def change(self, machine: Machine, configuration: Configuration, why: str) -> None:
        """Go on with another chart; *why* as for `wait`."""
        self._machine = machine
        self.entered(configuration, why)

    def end(self, why: str) -> None:
        """Wake all, since no step follows."""
        for wait in self._waiting:
            wait.why = why
            wait.event.set()
        self._waiting.clear()
