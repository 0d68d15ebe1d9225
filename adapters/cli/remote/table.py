"""Tables and amounts as commands print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MIB, _GIB = 1 << 20, 1 << 30


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return *rows* below *header*; numbers stand at the right, a missing value is a dash."""
    body = [["-" if cell in (None, "") else cell for cell in row] for row in rows]
    texts = [list(map(str, header)), *([_one_line(str(cell)) for cell in row] for row in body)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    is_number = [
        bool(body) and all(isinstance(row[n], int | float) or row[n] == "-" for row in body)
        for n in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in texts
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def size(amount: float) -> str:
    """Return *amount* bytes in words: ``12.3 GiB``, or ``512 MiB`` below 1 GiB.

    `runtime.memory.size` does the same, but importing the runtime takes 0.4 s of CPU.
    """
    if abs(amount) < _GIB:
        return f"{amount / _MIB:.0f} MiB"
    return f"{amount / _GIB:.1f} GiB"


def count(number: int, noun: str) -> str:
    """Return *number* with *noun* in its plural, such as ``2 models``."""
    return f"{number} {noun}{'s' * (number != 1)}"
