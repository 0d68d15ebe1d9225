"""Eviction policies: groups, and a matrix of allowed combinations. Pure.

The rules are those of llama-swap, but sets keep their order of definition, which breaks ties as
llama-swap's documentation says.

A matrix can allow millions of combinations. They are not enumerated: an expression is evaluated on
the running services and the target only, and outcomes that make no difference are dropped on the
way. To find the best outcome is NP-hard (it is maximum coverage) if parts of an expression share
many services, so the work is bounded: up to `_EXACT` outcomes of a part are all considered; beyond
that, outcomes that are contained in another one are dropped, and then the least valuable ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import isqrt
from typing import TypeAlias

from ..dataclass import dataclass
from .arguments import names, require_flag, require_kind
from .errors import ConfigError
from .scheduling import EvictionPolicy, one_at_a_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of services with a common rule of eviction.

    Attributes:
        members: Names of the services.
        swap: To start a member evicts the other members.
        exclusive: To start a member evicts the members of other groups.
        persistent: The members are not evicted for members of other groups.
    """

    members: frozenset[str]
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False

    def __post_init__(self) -> None:
        """Check the fields; any collection of names becomes a frozenset.

        Raises:
            ConfigError: A field has a wrong type.
        """
        object.__setattr__(self, "members", names("group.members", self.members))
        for name in ("swap", "exclusive", "persistent"):
            require_flag(f"group.{name}", getattr(self, name))


def no_evictions(target: str, running: frozenset[str]) -> frozenset[str]:
    """Return no service: all may run side by side, as far as memory allows."""
    del target, running
    return frozenset()


def group_policy(groups: Sequence[Group]) -> EvictionPolicy:
    """Return the policy of *groups*; a service in none of them is in a default group."""
    home = {name: group for group in groups for name in group.members}
    default = Group(members=frozenset())

    def policy(target: str, running: frozenset[str]) -> frozenset[str]:
        group = home.get(target, default)
        return frozenset(
            name for name in running - {target} if _is_evicted(group, home.get(name, default))
        )

    return policy


def _is_evicted(group: Group, other: Group) -> bool:
    return group.swap if other is group else group.exclusive and not other.persistent


class Policy:
    """The eviction policies that ship with the package, for ``Supervisor(policy=...)``.

    A policy is a function of (target, names of the services that hold resources), which returns
    the names of the services to evict before the target starts; any such function serves.
    """

    @staticmethod
    def all() -> EvictionPolicy:
        """Return the policy by which all services may run side by side."""
        return no_evictions

    @staticmethod
    def groups(*groups: Group) -> EvictionPolicy:
        """Return the policy of *groups*, which is how llama-swap's groups evict.

        A service in none of them is in a default group: one of its members runs at a time, and
        to start one evicts the members of all other groups that are not persistent.

        Raises:
            ConfigError: A service is in two groups, or an argument is no group.
        """
        known: set[str] = set()
        for index, group in enumerate(groups):
            require_kind(f"groups[{index}]", group, Group, "a Group")
            for name in sorted(group.members & known):
                raise ConfigError(name, "expected in one group, found in two")
            known |= group.members
        return group_policy(groups)

    @staticmethod
    def one_at_a_time(target: str, running: frozenset[str]) -> frozenset[str]:
        """Return all other services: one service runs at a time, which is the default.

        This is a policy itself, not a function that makes one.
        """
        return one_at_a_time(target, running)


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """One service."""

    name: str


@dataclass(frozen=True, slots=True)
class SetRef:
    """The combinations of another set."""

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

#: A combination, as a bit mask over the running services and the target.
_Mask: TypeAlias = int

_EXACT = 64  # outcomes of a part of an expression up to which all are kept
_MOST = 512  # maximum number of kept outcomes with the target, and without it
_PAIRS = _MOST * _MOST  # maximum number of pairs of outcomes of two parts that are joined
_MUCH = 300_000  # joins (some 150 ms) after which only `_FEW` outcomes are kept
_PER_PART = 16  # cost of evaluating a part, in joins
_FEW = 8
_PARTS = 1000  # maximum number of parts that are regrouped
_DEEPEST = 60  # nesting of parts beyond which a set is evaluated on its own
_CACHED = 256  # results of a policy that are cached


def matrix_policy(
    sets: Mapping[str, Expression], costs: Mapping[str, int] | None = None
) -> EvictionPolicy:
    """Return the policy of a matrix.

    Args:
        sets: Name -> services that may run together. The order breaks ties; references must
            not form a cycle.
        costs: Service -> cost of its eviction; the default is 1.

    A service that is in no set runs alone. A service that runs already evicts none.
    """
    prices = dict(costs or {})
    order = _in_order(sets)

    @lru_cache(maxsize=_CACHED)
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
        kept = max(fitting, key=solver.value)  # the first of equal ones
        return frozenset(other for other in others if not kept & bits[other])

    return policy


def _in_order(sets: Mapping[str, Expression]) -> list[str]:
    """Return the names of *sets*, each after the sets that it refers to."""
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
    """Evaluates expressions on some services, each of which is one bit.

    The outcomes of a part are reduced as soon as they are known: of outcomes that differ only in
    services that no other part uses, the most valuable one is kept. A part that shares no service
    with the rest thus has two outcomes, with and without the target.

    Args:
        sets: Name -> expression.
        order: Names of the sets, each after the sets that it refers to.
        bits: Service -> its bit.
        wanted: Bit of the target.
        worth: Bit -> cost of the eviction of its service.
        regroup: Evaluate parts that share services together, which keeps the number of outcomes
            small but loses the order of outcomes of the same value.

    Attributes:
        was_cut: Outcomes were dropped that may have led to the best result.
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
        self._inner: dict[int, _Mask] = {}  # of an expression with parts, by its identity
        for name in order:
            self._supports[name] = self._support(sets[name])

    def value(self, mask: _Mask) -> int:
        """Return the total cost of the evictions that *mask* avoids."""
        found = self._values.get(mask)
        if found is None:
            found = sum(price for bit, price in self._worth.items() if mask & bit)
            self._values[mask] = found
        return found

    def fitting(self) -> list[_Mask]:
        """Return the outcomes with the target, in order."""
        return [
            mask
            for name in self._sets
            if self._supports[name] & self._wanted
            for mask in self.family(name, 0)
            if mask & self._wanted
        ]

    def family(self, name: str, outside: _Mask) -> list[_Mask]:
        """Return the outcomes of set *name* that matter beside the services in *outside*."""
        if self._depth > _DEEPEST or self._joins > _MUCH:
            return self._family_alone(name)
        key = (name, outside & self._supports[name])
        found = self._families.get(key)
        if found is None:
            found = self._families[key] = self._evaluate(self._sets[name], outside)
        return found

    def _family_alone(self, name: str) -> list[_Mask]:
        """Return a few outcomes of set *name*, independent of its user; evaluated once per set."""
        if name not in self._alone:
            depth, joins = self._depth, self._joins
            self._joins = _MUCH + 1  # keeps only a few outcomes, and follows no reference
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
        behind = [outside]  # services used outside or by later parts; the last part first
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
        """Return *parts* with nested `AllOf` expressions replaced by their parts."""
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
        """Return the best, or first, of outcomes that agree on *outside* and the target."""
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

        An outcome that is contained in another one cannot lead to a better result. Of the others,
        at most *most* with the target are kept, and as many without it.
        """
        kept: dict[_Mask, None] = {}
        room = {0: most, self._wanted: most}
        for mask in sorted(masks, key=self.value, reverse=True):  # none is contained in a later one
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
