"""CPU and latency of the proxy beside nginx, Caddy and llama-swap, in one interleaved run.

The load and the upstream share one core, the proxy has another. All contenders stay up; rounds go
through them in random order; figures are medians over rounds. Answers are held to those of the
upstream first, byte by byte, and a run with a single error is thrown away.

llama-swap takes part if LLAMA_SWAP names its program. With ``--against``, so does swapchart of
another checkout; each measurement of it is made right before or after that of this checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lab import load
from lab.against import ROUNDS, Comparison, add_against, environments
from lab.contenders import (
    MissingError,
    Running,
    Variant,
    paired_variants,
    start_caddy,
    start_llama_swap,
    start_nginx,
    start_swapchart,
    start_upstream,
    swapchart_variants,
    versions,
)
from lab.processes import pss_bytes, rss_bytes
from lab.proxy_tables import (
    KINDS,
    Figures,
    compare,
    memory_table,
    short_table,
    stream_table,
    summary_table,
)
from lab.report import Weather, document, publish, put_table

_STREAMS = 256
_PERIOD_US = 10_000
_SETTLE_S = 1.0  # until idle memory is read: some load code after they have begun to listen

#: Contenders that are measured next to each other: name -> what starts it in a folder.
Group = Mapping[str, Callable[[Path], Running]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long everything takes; seconds.

    Attributes:
        rounds: How often each contender gets its turn, and is started.
        short_s: 64 connections asking as fast as they can.
        single_s: One connection.
        first_s: One short stream after the other.
        paced_s: 256 streams, one event in 10 ms each.
        flood_s: 16 streams, flat out.
        slow_s: 256 slow readers; once.
    """

    rounds: int
    short_s: float
    single_s: float
    first_s: float
    paced_s: float
    flood_s: float
    slow_s: float


QUICK = Plan(rounds=1, short_s=1, single_s=1, first_s=0.3, paced_s=1.5, flood_s=1, slow_s=2)
FULL = Plan(rounds=5, short_s=3, single_s=3, first_s=1, paced_s=4, flood_s=2, slow_s=8)


def groups(upstream: int, only: Sequence[str], checkout: Path | None) -> list[Group]:
    """Return the contenders that are wanted; with *checkout*, its swapchart beside this one."""
    found: list[Group] = [
        {"nginx": lambda folder: start_nginx(folder, upstream)},
        {"caddy": lambda folder: start_caddy(folder, upstream)},
        {"llama-swap": start_llama_swap},
    ]
    variants: Sequence[Sequence[Variant]] = (
        paired_variants(environments(checkout))
        if checkout
        else [[variant] for variant in swapchart_variants()]
    )
    found += [{one.name: partial(_start, one) for one in variant} for variant in variants]
    wanted = [
        {name: start for name, start in group.items() if _is_wanted(name, only)} for group in found
    ]
    return [group for group in wanted if group]


def _is_wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(word in name for word in only)


def _start(variant: Variant, folder: Path) -> Running:
    return start_swapchart(folder, variant.name, *variant.options, python=variant.python)


def start_all(
    stack: contextlib.ExitStack, folder: Path, wanted: Sequence[Group], rounds: int,
    figures: Mapping[str, Figures],
) -> list[list[Running]]:  # fmt: skip
    """Start each contender *rounds* times and once before, for its files; the last one stays up."""
    starters = {name: start for group in wanted for name, start in group.items()}
    running: dict[str, Running] = {}
    for number in range(-1, rounds):
        for name in random.sample(list(starters), len(starters)):
            print(f"start {number + 1} of {rounds}: {name}", file=sys.stderr)
            try:
                one = starters[name](folder / f"{len(list(folder.iterdir()))}")
            except MissingError as error:
                print(f"without {name}: {error}", file=sys.stderr)
                del starters[name]
                continue
            found = figures[name]
            if number >= 0:
                found.starts_s.append(one.listening_s)
                time.sleep(_SETTLE_S)
                found.idle_bytes.append(rss_bytes(one.pids()))
                found.idle_pss_bytes.append(sum(map(pss_bytes, one.pids())))
            if number < rounds - 1:
                one.process.stop()
            else:
                stack.callback(one.process.stop)
                running[name] = one
    return [[running[name] for name in group if name in running] for group in wanted]


def measure(
    contenders: Sequence[Sequence[Running]], folder: Path, plan: Plan, weather: Weather,
    figures: Mapping[str, Figures],
) -> None:  # fmt: skip
    """Run all rounds; contenders of one inner sequence alternate."""
    script = load.write_script(folder)
    measures: dict[str, Callable[[Running], load.Short | load.First | load.Streams]] = {
        "short": lambda one: load.short(one, script, connections=64, seconds=plan.short_s),
        "single": lambda one: load.short(one, script, connections=1, seconds=plan.single_s),
        "first": lambda one: load.first_events(one, folder, seconds=plan.first_s),
        "paced": lambda one: load.streams(
            one, folder, count=_STREAMS, period_us=_PERIOD_US, seconds=plan.paced_s
        ),
        "flood": lambda one: load.streams(
            one, folder, count=16, period_us=0, seconds=plan.flood_s
        ),
    }  # fmt: skip
    for number in range(plan.rounds):
        for group in random.sample(contenders, len(contenders)):
            names = ", ".join(one.name for one in group)
            print(f"round {number + 1} of {plan.rounds}: {names}", file=sys.stderr)
            for kind in KINDS:
                for one in random.sample(group, len(group)):
                    with _thrown_away(figures[one.name]):
                        figures[one.name].rounds[kind][number] = measures[kind](one)
            weather.note()
    for one in (one for group in contenders for one in group if one.is_proxy):
        print(f"slow readers: {one.name}", file=sys.stderr)
        with _thrown_away(figures[one.name]):
            figures[one.name].slow_bytes = load.slow_readers(
                one, folder, count=_STREAMS, seconds=plan.slow_s
            )


@contextlib.contextmanager
def _thrown_away(found: Figures) -> Iterator[None]:
    try:
        yield
    except load.InvalidRunError as error:
        found.thrown += 1
        print(f"thrown away: {error}", file=sys.stderr)


def conclude(contenders: Sequence[Sequence[Running]], figures: Mapping[str, Figures]) -> int:
    """Print the comparison of this checkout with the other one; returns the exit code."""
    comparison = Comparison()
    for group in contenders:
        if len(group) == 2:
            now, before = (one.name for one in group)
            name = now.removeprefix("swapchart, ")
            compare(comparison, name, figures[now], figures[before])
    return comparison.conclude()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some minutes; nothing is kept")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD",
        help="only contenders with this in their name; may be given several times",
    )  # fmt: skip
    add_against(parser)
    options = parser.parse_args()
    checkout = options.against and options.against.resolve()
    plan = QUICK if options.quick else FULL
    rounds = options.rounds or (ROUNDS if checkout and not options.quick else plan.rounds)
    plan = replace(plan, rounds=rounds)
    weather = Weather()
    figures: dict[str, Figures] = defaultdict(Figures)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swapchart-bench-")))
        direct = start_upstream(folder / "upstream")
        stack.callback(direct.process.stop)
        places = folder / "contenders"
        places.mkdir()
        wanted = groups(direct.port, options.only, checkout)
        others = start_all(stack, places, wanted, rounds, figures)
        for running in (one for group in others for one in group):
            load.check_equal(running, direct)
        measure([[direct], *others], folder, plan, weather, figures)
    contenders = [direct, *(one for group in others for one in group)]
    command = "./dev bench proxy" + (" --quick" if options.quick else f" --rounds {rounds}")
    if "llama-swap" in figures:
        command = f"LLAMA_SWAP={Path(os.environ['LLAMA_SWAP']).name} {command}"
    text = report(contenders, figures, command, weather)
    own = [one for one in contenders if "before" not in one.name]
    kept = report(own, figures, command, weather)
    is_kept = not (options.quick or options.only)
    publish("proxy", text, kept=kept if is_kept else None)
    if is_kept and "llama-swap" in figures:
        put_table("## Streams and requests", summary_table(own, figures))
    if checkout:
        sys.exit(conclude(others, figures))


def report(
    contenders: Sequence[Running], figures: Mapping[str, Figures], command: str, weather: Weather
) -> str:
    """Return the report of *contenders*."""
    tables = (summary_table, short_table, stream_table, memory_table)
    parts = [made(contenders, figures) for made in tables]
    names = [one.name for one in contenders]
    return document("The proxy", command, parts, weather, versions([*names, "wrk"]))


if __name__ == "__main__":
    main()
