"""Every attack of the corpus against every variant of the proxy."""

from __future__ import annotations

import importlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tools.net import wait_until

from .corpus import ATTACKS
from .entry import VARIANTS, Attack, Setup
from .target import Target

pytestmark = pytest.mark.slow

MIB = 1 << 20
BLOCKED_S = 0.5  # five times what the event loop may be blocked on an idle machine
TRIES = 3
_PROBE = Path(__file__).with_name("probe.py")
_IS_COMPILED = str(importlib.import_module("swapchart.adapters.http1.headers").__file__).endswith(
    ".so"
)
_VARIANTS = ["compiled"] if _IS_COMPILED else [name for name in VARIANTS if name != "compiled"]
_CASES = [
    pytest.param(variant, attack, id=f"{attack.name}-{variant.replace(' --', '-')}")
    for variant in _VARIANTS
    for attack in ATTACKS
    if variant in attack.variants
]
_TROUBLE = re.compile(r"Traceback|never retrieved|was never awaited|does not handle|ERROR")


class Targets:
    """Running proxies of all variants; attacks with equal starting conditions share one."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._all: dict[tuple[str, Setup], Target] = {}
        self._count = 0

    def get(self, variant: str, attack: Attack) -> Target:
        """Return the proxy for *attack*; a new one if an earlier attack has broken it."""
        key = variant, attack.setup
        target = self._all.get(key)
        if target is not None and target.is_alive():
            return target
        if target is not None:
            target.close()
        self._count += 1
        folder = self._root / str(self._count)
        folder.mkdir()
        setup = attack.setup
        target = Target(
            variant,
            folder,
            config=json.loads(setup.config),
            options=setup.options,
            env=dict(setup.env),
        )
        self._all[key] = target
        target.warm_up()
        return target

    def close(self) -> None:
        """Kill all of them."""
        for target in self._all.values():
            target.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Figures of one run.

    Attributes:
        stall_s: Longest time that ``/health`` took.
        own_s: Latest wakeup of the probe: how busy the machine was.
        cpu_s: CPU time of the proxy, the polling included.
        growth: Growth of the peak resident memory; bytes.
        took_s: Duration of the attack.
    """

    stall_s: float
    own_s: float
    cpu_s: float
    growth: int
    took_s: float

    def __str__(self) -> str:
        return (
            f"stall {self.stall_s * 1000:.0f} ms (probe late {self.own_s * 1000:.0f} ms), "
            f"cpu {self.cpu_s:.2f} s, memory +{self.growth / MIB:.1f} MiB, took {self.took_s:.2f} s"
        )


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    found = Targets(tmp_path_factory.mktemp("attacks"))
    yield found
    found.close()


def measure(target: Target, attack: Attack) -> Measured:
    """Run *attack* once, with the probe beside it."""
    memory, cpu_s = target.reset_peak(), target.cpu_s()
    argv = [sys.executable, "-I", "-S", str(_PROBE), str(target.port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        assert probe.stdout is not None
        try:
            assert probe.stdout.readline() == "ready\n"
            began = time.monotonic()
            attack.run(target)
            took_s = time.monotonic() - began
            seen = json.loads(probe.communicate("end")[0])
        finally:
            probe.kill()
    assert seen["polls"] > 0
    return Measured(
        stall_s=seen["worst_s"],
        own_s=seen["own_s"],
        cpu_s=target.cpu_s() - cpu_s,
        growth=max(target.peak() - memory, 0),
        took_s=took_s,
    )


@pytest.mark.parametrize(("variant", "attack"), _CASES)
def test_attack_in_each_variant_stays_within_its_bounds(
    targets: Targets, variant: str, attack: Attack
) -> None:
    """The event loop is not blocked, memory stays bounded, and the proxy serves afterwards."""
    target = targets.get(variant, attack)
    descriptors, logged = target.descriptors(), len(target.proxy.output())
    growth, runs = 0, []
    for _ in range(TRIES):
        runs.append(measure(target, attack))
        growth = max(growth, runs[-1].growth)
        print(f"{attack.name} {variant}: {runs[-1]}")
        if runs[-1].stall_s < BLOCKED_S:
            break
    log = target.proxy.output()[logged:]

    assert min(run.stall_s for run in runs) < BLOCKED_S, log
    assert growth <= attack.growth_mib * MIB, f"memory grew by {growth / MIB:.1f} MiB"
    target.assert_serves()
    target.wait_quiet()
    wait_until(
        lambda: target.descriptors() <= descriptors,
        what=lambda: f"{target.descriptors()} descriptors, not {descriptors}",
    )
    lines = log.splitlines()
    trouble = [line for line in lines if _TROUBLE.search(line)]
    unexpected = [
        line for line in trouble if not (attack.may_log and re.search(attack.may_log, line))
    ]
    assert not unexpected, log


def test_measure_while_the_proxy_stands_still_sees_the_stall(targets: Targets) -> None:
    """A process that is stopped for 0.7 s is as late as one whose event loop is blocked."""

    def stand_still(target: Target) -> None:
        target.proxy.signal(signal.SIGSTOP)
        time.sleep(0.7)
        target.proxy.signal(signal.SIGCONT)

    attack = Attack(stand_still)

    assert measure(targets.get(_VARIANTS[0], attack), attack).stall_s > BLOCKED_S


def test_corpus_has_no_name_twice() -> None:
    """A report could not distinguish two attacks of one name."""
    names = [attack.name for attack in ATTACKS]

    assert sorted(set(names)) == sorted(names)
