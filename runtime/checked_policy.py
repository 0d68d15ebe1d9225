"""Eviction policies of embedding programs: a result that is no set of names must not stop services.

A policy is called while lifecycles step, so there is no caller to whom its error could go.
"""

from __future__ import annotations

import logging

from .arguments import shown
from .eviction import no_evictions
from .scheduling import EvictionPolicy, one_at_a_time

log = logging.getLogger(__name__)


def checked_policy(policy: EvictionPolicy) -> EvictionPolicy:
    """Return *policy* with results that are always a set of names.

    A list, tuple or set of names is taken as it is meant. For any other result, and an exception,
    the policy of one service at a time holds, and the first time is logged.
    """
    if policy in (one_at_a_time, no_evictions):
        return policy
    name = getattr(policy, "__qualname__", type(policy).__name__)
    is_told = False

    def checked(target: str, running: frozenset[str]) -> frozenset[str]:
        nonlocal is_told
        found: object = None
        try:
            found = policy(target, running)
            if isinstance(found, frozenset):
                return found
            if isinstance(found, (set, list, tuple)):
                return frozenset(found)
            why = f"returned {shown(found)}; expected a set of names of services"
        except Exception as error:  # noqa: BLE001 - the lifecycles must go on
            why = f"raised {type(error).__name__}: {error}"
        if not is_told:
            is_told = True
            log.error(
                "policy %s %s (target %s); it counts as one_at_a_time: all other services are "
                "evicted", name, why, target,
            )  # fmt: skip
        return one_at_a_time(target, running)

    return checked
