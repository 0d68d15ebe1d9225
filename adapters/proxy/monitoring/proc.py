"""Numbers of the kernel about the whole machine, from /proc."""

from __future__ import annotations

from pathlib import Path

_SENT = 8  # place of the bytes sent among the numbers of an interface


def memory_bytes(proc: Path) -> dict[str, int]:
    """Return the entries of /proc/meminfo that have a unit, in bytes, by name.

    Raises:
        OSError: It cannot be read.
    """
    lines = (proc / "meminfo").read_text().splitlines()
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {word[0].rstrip(":"): int(word[1]) * 1024 for word in words}


def core_ticks(proc: Path) -> list[tuple[int, int]]:
    """Return for each core the ticks of all time, and those without work, since the boot.

    Raises:
        OSError: /proc/stat cannot be read.
    """
    found = []
    for line in (proc / "stat").read_text().splitlines():
        name, *numbers = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = list(map(int, numbers))[:8]  # those of guests behind them are part of user
            found.append((sum(ticks), ticks[3] + ticks[4]))
    return found


def interface_bytes(proc: Path) -> dict[str, tuple[int, int]]:
    """Return the bytes that each network interface has received and sent.

    Raises:
        OSError: /proc/net/dev cannot be read.
    """
    found = {}
    for line in (proc / "net" / "dev").read_text().splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        numbers = rest.split()
        found[name.strip()] = int(numbers[0]), int(numbers[_SENT])
    return found
