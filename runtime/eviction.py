"""What must go so that a service can run: groups, and a matrix of allowed combinations. Pure.

Source: llama-swap.md section 1.13. Unlike there, sets keep their order of definition, which
breaks ties as llama-swap's own documentation says.

A matrix can allow millions of combinations. None of them is ever built: an expression is
evaluated on what is running and the target only, and of two outcomes that one is dropped which
keeps less than the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .scheduler import EvictionPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Services that are swapped together.

    Attributes:
        members: Their names.
        swap: A member makes the others go.
        exclusive: A member makes the members of other groups go.
        persistent: Members of other groups never make these go.
    """

    members: frozenset[str]
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False


def group_policy(groups: Sequence[Group]) -> EvictionPolicy:
    """Make the policy of *groups*; a service in none of them belongs to a default group."""
    home = {name: group for group in groups for name in group.members}
    default = Group(members=frozenset())

    def policy(target: str, running: frozenset[str]) -> frozenset[str]:
        group = home.get(target, default)
        return frozenset(
            name for name in running - {target} if _goes(group, home.get(name, default))
        )

    return policy


def _goes(group: Group, other: Group) -> bool:
    return group.swap if other is group else group.exclusive and not other.persistent


@dataclass(frozen=True, slots=True)
class One:
    """A service."""

    name: str


@dataclass(frozen=True, slots=True)
class SetRef:
    """What another set allows."""

    name: str


@dataclass(frozen=True, slots=True)
class Any:
    """One of the parts."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class All:
    """All parts together."""

    parts: tuple[Expression, ...]


Expression: TypeAlias = One | SetRef | Any | All

#: A combination, as a bit mask over what is running and the target.
_Mask: TypeAlias = int


def matrix_policy(
    sets: Mapping[str, Expression], costs: Mapping[str, int] | None = None
) -> EvictionPolicy:
    """Make the policy of a matrix.

    Args:
        sets: Name -> what may run together; order breaks ties. References have no cycles.
        costs: Service -> cost of evicting it; 1 where there is none.

    A service that is in no set runs alone. One that runs already makes nothing go.
    """
    prices = dict(costs or {})

    def policy(target: str, running: frozenset[str]) -> frozenset[str]:
        others = sorted(running - {target})
        if target in running or not others:
            return frozenset()
        bits = {name: 1 << index for index, name in enumerate(others)}
        wanted = 1 << len(others)
        bits[target] = wanted
        solver = _Solver(sets, bits)
        kept = best = None
        for name in sets:
            for mask in solver.family(name):
                if not mask & wanted:
                    continue
                cost = sum(prices.get(other, 1) for other in others if not mask & bits[other])
                if best is None or cost < best:
                    best, kept = cost, mask
        return frozenset(other for other in others if kept is None or not kept & bits[other])

    return policy


class _Solver:
    def __init__(self, sets: Mapping[str, Expression], bits: Mapping[str, _Mask]) -> None:
        self._sets, self._bits = sets, bits
        self._families: dict[str, tuple[_Mask, ...]] = {}

    def family(self, name: str) -> tuple[_Mask, ...]:
        found = self._families.get(name)
        if found is None:
            found = self._families[name] = self._evaluate(self._sets[name])
        return found

    def _evaluate(self, expression: Expression) -> tuple[_Mask, ...]:
        match expression:
            case One(name=name):
                return (self._bits.get(name, 0),)
            case SetRef(name=name):
                return self.family(name)
            case Any(parts=parts):
                return _maximal([mask for part in parts for mask in self._evaluate(part)])
            case All(parts=parts):
                masks: tuple[_Mask, ...] = (0,)
                for part in parts:
                    family = self._evaluate(part)
                    masks = _maximal([left | right for left in masks for right in family])
                return masks


def _maximal(masks: Sequence[_Mask]) -> tuple[_Mask, ...]:
    """Drop every mask that lies within another; the order of the rest stays."""
    unique = list(dict.fromkeys(masks))
    if len(unique) < 2:
        return tuple(unique)
    return tuple(
        mask
        for mask in unique
        if not any(mask != other and mask & other == mask for other in unique)
    )
