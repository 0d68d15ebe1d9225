"""Figures of `./dev bench proxy`, and the tables that are made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .against import Comparison
from .contenders import Running
from .load import First, Short, Streams
from .report import median, table

#: Kinds of measurement, in the order of a round.
KINDS = ("short", "single", "first", "paced", "flood")
_MB = 1e6


@dataclass(slots=True)
class Figures:
    """Measurements of one contender.

    Attributes:
        rounds: Kind -> number of the round -> result; a round that was thrown away is missing.
        starts_s: From the spawn to the first connection accepted; seconds.
        idle_bytes: Resident memory before the first request, one each start.
        idle_pss_bytes: The same with shared pages divided by their users.
        slow_bytes: Resident memory under slow readers, halfway and at the end.
        thrown: Number of measurements thrown away.
    """

    rounds: dict[str, dict[int, Short | First | Streams]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    starts_s: list[float] = field(default_factory=list)
    idle_bytes: list[int] = field(default_factory=list)
    idle_pss_bytes: list[int] = field(default_factory=list)
    slow_bytes: tuple[int, int] = (0, 0)
    thrown: int = 0

    def middle(self, kind: str, name: str) -> float:
        """Return the median of the attribute *name* over the rounds of *kind*."""
        return median(getattr(result, name) for result in self.rounds[kind].values())


#: What another checkout is compared by: text, kind, attribute; smaller is better in each.
COMPARED = (
    ("short requests, 64 clients: CPU us", "short", "cpu_us"),
    ("one client: CPU us", "single", "cpu_us"),
    ("one client: p50 us", "single", "p50_us"),
    ("first event: p50 us", "first", "p50_us"),
    ("256 streams: CPU us an event", "paced", "cpu_us"),
    ("256 streams: p99 us", "paced", "p99_us"),
    ("flat out: CPU us an event", "flood", "cpu_us"),
)


def compare(comparison: Comparison, name: str, own: Figures, other: Figures) -> None:
    """Note the figures of each round that both of a pair have."""
    for what, kind, attribute in COMPARED:
        for number in sorted(own.rounds[kind].keys() & other.rounds[kind].keys()):
            values = (getattr(one.rounds[kind][number], attribute) for one in (own, other))
            comparison.note(f"{name}: {what}", *values)
    for now, before in zip(own.starts_s, other.starts_s, strict=False):
        comparison.note(f"{name}: start to listening, s", now, before)
    for now, before in zip(own.idle_pss_bytes, other.idle_pss_bytes, strict=False):
        comparison.note(f"{name}: idle, MB of Pss", now / _MB, before / _MB)


_Contenders = Sequence[Running]
_All = Mapping[str, Figures]


def _ratio(own: float, other: float) -> str:
    return f"{other / own:.2f}" if own and other == other and other else "-"


def _others(contenders: _Contenders) -> list[str]:
    return [one.name for one in contenders if one.is_proxy and "swapchart" not in one.name]


def _each_second(cost_us: float) -> str:
    return f"{1e6 / cost_us:,.0f}" if cost_us else "-"


def short_table(contenders: _Contenders, figures: _All) -> str:
    """Short requests."""
    others = _others(contenders)
    direct = figures["direct"].middle("single", "p50_us")
    rows = []
    for name in (one.name for one in contenders):
        found = figures[name]
        own, p50 = found.middle("short", "cpu_us"), found.middle("single", "p50_us")
        rows.append(
            [
                name, f"{own:.1f}", _each_second(own),
                *(_ratio(own, figures[other].middle("short", "cpu_us")) for other in others),
                f"{found.middle('short', 'rate'):,.0f}", f"{found.middle('single', 'cpu_us'):.0f}",
                f"{p50:.0f}", f"{p50 - direct:+.0f}", f"{found.middle('single', 'p99_us'):.0f}",
                str(len(found.rounds["short"])), str(found.thrown),
            ]
        )  # fmt: skip
    columns = [
        "short requests", "CPU us/request", "requests/s/core", *(f"x {name}" for name in others),
        "requests/s, 64 clients", "CPU us, 1 client", "p50 us, 1 client", "added", "p99 us",
        "runs", "thrown away",
    ]  # fmt: skip
    return table(columns, rows)


def stream_table(contenders: _Contenders, figures: _All) -> str:
    """Event streams."""
    others = _others(contenders)
    direct = figures["direct"]
    first, p50, p99 = (
        direct.middle(kind, name)
        for kind, name in (("first", "p50_us"), ("paced", "p50_us"), ("paced", "p99_us"))
    )
    rows = []
    for name in (one.name for one in contenders):
        found = figures[name]
        own, flood = found.middle("paced", "cpu_us"), found.middle("flood", "cpu_us")
        rows.append(
            [
                name, f"{own:.1f}", _each_second(own),
                *(_ratio(own, figures[other].middle("paced", "cpu_us")) for other in others),
                f"{found.middle('paced', 'rate'):,.0f}",
                f"{found.middle('paced', 'p50_us') - p50:+.0f}",
                f"{found.middle('paced', 'p99_us') - p99:+.0f}",
                f"{flood:.2f}", _each_second(flood),
                f"{found.middle('first', 'p50_us') - first:+.0f}",
                f"{found.middle('first', 'p99_us'):.0f}",
            ]
        )  # fmt: skip
    columns = [
        "256 streams, 10 ms", "CPU us/event", "events/s/core", *(f"x {name}" for name in others),
        "events/s", "added p50 us", "added p99 us", "flat out: CPU us/event",
        "flat out: events/s/core", "first event: added p50 us", "first event: p99 us",
    ]  # fmt: skip
    return table(columns, rows)


def memory_table(contenders: _Contenders, figures: _All) -> str:
    """Memory and start."""
    rows = []
    for one in contenders:
        if not one.is_proxy:
            continue
        found = figures[one.name]
        sizes = (median(found.idle_bytes), median(found.idle_pss_bytes), *found.slow_bytes)
        rows.append(
            [
                one.name, f"{median(found.starts_s) * 1000:.0f}",
                *(f"{size / _MB:.0f}" for size in sizes),
            ]
        )  # fmt: skip
    columns = [
        "start and memory", "start to listening, ms", "idle MB", "idle MB of Pss",
        "256 slow readers: MB halfway", "at the end",
    ]  # fmt: skip
    return table(columns, rows)


def summary_table(contenders: _Contenders, figures: _All) -> str:
    """Return the table of benchmarks/README.md: a column for each contender."""
    shown = [
        one.name
        for one in contenders
        if one.is_proxy and not any(word in one.name for word in ("--stock", "before"))
    ]
    direct = figures["direct"]

    def line(text: str, kind: str, name: str, digits: int, base: float = 0.0) -> list[str]:
        values = (figures[one].middle(kind, name) - base for one in shown)
        return [text, *(f"{value:,.{digits}f}" for value in values)]

    def megabytes(text: str, values: Sequence[float]) -> list[str]:
        return [text, *(f"{value / _MB:.0f}" for value in values)]

    first, p99, p50 = (
        direct.middle(kind, name)
        for kind, name in (("first", "p50_us"), ("paced", "p99_us"), ("single", "p50_us"))
    )
    found = [figures[one] for one in shown]
    rows = [
        line("first event of a stream: added p50, us", "first", "p50_us", 0, first),
        line("256 streams, 10 ms a token: CPU us an event", "paced", "cpu_us", 1),
        line("... added p99, us", "paced", "p99_us", 0, p99),
        line("16 streams flat out: CPU us an event", "flood", "cpu_us", 1),
        line("short request, 64 clients: CPU us", "short", "cpu_us", 1),
        line("... one client: added p50, us", "single", "p50_us", 0, p50),
        ["start to listening, ms", *(f"{median(one.starts_s) * 1000:.0f}" for one in found)],
        megabytes("idle memory, MB", [median(one.idle_bytes) for one in found]),
        megabytes("... of Pss", [median(one.idle_pss_bytes) for one in found]),
        megabytes("256 slow readers, MB", [one.slow_bytes[1] for one in found]),
    ]
    return table(["medians", *(name.removeprefix("swapchart, ") for name in shown)], rows)
