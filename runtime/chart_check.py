"""Check of a chart before services run by it; the result is kept by the digest of the chart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..machine import ChartError, Document
from ..machine.digest import proof_digest_of
from ..machine.shipped import is_shipped
from .arguments import require, require_document, require_kind

if TYPE_CHECKING:
    from ..machine import Report

_passed: set[str] = set()


def require_chart(where: str, chart: Document | None, checked: Report | None) -> None:
    """Check the arguments *chart* and *checked*, and the chart itself; see `require_checked`.

    Args:
        where: Name of the argument that holds the chart.
        chart: The chart; None means another one.
        checked: Report of `check` for it, or None.

    Raises:
        ConfigError: An argument has a wrong type, or there is a report without a chart.
        ChartError: The chart breaks a promise, or *checked* is that of another chart.
    """
    require_document(where, chart)
    if checked is not None:
        from ..machine import Report

        do = "pass what swapchart.machine.check(chart) returns"
        require_kind("checked", checked, Report, "a Report", or_none=True, do=do)
        require("checked", checked, chart is not None, f"None without {where!r}")
    if chart is not None:
        require_checked(chart, checked)


def require_checked(document: Document, report: Report | None = None) -> None:
    """Check *document*, unless it is the shipped chart, was checked before, or *report* proves it.

    The check explores one set of parameters, which takes about 0.2 s for a changed lifecycle. A
    report of `check` without ``parameters`` proves all sets.

    Args:
        document: The chart.
        report: Result of `check` for this chart; None checks it here.

    Raises:
        ChartError: The chart breaks a promise, or *report* is that of another chart; the notes have
            the shortest sequence of events that leads there.
    """
    if is_shipped(document):
        return
    digest = proof_digest_of(document)
    if report is not None and report.digest != digest:
        raise ChartError("checked", f"expected the report of {document.name}, got another chart's")
    if report is None and digest in _passed:
        return
    if report is None:
        from ..machine import Bounds, check
        from ..machine.checking.explore import parameter_sets

        first = next(iter(parameter_sets(document, Bounds())))
        report = check(document, parameters=[first], stop_at_first=True)
    if not report.is_ok:
        found = report.findings[0]
        broken = ChartError("chart", f"{found.kind}: {found.sentence}")
        broken.add_note(str(found))
        raise broken
    _passed.add(digest)
