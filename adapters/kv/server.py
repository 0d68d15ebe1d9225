"""A running server as its saved slots see it, and the terms on which its process was started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .fingerprint import Fingerprint
from .server_identity import ServerFacts
from .settings import KvSettings


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What holds for one process: how it was started, and what was wanted then.

    Attributes:
        facts: Where its identity is asked for.
        settings: What is wanted.
    """

    facts: ServerFacts
    settings: KvSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        fingerprint: What its saved slots depend on.
        slots: How many it has.
        lora: Adapters of a request that asks for none, as JSON.
        is_asleep: Its cache is gone, and asking for it might wake it.
    """

    fingerprint: Fingerprint
    slots: int
    lora: str = "[]"
    is_asleep: bool = False

    @property
    def key(self) -> str:
        """Short text for the fingerprint."""
        return self.fingerprint.key

    @property
    def facts(self) -> Mapping[str, str]:
        """What the fingerprint is made of."""
        return self.fingerprint.facts

    def differences(self, facts: Mapping[str, str]) -> list[str]:
        """Say in words what has changed since *facts*."""
        return self.fingerprint.differences(facts)
