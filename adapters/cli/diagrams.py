"""Command that writes the diagrams of a chart into a folder, or into Markdown files."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...machine import DIAGRAMS, Document, SwapchartError, View
from ...machine.drawing.views import full
from .. import pictures
from .chart import chosen, rendered
from .chart_check import fail
from .embed import embedded
from .view_options import view_of


def diagrams(options: argparse.Namespace) -> int:
    """Write all diagrams of a chart into a folder, or those that Markdown files ask for."""
    try:
        if options.embed:
            files = dict(embedded(options.embed, options.chart))
        else:
            document = chosen(options)
            files = {
                options.output / name: data
                for name, data in _all(document, view_of(document, options)).items()
            }
        if options.check:
            return _compared(files)
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    except (SwapchartError, OSError) as error:
        return fail(error)
    return 0


def _compared(files: Mapping[Path, bytes]) -> int:
    stale = [
        path for path, data in files.items() if not path.is_file() or path.read_bytes() != data
    ]
    for path in stale:
        print(f"stale: {path}", file=sys.stderr)
    if stale:
        print("swapchart: run the same command without --check", file=sys.stderr)
    return 1 if stale else 0


def _all(document: Document, view: View) -> dict[str, bytes]:
    """Return file name -> content: pictures of every view, and each format that is text."""
    stem = re.sub(r"[^\w-]", "_", document.name).lower()
    whole = full(document)
    files = {
        f"{stem}.svg": pictures.draw(
            document, "svg", replace(whole, theme=view.theme, active=view.active, trace=view.trace)
        )
    }
    for ending, format_ in DIAGRAMS.items():
        files[f"{stem}.{ending}"] = rendered(document, format_, view=replace(view, max_width=None))
    return files | pictures.draw_all(document, "svg", view)
