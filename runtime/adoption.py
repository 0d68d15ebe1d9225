"""Adoption: facts about a run of a service that outlives its supervisor, for the next one.

A launcher keeps them with the process (`NodeProcess.remember`) and gives them back with it
(`Adopted.facts`). They name the command by its digest, so that a process is adopted only by the
service that would be started by the same command at the same address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from ..dataclass import dataclass, field
from ..machine.digest import digest_of
from .spec import ServiceSpec

_VERSION = 1
_STARTED_BY = ("argv", "env", "cwd", "is_external", "launcher", "node", "resources")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts about a run of a service that is ready or asleep.

    Attributes:
        digest: Digest of its specification; see `digest_of_spec`.
        incarnation: Number of the run.
        is_asleep: It sleeps.
        after_healthy: Outcome of its ``afterHealthy`` hooks.
        place: Variables that name its GPUs.
        claim: Bytes of memory by pool that it was granted.
        start_s: Duration of its start in seconds.
        launched_at: Time of its start in seconds on the clock of the machine, or None.
        idle_since: Time of its last use in seconds on that clock; None if it is not known.
        kept_s: Idle limit in seconds that a request has set for this run; infinity is no limit,
            None means that none has.
    """

    digest: str
    incarnation: int = 1
    is_asleep: bool = False
    after_healthy: str = "none"
    place: Mapping[str, str] = field(default_factory=dict)
    claim: Mapping[str, int] = field(default_factory=dict)
    start_s: float = 0.0
    launched_at: float | None = None
    idle_since: float | None = None
    kept_s: float | None = None

    def as_text(self) -> str:
        """Return the facts as a line of JSON."""
        return json.dumps({"version": _VERSION, **asdict(self)})

    @classmethod
    def from_text(cls, text: str) -> RunFacts | None:
        """Return the facts in *text*; None if another version has written it."""
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.pop("version", None) != _VERSION:
                return None
            names = {each.name for each in fields(cls)}
            return cls(**found) if found.keys() <= names and "digest" in found else None
        except ValueError:
            return None


def digest_of_spec(spec: ServiceSpec) -> str:
    """Return the digest of what a process is started by; a change of it needs a restart."""
    command = {name: _plain(getattr(spec.command, name)) for name in _STARTED_BY}
    if spec.command.container is not None:
        command["container"] = _plain(spec.command.container)
    chart = "" if spec.chart is None else digest_of(spec.chart)
    text = json.dumps([spec.name, command, spec.endpoint, chart], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _plain(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
