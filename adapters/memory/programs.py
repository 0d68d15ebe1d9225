"""Programs that are not services of the proxy and hold memory of a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

_MOST = 5  # programs that are named


def split_by_owner(
    held: Mapping[int, int], pids: Collection[int], root: Path = Path("/")
) -> tuple[dict[int, int], dict[str, int]]:
    """Return what the processes *pids* hold, and what other programs hold by name.

    Only the largest programs are named; processes of one name are added up.

    Args:
        held: Process id -> bytes.
        pids: Processes of services.
        root: Root of the file system, for tests.
    """
    own = {pid: amount for pid, amount in held.items() if pid in pids}
    programs: Counter[str] = Counter()
    for pid, amount in held.items():
        if pid not in own and amount:
            programs[_name_of(pid, root)] += amount
    return own, dict(programs.most_common(_MOST))


def _name_of(pid: int, root: Path) -> str:
    with suppress(OSError):
        name = (root / f"proc/{pid}/comm").read_text("utf-8", "replace").strip()
        if name:
            return name
    return f"process {pid}"
