"""CPU and latency of the proxy beside nginx and Caddy, in one interleaved run.

The load and the upstream share one core, the proxy has another. All contenders stay up; rounds go
through them in random order; figures are medians over rounds. Answers are held to those of the
upstream first, byte by byte, and a run with a single error is thrown away.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from lab import load
from lab.against import ROUNDS, Comparison, add_against, environments
from lab.contenders import (
    MissingError,
    Running,
    Variant,
    start_caddy,
    start_nginx,
    start_swapchart,
    start_upstream,
    swapchart_variants,
    versions,
)
from lab.processes import rss_bytes
from lab.report import Weather, document, median, publish, table

_STREAMS = 256
_PERIOD_US = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long everything takes; seconds.

    Attributes:
        rounds: How often each contender gets its turn.
        short_s: 64 connections asking as fast as they can.
        single_s: One connection.
        paced_s: 256 streams, one event in 10 ms each.
        flood_s: 16 streams, flat out.
        slow_s: 256 slow readers; once.
    """

    rounds: int
    short_s: float
    single_s: float
    paced_s: float
    flood_s: float
    slow_s: float


QUICK = Plan(rounds=1, short_s=1, single_s=1, paced_s=1.5, flood_s=1, slow_s=2)
FULL = Plan(rounds=5, short_s=3, single_s=3, paced_s=4, flood_s=2, slow_s=8)


@dataclass(slots=True)
class Figures:
    """Measurements of one contender, a value a round."""

    short: list[load.Short] = field(default_factory=list)
    single: list[load.Short] = field(default_factory=list)
    paced: list[load.Streams] = field(default_factory=list)
    flood: list[load.Streams] = field(default_factory=list)
    slow: tuple[int, int] = (0, 0)
    thrown: int = 0


def start_all(
    stack: contextlib.ExitStack, folder: Path, only: Sequence[str]
) -> tuple[Running, list[Running]]:
    """Start every contender; returns the upstream and the others, nearest to it first."""
    direct = start_upstream(folder / "upstream")
    stack.callback(direct.process.stop)
    starters: list[tuple[str, Callable[[], Running]]] = [
        ("nginx", lambda: start_nginx(folder / "nginx", direct.port)),
        ("caddy", lambda: start_caddy(folder / "caddy", direct.port)),
    ]
    for number, variant in enumerate(swapchart_variants()):
        place = folder / f"swapchart-{number}"
        starters.append((variant.name, partial(_start, place, variant)))
    found = []
    for name, start in starters:
        if only and not any(word in name for word in only):
            continue
        try:
            running = start()
        except MissingError as error:
            print(f"without {name}: {error}", file=sys.stderr)
            continue
        stack.callback(running.process.stop)
        running.idle_bytes = rss_bytes(running.pids())
        found.append(running)
    return direct, found


def _start(folder: Path, variant: Variant) -> Running:
    return start_swapchart(folder, variant.name, *variant.options, python=variant.python)


def measure(
    contenders: Sequence[Running], folder: Path, plan: Plan, weather: Weather
) -> dict[str, Figures]:
    """Run all rounds."""
    script = load.write_script(folder)
    figures: dict[str, Figures] = defaultdict(Figures)
    for number in range(plan.rounds):
        for running in random.sample(contenders, len(contenders)):
            found = figures[running.name]
            print(f"round {number + 1} of {plan.rounds}: {running.name}", file=sys.stderr)
            with _thrown_away(found):
                found.short.append(
                    load.short(running, script, connections=64, seconds=plan.short_s)
                )
            with _thrown_away(found):
                found.single.append(
                    load.short(running, script, connections=1, seconds=plan.single_s)
                )
            with _thrown_away(found):
                found.paced.append(
                    load.streams(
                        running, folder, count=_STREAMS, period_us=_PERIOD_US, seconds=plan.paced_s
                    )
                )
            with _thrown_away(found):
                found.flood.append(
                    load.streams(running, folder, count=16, period_us=0, seconds=plan.flood_s)
                )
            weather.note()
    for running in contenders:
        if running.is_proxy:
            with _thrown_away(figures[running.name]):
                figures[running.name].slow = load.slow_readers(
                    running, folder, count=_STREAMS, seconds=plan.slow_s
                )
    return figures


# ---- another checkout
#: What a round measures of each; smaller is better.
_SHORT = ("short requests, 64 clients: CPU us", "one client: CPU us", "one client: p50 us")
_STREAM = ("256 streams: CPU us an event", "256 streams: p99 us", "flat out: CPU us an event")


def compare(checkout: Path, plan: Plan, only: Sequence[str]) -> int:
    """Measure this checkout and *checkout* in turns; returns the exit code."""
    comparison = Comparison()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swapchart-bench-")))
        script = load.write_script(folder)
        for suffix, pythons in environments(checkout).items():
            for server in ("hypercorn", "uvicorn"):
                name = f"{server}{suffix}"
                if only and not any(word in name for word in only):
                    continue
                with contextlib.ExitStack() as pair:
                    both = []
                    for which, python in zip(("now", "before"), pythons, strict=True):
                        place = folder / f"{name}-{which}".replace(", ", "-")
                        options = ("--server", server)
                        running = start_swapchart(place, f"{name} {which}", *options, python=python)
                        pair.callback(running.process.stop)
                        both.append(running)
                    _compare(comparison, name, both, folder, script, plan)
    return comparison.conclude()


def _compare(
    comparison: Comparison, name: str, both: Sequence[Running], folder: Path, script: Path,
    plan: Plan,
) -> None:  # fmt: skip
    for running in both:  # warm: the first seconds of a process are not those of the next
        load.short(running, script, connections=64, seconds=1)
    for number in range(plan.rounds):
        print(f"round {number + 1} of {plan.rounds}: {name}", file=sys.stderr)
        try:
            comparison.measure(
                [f"{name}: {what}" for what in _SHORT],
                *(partial(_short_figures, running, script, plan) for running in both),
            )
            comparison.measure(
                [f"{name}: {what}" for what in _STREAM],
                *(partial(_stream_figures, running, folder, plan) for running in both),
            )
        except load.InvalidRunError as error:
            print(f"thrown away: {error}", file=sys.stderr)


def _short_figures(running: Running, script: Path, plan: Plan) -> list[float]:
    many = load.short(running, script, connections=64, seconds=plan.short_s)
    one = load.short(running, script, connections=1, seconds=plan.single_s)
    return [many.cpu_us, one.cpu_us, one.p50_us]


def _stream_figures(running: Running, folder: Path, plan: Plan) -> list[float]:
    paced = load.streams(
        running, folder, count=_STREAMS, period_us=_PERIOD_US, seconds=plan.paced_s
    )
    flood = load.streams(running, folder, count=16, period_us=0, seconds=plan.flood_s)
    return [paced.cpu_us, paced.p99_us, flood.cpu_us]


@contextlib.contextmanager
def _thrown_away(found: Figures) -> Iterator[None]:
    try:
        yield
    except load.InvalidRunError as error:
        found.thrown += 1
        print(f"thrown away: {error}", file=sys.stderr)


# ---- tables
def _ratio(own: float, other: float) -> str:
    return f"{other / own:.2f}" if own and other == other else "-"


def short_table(contenders: Sequence[Running], figures: dict[str, Figures]) -> str:
    """Short requests."""
    cpu = {name: median(run.cpu_us for run in found.short) for name, found in figures.items()}
    direct = median(run.p50_us for run in figures["direct"].single)
    rows = []
    for running in contenders:
        found, own = figures[running.name], cpu[running.name]
        rows.append(
            [
                running.name, f"{own:.1f}", f"{1e6 / own:,.0f}" if own else "-",
                _ratio(own, cpu.get("caddy", 0)), _ratio(own, cpu.get("nginx", 0)),
                f"{median(run.rate for run in found.short):,.0f}",
                f"{median(run.cpu_us for run in found.single):.0f}",
                f"{median(run.p50_us for run in found.single):.0f}",
                f"{median(run.p50_us for run in found.single) - direct:+.0f}",
                f"{median(run.p99_us for run in found.single):.0f}",
                str(len(found.short)), str(found.thrown),
            ]
        )  # fmt: skip
    columns = [
        "short requests", "CPU us/request", "requests/s/core", "x caddy", "x nginx",
        "requests/s, 64 clients", "CPU us, 1 client", "p50 us, 1 client", "added", "p99 us",
        "runs", "thrown away",
    ]  # fmt: skip
    return table(columns, rows)


def stream_table(contenders: Sequence[Running], figures: dict[str, Figures]) -> str:
    """Event streams."""
    cpu = {name: median(run.cpu_us for run in found.paced) for name, found in figures.items()}
    direct = figures["direct"].paced
    direct_p50 = median(run.p50_us for run in direct)
    direct_p99 = median(run.p99_us for run in direct)
    rows = []
    for running in contenders:
        found, own = figures[running.name], cpu[running.name]
        flood = median(run.cpu_us for run in found.flood)
        rows.append(
            [
                running.name, f"{own:.1f}", f"{1e6 / own:,.0f}" if own else "-",
                _ratio(own, cpu.get("caddy", 0)), _ratio(own, cpu.get("nginx", 0)),
                f"{median(run.rate for run in found.paced):,.0f}",
                f"{median(run.p50_us for run in found.paced) - direct_p50:+.0f}",
                f"{median(run.p99_us for run in found.paced) - direct_p99:+.0f}",
                f"{flood:.2f}", f"{1e6 / flood:,.0f}" if flood else "-",
            ]
        )  # fmt: skip
    columns = [
        "256 streams, 10 ms", "CPU us/event", "events/s/core", "x caddy", "x nginx", "events/s",
        "added p50 us", "added p99 us", "flat out: CPU us/event", "flat out: events/s/core",
    ]  # fmt: skip
    return table(columns, rows)


def memory_table(contenders: Sequence[Running], figures: dict[str, Figures]) -> str:
    """Memory and start."""
    rows = []
    for running in contenders:
        if not running.is_proxy:
            continue
        halfway, end = figures[running.name].slow
        rows.append(
            [
                running.name, f"{running.listening_s * 1000:.0f}",
                *(f"{size / 1e6:.0f}" for size in (running.idle_bytes, halfway, end)),
            ]
        )  # fmt: skip
    columns = [
        "start and memory", "start to listening, ms", "idle MB",
        "256 slow readers: MB halfway", "at the end",
    ]  # fmt: skip
    return table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="about a minute; nothing is kept")
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD",
        help="only contenders with this in their name; may be given several times",
    )  # fmt: skip
    add_against(parser)
    options = parser.parse_args()
    if options.against and not options.rounds:
        options.rounds = ROUNDS
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = Plan(
            **{name: getattr(plan, name) for name in Plan.__slots__ if name != "rounds"},
            rounds=options.rounds,
        )
    if options.against:
        sys.exit(compare(options.against.resolve(), plan, options.only))
    weather = Weather()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swapchart-bench-")))
        direct, others = start_all(stack, folder, options.only)
        for running in others:
            load.check_equal(running, direct)
        contenders = [direct, *others]
        figures = measure(contenders, folder, plan, weather)
    parts = [
        short_table(contenders, figures), stream_table(contenders, figures),
        memory_table(contenders, figures),
    ]  # fmt: skip
    command = "./dev bench proxy" + (" --quick" if options.quick else "")
    text = document("The proxy", command, parts, weather, versions())
    publish("proxy", text, keep=not (options.quick or options.only))


if __name__ == "__main__":
    main()
