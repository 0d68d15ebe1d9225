"""Which models of a configuration fit into memory together, for commands and reloads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from ...runtime.memory import MemoryNeed, Pool
from ...runtime.memory.together import lack_in_words, lost_pairs, together
from ...runtime.ports import PoolReading
from ..config import Config, ModelConfig, Problem
from .memory_setup import MemoryPools, MemorySetup, memory_need, memory_pools

_MOST_LINES = 20  # of pairs that a plan lists
#: (model, pools) -> what the model needs of them; None if memory is no condition for it.
NeedOf: TypeAlias = Callable[[ModelConfig, MemoryPools], MemoryNeed | None]


def needs_of(
    config: Config, readings: Sequence[PoolReading], need_of: NeedOf = memory_need
) -> tuple[Mapping[str, Pool], dict[str, MemoryNeed]]:
    """Return the pools and what each model needs of them; without `memory:` there are none.

    Args:
        config: The configuration.
        readings: Pools of the machine.
        need_of: Returns what a model needs; by default what it declares.
    """
    if config.memory.mode == "off":
        return {}, {}
    found = memory_pools(config, readings)
    needs = {
        model.id: need
        for model in config.models.values()
        if (need := need_of(model, found)) is not None
    }
    return found.pools, needs


def lost_combinations(
    old: Config, new: Config, readings: Sequence[PoolReading], need_of: NeedOf = memory_need
) -> list[str]:
    """Return the models that no longer fit, alone or in pairs, in words."""
    before, after = needs_of(old, readings, need_of), needs_of(new, readings, need_of)
    if not before[0] or not after[0]:
        return []  # without memory the rules decide, and nothing was promised
    lines = []
    for one, other, found in lost_pairs(before, after):
        what = f"{one} and {other} no longer fit together" if other else f"{one} no longer fits"
        lines.append(f"{what}: {lack_in_words(after[0], found)}")
    if len(lines) > _MOST_LINES:
        return [*lines[:_MOST_LINES], f"{len(lines) - _MOST_LINES} more pairs no longer fit"]
    return lines


def lost_finder(memory: MemorySetup) -> Callable[[Config, Config], list[str]]:
    """Return `lost_combinations` for a running proxy, by what is known there."""
    return lambda old, new: lost_combinations(old, new, memory.readings, memory.need)


def fitting_problems(config: Config, readings: Sequence[PoolReading]) -> list[Problem]:
    """Return the combinations that the configuration asks for and that do not fit.

    These are the groups whose members are not swapped, and all pinned models with each other one.
    """
    pools, needs = needs_of(config, readings)
    found = []
    pinned = [model.id for model in config.models.values() if model.pinned]
    asked: list[tuple[str, str, Iterable[str]]] = [
        (f"groups.{group.id}", f"the members of group {group.id}", group.members)
        for group in config.routing.groups.values()
        if not group.swap
    ]
    asked += [
        (f"models.{name}.memory", f"{name} and the pinned {', '.join(pinned)}", [*pinned, name])
        for name in needs
        if pinned and name not in pinned
    ]
    for path, what, members in asked:
        known = {name: needs[name] for name in members if name in needs}
        result = together(pools, known)
        if known and not result.fits and all(each.source == "declared" for each in known.values()):
            text = f"{what} do not fit together: {lack_in_words(pools, result)}"
            found.append(
                Problem(file="", path=path, line=0, column=0, message=text, severity="warning")
            )
    return found
