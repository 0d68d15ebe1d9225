"""What is wanted for one model. Values, made by whoever composes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SLACK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSettings:
    """How the conversations of one model are kept.

    Attributes:
        directory: Where its folder is made; None: in the keeper's. If its command names a folder
            already, this is that very folder as we see it, such as a container's volume.
        tmpfs: Where its folder is made instead, in memory; then ``directory`` holds copies that
            outlive the machine. If its command names a folder, that one is in memory.
        manages_args: Add ``--slot-save-path`` to its command where it is missing.
        min_tokens: Smaller slots are not saved; >= 0.
        timeout_s: Budget of one save or restore of all slots; seconds > 0.
        allows_swa: Restore models with a sliding window, if they run with ``--swa-full``.
        max_bytes: Of all its files; None is without limit.
        max_age_s: Since a file was saved; None is without limit.
    """

    directory: Path | None = None
    tmpfs: Path | None = None
    manages_args: bool = False
    min_tokens: int = 256
    timeout_s: float = 10.0
    allows_swa: bool = False
    max_bytes: int | None = None
    max_age_s: float | None = None

    @property
    def hook_timeout_s(self) -> float:
        """When a hook of ours is killed; seconds. Its own deadline ends it in good order before."""
        return self.timeout_s + _SLACK_S
