"""Services that are being removed or moved, and the order in which their addresses are reused."""

from __future__ import annotations

from collections.abc import Container, Mapping

import anyio

from ..dataclass import dataclass, field
from .lifecycle import Lifecycle
from .scheduling import EvictionPolicy
from .spec import ServiceSpec
from .spec_diff import address


@dataclass(slots=True)
class Retirement:
    """The removal of one service.

    Attributes:
        released: Set once no request holds the service.
        completed: Set once the service is forgotten.
        successor: Specification that takes over the name afterwards, or None.
    """

    released: anyio.Event = field(default_factory=anyio.Event)
    completed: anyio.Event = field(default_factory=anyio.Event)
    successor: ServiceSpec | None = None


def with_addresses(
    policy: EvictionPolicy, lifecycles: Mapping[str, Lifecycle], retiring: Container[str]
) -> EvictionPolicy:
    """Return *policy*, extended so that no service starts at an address that is still in use.

    Args:
        policy: The policy of the configuration; returned itself while no address becomes free.
        lifecycles: Name -> lifecycle of all services.
        retiring: Names of the services that are being removed.
    """
    leaving, wanted = {}, {}
    for name, lifecycle in lifecycles.items():
        now, then = lifecycle.spec.endpoint, (lifecycle.next_spec or lifecycle.spec).endpoint
        wanted[name] = address(then)
        if (name in retiring or now != then) and not (lifecycle.is_quiet or lifecycle.is_final):
            leaving[name] = address(now)
    if not leaving:
        return policy

    def extended(target: str, running: frozenset[str]) -> frozenset[str]:
        evicted = policy(target, running)
        place = wanted.get(target)
        in_the_way = {name for name in running & leaving.keys() if leaving[name] == place}
        return evicted | in_the_way - {target}

    return extended
