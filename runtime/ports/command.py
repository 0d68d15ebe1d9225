"""Commands: what a launcher starts or runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..arguments import require_flag, require_text, require_texts_by_name, require_url, texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command to run, without a shell.

    Attributes:
        argv: Program, looked up in PATH, and arguments; at least one item, unless `is_external`.
        env: Environment variables, added to those of the proxy.
        cwd: Working directory; None means that of the proxy.
        label: Name of the service that it belongs to; marks the process tree.
        listens_at: URL at which it will serve; no other process may listen there at its start.
            None skips that check. Not part of equality.
        is_external: The server runs outside of the tree of the command and is never signaled. Only
            `adapters.process.ExternalLauncher` supports it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    label: str = ""
    listens_at: str | None = field(default=None, compare=False)
    is_external: bool = False

    def __post_init__(self) -> None:
        """Check the fields; a list of arguments becomes a tuple.

        Raises:
            ConfigError: A field has a wrong type, or there is no program.
        """
        require_flag("command.is_external", self.is_external)
        argv = texts("command.argv", self.argv, least=0 if self.is_external else 1)
        object.__setattr__(self, "argv", argv)
        require_texts_by_name("command.env", self.env)
        require_text("command.cwd", self.cwd, or_none=True)
        require_text("command.label", self.label)
        require_url("command.listens_at", self.listens_at, or_none=True)
