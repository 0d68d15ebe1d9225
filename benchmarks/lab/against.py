"""Paired comparison of this checkout with another one: `--against CHECKOUT`.

Both are measured in the same run, each round one right after the other in random order, so that
what disturbs the machine disturbs both. A figure counts as worse only when the median of the
rounds' ratios exceeds `LIMIT` and at least nine of ten rounds agree that it grew.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .report import median, table

#: A figure may grow by this factor; 3 %.
LIMIT = 1.03
#: Share of the rounds that must agree before a loss counts.
AGREEMENT = 0.9
#: Rounds of a comparison that may be quoted.
ROUNDS = 10

_ROOT = Path(__file__).resolve().parents[2]


def add_against(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--against CHECKOUT`` to a benchmark."""
    parser.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare with another checkout, in pairs; exit 1 if a figure is more than 3 %% worse",
    )


def environments(checkout: Path) -> dict[str, tuple[str, str]]:
    """Return the interpreters of both checkouts: "" and, if both have it, ", compiled".

    Returns:
        Suffix of the variant -> (Python of this checkout, Python of *checkout*).

    Raises:
        SystemExit: *checkout* is no checkout of this project, or its environment cannot be made.
    """
    command = checkout / "dev"
    if not command.is_file():
        raise SystemExit(f"--against {checkout}: expected a checkout of swapchart, found no ./dev")
    if not (checkout / ".venv" / "bin" / "python").exists():
        clean = {name: value for name, value in os.environ.items() if name != "SWAPCHART_COMPILE"}
        if subprocess.run([command, "setup"], check=False, env=clean).returncode:
            raise SystemExit(f"--against {checkout}: ./dev setup failed there")
    found = {"": (sys.executable, str(checkout / ".venv" / "bin" / "python"))}
    compiled = [folder / ".venv-compiled" / "bin" / "python" for folder in (_ROOT, checkout)]
    if all(python.exists() for python in compiled):
        found[", compiled"] = (str(compiled[0]), str(compiled[1]))
    return found


class Comparison:
    """Figures of this checkout ("now") and of the other ("before"), round by round."""

    def __init__(self) -> None:
        self._pairs: dict[str, list[tuple[float, float]]] = {}

    def measure(
        self, names: Sequence[str], now: Callable[[], Sequence[float]],
        before: Callable[[], Sequence[float]],
    ) -> None:  # fmt: skip
        """Run both in random order and note the figures *names*; smaller is better in each."""
        if random.random() < 0.5:
            own = now()
            other = before()
        else:
            other = before()
            own = now()
        for name, value, reference in zip(names, own, other, strict=True):
            self.note(name, value, reference)

    def note(self, name: str, own: float, other: float) -> None:
        """Note the figure *name* of one round; smaller is better."""
        self._pairs.setdefault(name, []).append((own, other))

    @property
    def losses(self) -> list[str]:
        """Names of the figures that became worse."""
        return [name for name in self._pairs if self._verdict(name)[2]]

    def _verdict(self, name: str) -> tuple[float, float, bool]:
        ratios = [own / other for own, other in self._pairs[name] if other > 0]
        worse = sum(1 for ratio in ratios if ratio > 1) / max(len(ratios), 1)
        ratio = median(ratios)
        return ratio, worse, ratio > LIMIT and worse >= AGREEMENT

    def table(self) -> str:
        """Return all figures as a table."""
        rows = []
        for name, pairs in self._pairs.items():
            ratio, worse, is_loss = self._verdict(name)
            rows.append(
                [
                    name, f"{median(other for _, other in pairs):,.4g}",
                    f"{median(own for own, _ in pairs):,.4g}", f"{ratio:.3f}",
                    f"{worse * len(pairs):.0f} of {len(pairs)}", "WORSE" if is_loss else "",
                ]
            )  # fmt: skip
        columns = ["figure", "before", "now", "median ratio", "rounds that grew", ""]
        return table(columns, rows)

    def conclude(self) -> int:
        """Print the table; returns 1 when a figure became worse, else 0."""
        print(self.table())
        losses = self.losses
        print(
            f"\n{len(losses)} of {len(self._pairs)} figures are more than "
            f"{LIMIT - 1:.0%} worse" + (": " + "; ".join(losses) if losses else "")
        )
        return 1 if losses else 0
