"""Memory: whether a service fits beside those that run, and which must go if not.

A *pool* is a memory that services share. Each running service is a *holder*: it holds a *claim* in
pools from the moment it is granted until its memory was given back. `plan` decides for a wanted
service; nothing in this package waits or reads a clock.
"""

from .cover import cover
from .notices import Notice, NoticeKind
from .planning import CostFunction, Rules, lru_cost, plan, reload_cost
from .readings import leavers
from .shortage import Evidence, Shortage, Shortages, next_amount
from .sums import explain_sum, size
from .values import Amounts, Holder, MemoryNeed, Plan, PlanKind, Pool, Source, Wanted

__all__ = [
    "Amounts",
    "CostFunction",
    "Evidence",
    "Holder",
    "MemoryNeed",
    "Notice",
    "NoticeKind",
    "Plan",
    "PlanKind",
    "Pool",
    "Rules",
    "Shortage",
    "Shortages",
    "Source",
    "Wanted",
    "cover",
    "explain_sum",
    "leavers",
    "lru_cost",
    "next_amount",
    "plan",
    "reload_cost",
    "size",
]
