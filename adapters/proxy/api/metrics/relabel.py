"""One page of the metrics of several servers, each sample with the label ``model``. Pure.

Source: Prometheus' text format 0.0.4, in which a name has one type and one help text on a page, and
relabeling of Prometheus, which renames a label in its way to ``exported_model``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from .families import gauge
from .scrape import Scrape

_LABEL = "model"
_PREFIX = "exported_"
_UNTYPED = "unknown"
_TYPE = "# TYPE "


def merged(scrapes: Sequence[Scrape]) -> list[Metric]:
    """Return the families of all *scrapes*, and which of them succeeded."""
    families: dict[str, Metric] = {}
    up: dict[tuple[str, ...], float] = {}
    for scrape in scrapes:
        found = None if scrape.text is None else _parsed(scrape.text)
        up[scrape.model,] = float(found is not None)
        for family in found or ():
            _add(families, family, scrape.model)
    took = {(scrape.model,): scrape.seconds for scrape in scrapes}
    text = (
        "Whether the metrics of each ready model's server could be read: 1 if they could, else 0."
    )
    known = gauge("swapchart_model_scrape_up", text, up, _LABEL)
    text = "Time in seconds that reading the metrics of each ready model's server took."
    times = gauge("swapchart_model_scrape_duration_seconds", text, took, _LABEL)
    for own in (known, times):
        families.pop(own.name, None)  # of a model that is swapchart itself
    return [known, times, *families.values()]


def _parsed(text: str) -> list[Metric] | None:
    """Return the families in *text*; None if it is not Prometheus' text format."""
    lines = "\n".join(map(_with_known_type, text.split("\n")))
    try:
        return list(text_string_to_metric_families(lines))
    except (ValueError, KeyError, IndexError):
        return None


def _with_known_type(line: str) -> str:
    """Return *line* without the type of a counter whose name lacks ``_total``.

    The parser would add that ending to the names of its samples.
    """
    if line.startswith(_TYPE) and line.endswith(" counter"):
        name = line.removeprefix(_TYPE).removesuffix(" counter")
        if not name.endswith("_total"):
            return f"{_TYPE}{name} untyped"
    return line


def _add(families: dict[str, Metric], family: Metric, model: str) -> None:
    # The parser removes the ending of counters, and the page adds it again.
    name = f"{family.name}_total" if family.type == "counter" else family.name
    known = families.get(name)
    if known is None:
        help_text = family.documentation.strip() or f"Metric {name} of the model's server."
        known = families[name] = Metric(family.name, help_text, family.type)
    elif known.type != family.type and known.type != _UNTYPED:
        # Servers disagree about the type, and a page has one type for each name.
        samples = known.samples
        known = families[name] = Metric(name, known.documentation, _UNTYPED)
        known.samples = samples
    known.samples += [
        Sample(
            each.name, _labeled(each.labels, model), each.value, each.timestamp, each.exemplar,
            each.native_histogram,
        )
        for each in family.samples
    ]  # fmt: skip


def _labeled(labels: Mapping[str, str], model: str) -> dict[str, str]:
    """Return *labels* with the name of the model; a label of that name is renamed."""
    found: dict[str, str] = {}
    for name, value in labels.items():
        new = name
        while new == _LABEL or (new != name and new in labels):
            new = _PREFIX + new
        found[new] = value
    return {_LABEL: model, **found}
