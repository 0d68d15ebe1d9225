"""What must go so that a service can run: groups, and a matrix of allowed combinations. Pure.

The rules are llama-swap's. Unlike there, sets keep their order of definition, which
breaks ties as llama-swap's own documentation says.

A matrix can allow millions of combinations. None of them is ever built: an expression is
evaluated on what is running and the target only, and outcomes that make no difference are dropped
on the way. To find the best one is NP-hard (it is maximum coverage) where parts of an expression
share many services, so the work is bounded: up to `_EXACT` outcomes of a part all are looked at;
beyond, those that are contained in another one are dropped, and then the least valuable ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import TypeAlias

from .scheduling import EvictionPolicy


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
class ServiceRef:
    """A service."""

    name: str


@dataclass(frozen=True, slots=True)
class SetRef:
    """What another set allows."""

    name: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of the parts."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All parts together."""

    parts: tuple[Expression, ...]


Expression: TypeAlias = ServiceRef | SetRef | AnyOf | AllOf

#: A combination, as a bit mask over what is running and the target.
_Mask: TypeAlias = int

_EXACT = 64  # outcomes of a part of an expression that are kept as they are
_MOST = 512  # of more outcomes, those kept that are not contained in another one
_PAIRS = _MOST * _MOST  # most outcomes of two parts that are joined, each with each
_MUCH = 300_000  # joins (some 150 ms) after which only a few outcomes are kept
_PER_PART = 16  # to look at a part takes as long as so many joins
_FEW = 8
_PARTS = 1000  # most parts that are brought together
_DEEPEST = 60  # parts within parts; beyond, a set is evaluated on its own
_KEPT = 256  # answers that are remembered


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
    order = _in_order(sets)

    @lru_cache(maxsize=_KEPT)
    def policy(target: str, running: frozenset[str]) -> frozenset[str]:
        others = sorted(running - {target})
        if target in running or not others:
            return frozenset()
        bits = {name: 1 << index for index, name in enumerate(others)}
        worth = {bits[name]: prices.get(name, 1) for name in others}
        wanted = bits[target] = 1 << len(others)
        solver = _Solver(sets, order, bits, wanted, worth)
        fitting = solver.fitting()
        best = max(map(solver.value, fitting), default=0)
        if solver.was_cut and best < sum(worth.values()):
            fitting += _Solver(sets, order, bits, wanted, worth, regroup=True).fitting()
        if not fitting:
            return frozenset(others)
        kept = max(fitting, key=solver.value)  # of equals the first
        return frozenset(other for other in others if not kept & bits[other])

    return policy


def _in_order(sets: Mapping[str, Expression]) -> list[str]:
    """Return the names of *sets*, each after those it refers to."""
    ordered: dict[str, None] = {}
    for first in sets:
        todo = [(first, iter(_references(sets[first])))]
        while todo:
            name, others = todo[-1]
            following = next((other for other in others if other not in ordered), None)
            if following is None:
                ordered[name] = None
                todo.pop()
            else:
                todo.append((following, iter(_references(sets[following]))))
    return list(ordered)


def _references(expression: Expression) -> Iterator[str]:
    todo = [expression]
    while todo:
        part = todo.pop()
        if isinstance(part, SetRef):
            yield part.name
        elif isinstance(part, (AnyOf, AllOf)):
            todo.extend(part.parts)


class _Solver:
    """Evaluates expressions on some services, each of them one bit.

    What a part of an expression can contribute is reduced as soon as it is known: of outcomes
    that look the same from outside the part, only the most valuable one is kept. Parts that
    share nothing with the rest thus come down to two outcomes, with and without the target.

    Args:
        regroup: Bring parts that share services together, which keeps them small and loses the
            order of outcomes of the same worth.

    Attributes:
        was_cut: Outcomes were dropped that may have led to the best end.
    """

    def __init__(
        self, sets: Mapping[str, Expression], order: Sequence[str], bits: Mapping[str, _Mask],
        wanted: _Mask, worth: Mapping[_Mask, int], *, regroup: bool = False,
    ) -> None:  # fmt: skip
        self.was_cut = False
        self._sets, self._order, self._regroup = sets, order, regroup
        self._bits, self._wanted, self._worth = bits, wanted, worth
        self._families: dict[tuple[str, _Mask], list[_Mask]] = {}
        self._alone: dict[str, list[_Mask]] = {}
        self._values: dict[_Mask, int] = {}
        self._depth = self._joins = 0
        self._supports: dict[str, _Mask] = {}
        self._inner: dict[int, _Mask] = {}  # of what has parts, by its identity
        for name in order:
            self._supports[name] = self._support(sets[name])

    def value(self, mask: _Mask) -> int:
        """What *mask* saves from eviction."""
        found = self._values.get(mask)
        if found is None:
            found = sum(price for bit, price in self._worth.items() if mask & bit)
            self._values[mask] = found
        return found

    def fitting(self) -> list[_Mask]:
        """Return the outcomes that have the target, in order."""
        return [
            mask
            for name in self._sets
            if self._supports[name] & self._wanted
            for mask in self.family(name, 0)
            if mask & self._wanted
        ]

    def family(self, name: str, outside: _Mask) -> list[_Mask]:
        """Return the outcomes of set *name* that matter to whoever also uses *outside*."""
        if self._depth > _DEEPEST or self._joins > _MUCH:
            return self._family_alone(name)
        key = (name, outside & self._supports[name])
        found = self._families.get(key)
        if found is None:
            found = self._families[key] = self._evaluate(self._sets[name], outside)
        return found

    def _family_alone(self, name: str) -> list[_Mask]:
        """Return a few outcomes of set *name*, whoever uses it; each set is evaluated once."""
        if name not in self._alone:
            depth, joins = self._depth, self._joins
            self._joins = _MUCH + 1  # only a few outcomes are kept, and no set is followed
            for each in self._order:
                if each not in self._alone:
                    self._alone[each] = self._evaluate(self._sets[each], -1)
            self._depth, self._joins = depth, joins
        return self._alone[name]

    def _support(self, expression: Expression) -> _Mask:
        match expression:
            case ServiceRef(name=name):
                return self._bits.get(name, 0)
            case SetRef(name=name):
                return self._supports[name]
            case AnyOf(parts=parts) | AllOf(parts=parts):
                mask = self._inner.get(id(expression))
                if mask is None:
                    mask = 0
                    for part in parts:
                        mask |= self._support(part)
                    self._inner[id(expression)] = mask
                return mask

    def _evaluate(self, expression: Expression, outside: _Mask) -> list[_Mask]:
        self._joins += _PER_PART
        match expression:
            case ServiceRef(name=name):
                return [self._bits.get(name, 0)]
            case SetRef(name=name):
                return self.family(name, outside)
            case AnyOf(parts=parts):
                self._depth += 1
                found = [mask for part in parts for mask in self._evaluate(part, outside)]
                self._depth -= 1
                return self._reduce(found, outside)
            case AllOf(parts=parts):
                self._depth += 1
                masks = self._evaluate_all(parts, outside)
                self._depth -= 1
                return masks

    def _evaluate_all(self, parts: Sequence[Expression], outside: _Mask) -> list[_Mask]:
        if self._regroup and self._joins <= _MUCH:
            parts = sorted(self._flat(parts), key=self._support)
        behind = [outside]  # what is used outside and by the parts behind each, the last one first
        for part in reversed(parts[1:]):
            behind.append(behind[-1] | self._support(part))
        masks, before = [0], 0
        for part in parts:
            later = behind.pop()
            family = self._evaluate(part, later | before)
            before |= self._support(part)
            if len(masks) * len(family) > _PAIRS:
                few = isqrt(_PAIRS) // 2
                masks, family = self._best(masks, few), self._best(family, few)
            self._joins += len(masks) * len(family)
            masks = self._reduce([a | b for a in masks for b in family], later)
        return masks

    def _flat(self, parts: Sequence[Expression]) -> list[Expression]:
        """Return what has to come together for all of *parts* to do so, as small parts."""
        flat: list[Expression] = []
        todo = [*reversed(parts)]
        while todo:
            part = todo.pop()
            inner = self._sets[part.name] if isinstance(part, SetRef) else part
            if isinstance(inner, AllOf) and len(flat) + len(todo) < _PARTS:
                todo.extend(reversed(inner.parts))
            else:
                flat.append(part)
        self._joins += len(flat)
        return flat

    def _reduce(self, masks: Sequence[_Mask], outside: _Mask) -> list[_Mask]:
        """Of outcomes that look alike from *outside* keep the most valuable, or the first."""
        seen = outside | self._wanted
        best: dict[_Mask, _Mask] = {}
        for mask in dict.fromkeys(masks):
            rival = best.setdefault(mask & seen, mask)
            if rival != mask and self.value(mask) > self.value(rival):
                best[mask & seen] = mask
        found = list(best.values())
        if len(found) <= (_FEW if self._joins > _MUCH else _EXACT):
            return found
        return self._best(found, _FEW if self._joins > _MUCH else _MOST)

    def _best(self, masks: list[_Mask], most: int) -> list[_Mask]:
        """Return the best of *masks*, in order.

        What is contained in another outcome can never lead to a better end. Of the rest *most*
        that have the target are kept, and as many that have not.
        """
        kept: dict[_Mask, None] = {}
        room = {0: most, self._wanted: most}
        for mask in sorted(masks, key=self.value, reverse=True):  # no one is inside a later one
            kind = mask & self._wanted
            self._joins += len(kept) >> 2
            if any(mask & other == mask for other in kept):
                continue
            if room[kind]:
                kept[mask] = None
                room[kind] -= 1
            else:
                self.was_cut = True
            if not any(room.values()):
                self.was_cut = True
                break
        return [mask for mask in masks if mask in kept]
