"""Files that are replaced at once: a reader finds the old content, or all of the new one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write *text* to the file at *path*, with the mode that a new file gets.

    Raises:
        OSError: It cannot be written; an existing file has its old content.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(descriptor, 0o666 & ~_umask())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
