"""What must go so that a service can run: groups, and a matrix of allowed combinations. Pure.

Source: llama-swap.md section 1.13. Unlike there, sets keep their order of definition, which
breaks ties as llama-swap's own documentation says.

A matrix can allow millions of combinations. None of them is ever built: an expression is
evaluated on what is running and the target only, and outcomes that make no difference are dropped
on the way.
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
        worth = {bits[name]: prices.get(name, 1) for name in others}
        wanted = bits[target] = 1 << len(others)
        solver = _Solver(sets, bits, wanted, worth)
        fitting = [mask for name in sets for mask in solver.family(name, 0) if mask & wanted]
        if not fitting:
            return frozenset(others)
        kept = max(fitting, key=solver.value)  # of equals the first
        return frozenset(other for other in others if not kept & bits[other])

    return policy


class _Solver:
    """Evaluates expressions on some services, each of them one bit.

    What a part of an expression can contribute is reduced as soon as it is known: of outcomes
    that look the same from outside the part, only the most valuable one is kept. Parts that
    share nothing with the rest thus come down to two outcomes, with and without the target.
    """

    def __init__(
        self, sets: Mapping[str, Expression], bits: Mapping[str, _Mask], wanted: _Mask,
        worth: Mapping[_Mask, int],
    ) -> None:  # fmt: skip
        self._sets, self._bits, self._wanted, self._worth = sets, bits, wanted, worth
        self._families: dict[tuple[str, _Mask], list[_Mask]] = {}
        self._supports: dict[str, _Mask] = {}

    def value(self, mask: _Mask) -> int:
        """What *mask* saves from eviction."""
        return sum(price for bit, price in self._worth.items() if mask & bit)

    def family(self, name: str, outside: _Mask) -> list[_Mask]:
        """Return the outcomes of set *name* that matter to whoever also uses *outside*."""
        key = (name, outside & self._support_of_set(name))
        found = self._families.get(key)
        if found is None:
            found = self._families[key] = self._evaluate(self._sets[name], outside)
        return found

    def _support_of_set(self, name: str) -> _Mask:
        found = self._supports.get(name)
        if found is None:
            found = self._supports[name] = self._support(self._sets[name])
        return found

    def _support(self, expression: Expression) -> _Mask:
        match expression:
            case One(name=name):
                return self._bits.get(name, 0)
            case SetRef(name=name):
                return self._support_of_set(name)
            case Any(parts=parts) | All(parts=parts):
                mask = 0
                for part in parts:
                    mask |= self._support(part)
                return mask

    def _evaluate(self, expression: Expression, outside: _Mask) -> list[_Mask]:
        match expression:
            case One(name=name):
                return [self._bits.get(name, 0)]
            case SetRef(name=name):
                return self.family(name, outside)
            case Any(parts=parts):
                found = [mask for part in parts for mask in self._evaluate(part, outside)]
                return self._reduce(found, outside)
            case All(parts=parts):
                supports = [self._support(part) for part in parts]
                masks = [0]
                for index, part in enumerate(parts):
                    later = outside
                    for support in supports[index + 1 :]:
                        later |= support
                    beside = later
                    for support in supports[:index]:
                        beside |= support
                    family = self._evaluate(part, beside)
                    masks = self._reduce([a | b for a in masks for b in family], later)
                return masks

    def _reduce(self, masks: Sequence[_Mask], outside: _Mask) -> list[_Mask]:
        """Of outcomes that look alike from *outside* keep the most valuable, or the first."""
        seen = outside | self._wanted
        best: dict[_Mask, _Mask] = {}
        for mask in dict.fromkeys(masks):
            rival = best.setdefault(mask & seen, mask)
            if rival != mask and self.value(mask) > self.value(rival):
                best[mask & seen] = mask
        return list(best.values())
