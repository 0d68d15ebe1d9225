"""Attack: one hostile input with its bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .target import Target

VARIANTS = ("hypercorn", "uvicorn", "hypercorn --stock", "compiled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Starting conditions of a proxy; attacks with equal ones share it.

    Attributes:
        config: JSON text of further top-level keys of the configuration.
        options: Further options of ``serve``.
        env: Further variables, as pairs.
    """

    config: str = "{}"
    options: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile input.

    Attributes:
        run: Sends it, and asserts its status or the end of its connection; may run three times.
        growth_mib: Upper bound of the growth of the peak resident memory; MiB > 0.
        variants: Where it runs; not ``--stock`` where the server's own HTTP layer decides.
        config: Further top-level keys of the configuration; ``models`` are added to the shared
            ones. An attack without any uses the proxy that most attacks share.
        options: Further options of ``serve``.
        env: Further variables of the proxy.
        may_log: Pattern of log lines that are expected although they look like trouble.
    """

    run: Callable[[Target], object]
    growth_mib: int = 64
    variants: tuple[str, ...] = VARIANTS
    config: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    may_log: str = ""

    @property
    def name(self) -> str:
        """Name of the function and of its module, which no other attack has."""
        return f"{self.run.__module__.rpartition('.')[2]}-{self.run.__name__}"

    @property
    def setup(self) -> Setup:
        """Starting conditions of the proxy."""
        return Setup(
            config=json.dumps(self.config, sort_keys=True),
            options=self.options,
            env=tuple(sorted(self.env.items())),
        )
