"""Diagrams in Markdown files, kept up to date between two markers.

```
<!-- swapchart:order.yaml view=overview theme=light -->
![Order: overview](order-overview.svg)
<!-- /swapchart -->
```

The first marker names a chart: a file beside the Markdown file, ``package.module:Class``, or
``lifecycle``, the shipped chart. Its attributes are the options of a view (`view_options`), and:

``format``
    svg (default), png, or a format that is text, which is written into the Markdown file.
``file``
    File of an svg or png, relative to the Markdown file.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from ...machine import ChartError, lifecycle
from .. import pictures
from .chart import rendered
from .chart_source import load_chart
from .view_options import add_view_options, view_of

_BEGIN, _END = "swapchart:", "/swapchart"


def embedded(files: Iterable[Path], chart: str | None = None) -> Iterator[tuple[Path, bytes]]:
    """Yield the Markdown *files* with what their markers ask for, and the pictures they show.

    Args:
        files: Markdown files.
        chart: Chart to draw, as on the command line; None means every chart that a marker names.

    Raises:
        SwapchartError: A file has no marker, or one that cannot be drawn.
        OSError: A file cannot be read.
    """
    for path in files:
        lines: list[str] = []
        is_found = False
        marked = _marked(path.read_text("utf-8").splitlines(keepends=True))
        for line, comment, body in marked:
            name, _, attributes = comment.removeprefix(_BEGIN).partition(" ")
            lines.append(line)
            if comment and (chart is None or _names(path, name, chart)):
                is_found = True
                drawn, found = _drawn(path, name, attributes)
                yield from found
                lines.append(drawn + "\n")
            else:
                lines += body
        if not is_found:
            wanted = chart or "CHART"
            raise ChartError(
                str(path), f"expected lines `<!-- swapchart:{wanted} -->` and `<!-- /swapchart -->`"
            )
        yield path, "".join(lines).encode()


def _marked(lines: Sequence[str]) -> Iterator[tuple[str, str, Sequence[str]]]:
    """Yield each line of a file outside of markers, with what it marks.

    Yields:
        The line; the text of its comment if it begins a marked part, else an empty text; and the
        lines of that part.
    """
    at = 0
    while at < len(lines):
        line, comment = lines[at], _comment(lines[at])
        at += 1
        ends = (i for i in range(at, len(lines)) if _comment(lines[i]) == _END)
        end = next(ends, None) if comment.startswith(_BEGIN) else None
        if end is None:
            yield line, "", ()
        else:
            yield line, comment, lines[at:end]
            at = end


def _comment(line: str) -> str:
    """Return the text of a line that is a comment of HTML; empty if it is none."""
    text = line.strip()
    if text.startswith("<!--") and text.endswith("-->"):
        return text[4:-3].strip()
    return ""


def _names(path: Path, marked: str, chart: str) -> bool:
    """Return True if a marker in *path* with the chart *marked* is about *chart*."""
    return marked == chart or (path.parent / marked).resolve() == Path(chart).resolve()


def _drawn(path: Path, chart: str, attributes: str) -> tuple[str, list[tuple[Path, bytes]]]:
    """Return the text for between two markers, and the picture that it shows."""
    if chart == "lifecycle":
        document = lifecycle()
    else:
        document = load_chart(chart if ":" in chart else str(path.parent / chart), mode="draw")
    options = _options(path, attributes)
    view = view_of(document, options)
    if options.format not in pictures.FORMATS:
        text = rendered(document, options.format, view=view).decode().rstrip("\n")
        return (text if options.format == "table" else f"```{options.format}\n{text}\n```"), []
    name = options.view or options.focus or ""
    title = view.title or ": ".join(filter(None, (document.name, name)))
    stem = "-".join(filter(None, (Path(chart.rpartition(":")[2]).stem, name)))
    file = options.file or f"{stem}.{options.format}"
    picture = pictures.draw(document, options.format, view)
    return f"![{title}]({file})", [(path.parent / file, picture)]


class _Parser(argparse.ArgumentParser):
    """Parser that raises an error in place of ending the program."""

    def error(self, message: str) -> NoReturn:
        """Raise a `ChartError`."""
        raise ChartError(str(self.prog), f"in a marker: {message}")


def _options(path: Path, attributes: str) -> argparse.Namespace:
    """Return the attributes of a marker as options."""
    parser = _Parser(prog=str(path), add_help=False, allow_abbrev=False)
    add_view_options(parser)
    parser.add_argument("--format", default="svg")
    parser.add_argument("--file")
    try:
        words = shlex.split(attributes)
    except ValueError as error:
        raise ChartError(str(path), f"in a marker: {error} in {attributes!r}") from error
    return parser.parse_args([f"--{word}" for word in words if "=" in word])
