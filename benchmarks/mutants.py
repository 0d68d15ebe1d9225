"""How good are the promises of our chart? The share of its single-edit mutants that they refute.

    ./dev bench mutants [--every N]

Prints every survivor with its reason, and fails below 95 %. A mutant that python-statemachine
itself refuses counts as caught, one that is equivalent to the original does not count.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from itertools import islice

from swapchart.machine import Bounds, ChartError, Document, Value, check, lifecycle
from swapchart.machine.checking.explore import parameter_sets
from swapchart.machine.checking.mutants import Mutant, is_equivalent, mutants

WANTED = 0.95
#: Sets of parameters that differ in everything come first: most mutants fall at one of them.
CORNERS = (
    (2, "permanent", "abort", "refuse"),
    (1, "temporary", "finish", "cut"),
    (2, "transient", "abort", "wait"),
)


def ordered_sets(document: Document) -> list[dict[str, Value]]:
    """Return all sets of parameters, those of CORNERS first."""
    sets = list(parameter_sets(document, Bounds()))
    return sorted(sets, key=lambda values: tuple(values.values()) not in CORNERS)


def verdict(document: Document, mutant: Mutant, sets: list[dict[str, Value]]) -> str:
    """Say what becomes of *mutant*: the kind of what refutes it, ``equivalent`` or ``survives``."""
    try:
        report = check(mutant.document, parameters=sets, stop_at_first=True)
        if not report.is_ok:
            return report.findings[0].kind
        return "equivalent" if is_equivalent(document, mutant.document) else "survives"
    except ChartError:
        return "refused by python-statemachine"


def main() -> int:
    """Run all mutants and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every Nth mutant")
    step = parser.parse_args().every
    document, began = lifecycle(), time.perf_counter()
    sets = ordered_sets(document)
    verdicts: Counter[str] = Counter()
    for mutant in islice(mutants(document), 0, None, step):
        found = verdict(document, mutant, sets)
        verdicts[found] += 1
        if found == "equivalent":
            print(f"equivalent: {mutant.name}: no reachable step of it differs", flush=True)
        elif found == "survives":
            print(f"SURVIVES: {mutant.name}: a promise is missing", flush=True)
    total = verdicts.total() - verdicts["equivalent"]
    caught = total - verdicts["survives"]
    print()
    for kind, count in verdicts.most_common():
        print(f"{count:6} {kind}")
    print(
        f"\n{caught} of {total} mutants caught ({100 * caught / total:.1f} %), "
        f"{verdicts['equivalent']} equivalent, {time.perf_counter() - began:.0f} s"
    )
    return 0 if caught >= WANTED * total else 1


if __name__ == "__main__":
    sys.exit(main())
