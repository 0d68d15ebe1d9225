"""Random simulation: every request ends, and no process is left."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.storm import Report, Storm
from tools.rows import row

from swapchart.runtime.testing import run_virtual

FIXED = 10
#: Seeds that have found a defect.
REGRESSIONS = (1095, 1179, 1215, 1262, 2320, 2494, 3111, 7803, 939182462)


def seeds() -> list[int]:
    """Return fixed seeds, or those of SWAPCHART_SEEDS, such as 3,5 or 100-200.

    SWAPCHART_FRESH_SEEDS is the number of random ones besides; ``./dev test-all`` sets it.
    """
    given = os.environ.get("SWAPCHART_SEEDS", "")
    if "-" in given:
        first, last = given.split("-")
        return list(range(int(first), int(last) + 1))
    if given:
        return [int(seed) for seed in given.split(",")]
    # The processes of one run have to find the same tests.
    fresh = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
    count = int(os.environ.get("SWAPCHART_FRESH_SEEDS", "0"))
    return [
        *range(FIXED),
        *REGRESSIONS,
        *(fresh.randrange(10**6, 10**9) for _ in range(count)),
    ]


def simulate(seed: int) -> Report:
    return run_virtual(Storm(seed).run, seed=seed)


@pytest.mark.parametrize("seed", seeds())
@row("D12")
def test_storm_leaves_no_process_and_no_request(seed: int) -> None:
    """Clients, operators and faults are random; SWAPCHART_SEEDS=seed repeats a failing seed."""
    report = simulate(seed)

    assert report.problems == [], f"repeat with SWAPCHART_SEEDS={seed} (trace {report.hash})"
    assert sum(report.outcomes.values()) > 20


def test_storm_with_the_same_seed_repeats() -> None:
    """The trace is equal to the last float, also in a process with another hash seed."""
    tests = str(Path(__file__).parent.parent)
    script = (
        f"import sys; sys.path.insert(0, {tests!r})\n"
        "from simulation.test_storm import simulate\n"
        "print(simulate(1).hash)\n"
    )
    other_process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        cwd=tests, env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    own = [simulate(1).hash for _ in range(2)]

    assert [other_process.stdout.strip()] * 2 == own
    assert simulate(0).hash != own[0]
