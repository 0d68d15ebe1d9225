"""Rules by which services leave memory to other programs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from ..dataclass import dataclass, field
from .memory import Amounts


class YieldCondition(Protocol):
    """Condition under which memory is left to other programs."""

    async def reason(self, own: Collection[int]) -> str:
        """Return why it holds at present, in words; empty if it does not hold.

        It may be canceled and never blocks the event loop.

        Args:
            own: Processes of services, which are not other programs.

        Raises:
            OSError: It is not known.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldRule:
    """One rule: while it holds, services keep away from some pools.

    Attributes:
        key: Identifies the rule over changes of the configuration.
        keep: Pool -> bytes of it that services may hold meanwhile, >= 0.
        condition: Holds while memory is to be left to other programs; None where `others` decides.
        others: Bytes of one of the pools that other programs hold at least, for 5 s, so that the
            rule holds; None where `condition` decides.
        quiet_for_s: Time in seconds without the condition after which the rule ends.
        comes_back: Services that were evicted are started again then.
        evicts_pinned: Pinned services go too.
    """

    key: str
    keep: Amounts = field(default_factory=dict)
    condition: YieldCondition | None = None
    others: int | None = None
    quiet_for_s: float = 60.0
    comes_back: bool = True
    evicts_pinned: bool = False
