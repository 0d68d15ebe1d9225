"""KV settings of one model."""

from __future__ import annotations

from pathlib import Path

from ...dataclass import dataclass

_SLACK_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KvSettings:
    """KV settings of one model.

    Attributes:
        directory: Parent of its folder; None means the manager's. If the model's command names a
            folder, this is the path of that folder on this host, such as a container's volume.
        tmpfs: Parent of its folder in memory; `directory` then holds copies that survive a reboot.
            If the model's command names a folder, that folder is in memory.
        manages_args: Add ``--slot-save-path`` to the command if it is missing.
        min_tokens: Smaller slots are not saved; >= 0.
        timeout_s: Limit of one save or restore of all slots; seconds > 0.
        allows_swa: Restore models with a sliding window if they run with ``--swa-full``.
        max_bytes: Limit of all files of the model; None means unlimited.
        max_age_s: Limit of the time since a save; seconds, None means unlimited.
        has_checkpoints: Save slots also while the server is idle.
        write_budget: Bytes that checkpoints and the library may write in an hour; > 0.
        library_bytes: Size of the library of conversations; None means that there is none.
    """

    directory: Path | None = None
    tmpfs: Path | None = None
    manages_args: bool = False
    min_tokens: int = 256
    timeout_s: float = 10.0
    allows_swa: bool = False
    max_bytes: int | None = None
    max_age_s: float | None = None
    has_checkpoints: bool = False
    write_budget: int = 10 << 30
    library_bytes: int | None = None

    @property
    def hook_timeout_s(self) -> float:
        """Limit of a KV hook; seconds. `timeout_s` ends it in good order before."""
        return self.timeout_s + _SLACK_S
