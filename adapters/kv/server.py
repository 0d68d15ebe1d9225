"""A running server as a restore sees it, and the launch context of its process."""

from __future__ import annotations

from collections.abc import Mapping

from ...dataclass import dataclass
from .fingerprint import Fingerprint
from .server_identity import ServerFacts
from .settings import KvSettings


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """Facts of one process that a later configuration does not change.

    Attributes:
        facts: Sources of its identity.
        settings: Settings in force when it was started.
    """

    facts: ServerFacts
    settings: KvSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        fingerprint: Facts that its saved slots depend on.
        slots: Number of its slots.
        lora: Adapters of a request that names none, as JSON.
        is_asleep: Its cache is gone, and a query might wake it.
    """

    fingerprint: Fingerprint
    slots: int
    lora: str = "[]"
    is_asleep: bool = False

    @property
    def key(self) -> str:
        """Key of the fingerprint."""
        return self.fingerprint.key

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts of the fingerprint."""
        return self.fingerprint.facts

    def differences(self, facts: Mapping[str, str]) -> list[str]:
        """Return the differences from *facts*, in words."""
        return self.fingerprint.differences(facts)
