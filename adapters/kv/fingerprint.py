"""What must be equal for a saved slot to be offered to a server. Pure, on facts that are given.

The server checks shapes only: a slot of other weights of the same shape is taken without a word,
and then every answer is wrong. So the files count by what they hold, and whatever is not known to
be harmless counts too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..llama_cpp.launch_args import LaunchLine, relevant_variables

_BETWEEN_OPTIONS = re.compile(r" (?=-|LLAMA_ARG_)")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The facts that a saved slot depends on.

    Attributes:
        facts: Name -> text, sorted by name.
    """

    facts: Mapping[str, str]

    @property
    def key(self) -> str:
        """Short text that differs when any fact does; 24 hexadecimal digits."""
        text = json.dumps(self.facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def differences(self, other: Mapping[str, str]) -> list[str]:
        """Say in words what *other* has and this has not, and the other way round.

        Of options, only those that differ.
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
    """Put the facts together.

    Args:
        line: How it was started.
        environment: Of the process; only what llama-server reads as options counts.
        props: Answer of ``/props``.
        binary: Identity of the program's file.
        files: What a file is for -> its identity; see ``gguf.file_identity``.
        adapters: Answer of ``/lora-adapters``, which may change while it runs.
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
