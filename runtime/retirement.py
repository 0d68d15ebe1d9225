"""Services on their way out, and the order in which addresses are reused."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from .scheduling import EvictionPolicy
from .spec import ServiceSpec

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
from .spec_diff import address


@dataclass(slots=True)
class Retired:
    """A service on its way out.

    Attributes:
        unheld: Set once no request holds it.
        gone: Set once it is forgotten.
        returns: What is to follow under its name, or None.
    """

    unheld: anyio.Event = field(default_factory=anyio.Event)
    gone: anyio.Event = field(default_factory=anyio.Event)
    returns: ServiceSpec | None = None


def after_leaving(
    policy: EvictionPolicy, lives: Mapping[str, Lifecycle], retiring: Container[str]
) -> EvictionPolicy:
    """Return a policy by which nothing starts at an address before who leaves it is gone.

    Args:
        policy: What must go for what otherwise; returned itself while nobody is leaving.
        lives: All lifecycles, by name.
        retiring: Names of those that stop for good.
    """
    leaving, wanted = {}, {}
    for name, life in lives.items():
        now, then = life.spec.endpoint, (life.next_spec or life.spec).endpoint
        wanted[name] = address(then)
        if (name in retiring or now != then) and not (life.is_quiet or life.is_final):
            leaving[name] = address(now)
    if not leaving:
        return policy

    def extended(target: str, running: frozenset[str]) -> frozenset[str]:
        evicted = policy(target, running)
        place = wanted.get(target)
        in_the_way = {name for name in running & leaving.keys() if leaving[name] == place}
        return evicted | in_the_way - {target}

    return extended
