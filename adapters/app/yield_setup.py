"""Rules by which models leave memory to other programs, from the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from ...runtime.memory import Pool
from ...runtime.yield_rules import YieldCondition, YieldRule
from ..config import Config
from ..config.schema.yielding import YieldWhen
from ..memory.conditions import CommandSucceeds, ProgramRuns


class _Pools(Protocol):
    """The pools of a configuration; see `MemoryPools`."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """Pools by name."""
        ...

    def known(self, names: Iterable[str]) -> list[str]:
        """Return the pools that *names* mean."""
        ...


def yield_rules(config: Config, found: _Pools) -> Iterator[YieldRule]:
    """Yield the rules of *config* for pools that the machine has."""
    for section in config.yields:
        pools = [found.pools[name] for name in found.known(section.pools)]
        if not pools:
            continue
        others = section.when.others
        yield YieldRule(
            key=repr(section),
            keep={pool.name: section.keep.of(pool.capacity) for pool in pools},
            condition=_condition(section.when),
            others=None if others is None else others.of(min(pool.capacity for pool in pools)),
            quiet_for_s=section.quiet_for, comes_back=section.come_back,
            evicts_pinned=section.pinned,
        )  # fmt: skip


def _condition(when: YieldWhen) -> YieldCondition | None:
    if when.process is not None:
        return ProgramRuns(when.process)
    return CommandSucceeds(when.argv) if when.argv else None
