"""Reports of checks for other programs: JSON, and SARIF 2.1.0 for code review tools.

Source: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

from ..errors import ChartError
from .findings import Finding, Report

#: Path of a part of the document -> line and column, both from 1; None if they are not known.
Locate: TypeAlias = Callable[[str], tuple[int, int] | None]

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def report_json(name: str, report: Report, file: str, locate: Locate) -> dict[str, Any]:
    """Return *report* as a JSON value.

    Args:
        name: Name of the chart.
        report: Result of a check.
        file: File of the chart; empty if it has none.
        locate: Finds the parts of the document in that file.
    """
    return {
        "chart": name,
        "file": file or None,
        "ok": report.is_ok,
        "situations": report.states,
        "steps": report.edges,
        "configurations": report.configurations,
        "explored": list(report.cut),
        "findings": [_finding(finding, locate) for finding in report.findings],
        "warnings": [_finding(finding, locate) for finding in report.warnings],
    }


def _finding(finding: Finding, locate: Locate) -> dict[str, Any]:
    at = locate(finding.path) if finding.path else None
    return {
        "kind": finding.kind,
        "sentence": finding.sentence,
        "cure": finding.cure or None,
        "event": finding.event or None,
        "states": list(finding.states),
        "path": finding.path or None,
        "line": at and at[0],
        "column": at and at[1],
        "parameters": dict(finding.parameters),
        "trace": [
            {"event": move.event, "configuration": list(move.configuration)}
            for move in finding.trace
        ],
    }


def problems_json(error: ChartError) -> dict[str, Any]:
    """Return the problems of a document that cannot be read as a JSON value."""
    return {
        "chart": None,
        "file": error.file or None,
        "ok": False,
        "problems": [
            {
                "path": problem.where,
                "why": problem.why,
                "line": problem.position and problem.position[0],
                "column": problem.position and problem.position[1],
            }
            for problem in error.problems or (error,)
        ],
    }


def report_sarif(report: Report, file: str, locate: Locate, version: str) -> dict[str, Any]:
    """Return *report* as a SARIF log.

    Args:
        report: Result of a check.
        file: File of the chart, relative to the project.
        locate: Finds the parts of the document in that file.
        version: Version of swapchart.
    """
    results = [
        _result(
            _rule_id(finding.kind), level, str(finding), file, finding.path, locate(finding.path)
        )
        for level, findings in (("error", report.findings), ("warning", report.warnings))
        for finding in findings
    ]
    kinds = (finding.kind for finding in (*report.findings, *report.warnings))
    return _log({_rule_id(kind): kind for kind in kinds}, results, version)


def problems_sarif(error: ChartError, version: str) -> dict[str, Any]:
    """Return the problems of a document that cannot be read as a SARIF log."""
    results = [
        _result("invalid-document", "error", f"{problem.where}: {problem.why}", problem.file,
                problem.where, problem.position)
        for problem in error.problems or (error,)
    ]  # fmt: skip
    return _log({"invalid-document": "a document that cannot be read"}, results, version)


def _rule_id(kind: str) -> str:
    return re.sub(r"\W+", "-", kind).strip("-")


def _log(
    rules: Mapping[str, str], results: Iterable[dict[str, Any]], version: str
) -> dict[str, Any]:
    driver = {
        "name": "swapchart",
        "version": version,
        "rules": [
            {"id": rule, "shortDescription": {"text": text}} for rule, text in sorted(rules.items())
        ],
    }
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "columnKind": "unicodeCodePoints",
                  "results": list(results)}],
    }  # fmt: skip


def _result(
    rule: str, level: str, text: str, file: str, path: str, at: tuple[int, int] | None
) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if file:
        line, column = at or (1, 1)
        location["physicalLocation"] = {
            "artifactLocation": {"uri": _uri(file)},
            "region": {"startLine": line, "startColumn": column},
        }
    if path:
        location["logicalLocations"] = [{"fullyQualifiedName": path}]
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [location] if location else [],
    }


def _uri(file: str) -> str:
    """Return *file* as a URI reference; a scheme is needed for absolute paths."""
    return f"file://{quote(file)}" if file.startswith("/") else quote(file)
