"""Fingerprint: the facts that must be equal before a saved slot is offered to a server. Pure.

The server checks shapes only. It accepts a slot of other weights of the same shape without an
error, and then every response is wrong. So files count by their contents, and every option counts
unless it is known to be harmless.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from ...dataclass import dataclass
from ..llama_cpp.launch_args import LaunchLine, relevant_variables

_BETWEEN_OPTIONS = re.compile(r" (?=-|LLAMA_ARG_)")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Facts that a saved slot depends on.

    Attributes:
        facts: Name -> text, sorted by name.
    """

    facts: Mapping[str, str]

    @property
    def key(self) -> str:
        """Hash of the facts; 24 hexadecimal digits."""
        text = json.dumps(self.facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def differences(self, other: Mapping[str, str]) -> list[str]:
        """Return the differences between *other* and these facts, in words.

        Of options, only those that differ are named.
        """
        names = sorted(self.facts.keys() | other.keys())
        return [
            f"{name}: {' -> '.join(_apart(other.get(name, ''), self.facts.get(name, '')))}"
            for name in names
            if self.facts.get(name) != other.get(name)
        ]


def _apart(before: str, after: str) -> tuple[str, str]:
    old, new = _BETWEEN_OPTIONS.split(before), _BETWEEN_OPTIONS.split(after)
    return (
        " ".join(text for text in old if text not in new) or "none",
        " ".join(text for text in new if text not in old) or "none",
    )


def fingerprint(
    line: LaunchLine,
    environment: Mapping[str, str],
    props: Mapping[str, Any],
    *,
    binary: str,
    files: Mapping[str, str],
    adapters: str = "",
) -> Fingerprint:
    """Build the fingerprint.

    Args:
        line: Command line of the server.
        environment: Environment of its process; only variables that llama-server reads count.
        props: Response of ``/props``.
        binary: Identity of the program's file.
        files: Purpose of a file -> its identity; see ``gguf.file_identity``.
        adapters: Response of ``/lora-adapters``, which may change while the server runs.
    """
    settings = props.get("default_generation_settings") or {}
    facts = {
        "build": str(props.get("build_info", "")),
        "binary": binary,
        "slots": str(props.get("total_slots", "")),
        "tokens per slot": str(settings.get("n_ctx", "")),
        "modalities": json.dumps(props.get("modalities", {}), sort_keys=True),
        "options": " ".join(line.relevant()),
        "variables": " ".join(relevant_variables(environment)),
        "adapters": adapters,
        **{f"file {name}": identity for name, identity in files.items()},
    }
    return Fingerprint({name: facts[name] for name in sorted(facts) if facts[name]})
