"""Which drawn diagrams differ from others: ``./dev python tests/tools/stale_diagrams.py OLD NEW``.

Versions of Graphviz route the same line some tenths of a point apart, so coordinates of an SVG may
differ by that much. Everything else must be equal, byte by byte.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

#: How far apart a coordinate may be, in points.
TOLERANCE = 3.0

_NUMBER = re.compile(rb"(?<![#0-9a-fs.])\d+(?:\.\d+)?")  # not those of colors


def stale_diagrams(old: Path, new: Path) -> list[str]:
    """Return the names of the files that only one folder has, or that differ."""
    names = sorted({path.name for folder in (old, new) for path in folder.iterdir()})
    return [name for name in names if not _is_same(old / name, new / name)]


def _is_same(old: Path, new: Path) -> bool:
    if not (old.is_file() and new.is_file()):
        return False
    before, after = old.read_bytes(), new.read_bytes()
    if before == after:
        return True
    if old.suffix != ".svg" or _NUMBER.sub(b"0", before) != _NUMBER.sub(b"0", after):
        return False
    pairs = zip(_NUMBER.findall(before), _NUMBER.findall(after), strict=True)
    return all(abs(float(a) - float(b)) <= TOLERANCE for a, b in pairs)


if __name__ == "__main__":
    if found := stale_diagrams(Path(sys.argv[1]), Path(sys.argv[2])):
        sys.exit(f"stale: {', '.join(found)}; run ./dev diagrams and commit")
