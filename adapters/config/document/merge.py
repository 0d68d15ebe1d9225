"""Merging of several files into one document.

Source: llama-swap's behavior. Deviations, all of which accept more: two nulls or a null and a value
never conflict, and ``matrix`` may be spread over files, since its parts (``vars``, ``sets``,
``evict_costs``) are merged like other mappings of named things.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from pathlib import Path

from ..problem_collector import ProblemCollector
from .nodes import Mapping, Node, Scalar, Sequence, sequence_at
from .parse import parse
from .source import EnvironmentValues, Source, UnreadableError, read_source

_MATRIX = ("vars", "sets", "evict_costs")
#: Mappings of named things: the same name in two files is an error.
IDENTITIES = frozenset(
    {
        "models",
        "groups",
        "profiles",
        "selectors",
        "peers",
        "routing.router.settings.groups",
        *(f"matrix.{part}" for part in _MATRIX),
        *(f"routing.router.settings.matrix.{part}" for part in _MATRIX),
    }
)


def list_files(
    files: Listing[Path], directory: Path | None, collector: ProblemCollector
) -> list[Path]:
    """Return the files to read, in order: *files*, then those of *directory* by name."""
    found = list(files)
    if directory is None:
        if not found:
            collector.error_at("", "", 0, 0, "no configuration sources found: name a file")
        return found
    try:
        children = sorted(p for p in directory.iterdir() if p.name.endswith((".yml", ".yaml")))
    except OSError as error:
        collector.error_at(str(directory), "", 0, 0, f"cannot be listed: {error.strerror}")
        return found
    given = {path.resolve() for path in files}
    for child in children:
        if child.is_dir():
            continue
        if child.resolve() in given:
            message = f"is named as a file and is also present in {directory}"
            collector.error_at(str(child), "", 0, 0, message)
        else:
            found.append(child)
    if not found:
        message = "no configuration sources found: it holds no *.yaml or *.yml"
        collector.error_at(str(directory), "", 0, 0, message)
    return found


def read_files(
    files: Listing[Path], environment: EnvironmentValues, collector: ProblemCollector
) -> tuple[Mapping, list[Source]]:
    """Read *files* and merge them; return the tree and the sources that could be read."""
    root = Mapping(source=Source(str(files[0]) if files else "", ""), line=1, column=1, end_line=1)
    sources = []
    for path in files:
        try:
            source = read_source(path)
        except UnreadableError as error:
            collector.error_at(str(path), "", 0, 0, str(error))
            continue
        sources.append(source)
        tree = parse(source, environment, collector)
        if isinstance(tree, Mapping):
            root = _join(root, tree, "", collector) if root.items else tree
        elif tree is not None and not (isinstance(tree, Scalar) and tree.value is None):
            collector.error(tree, "", "expected a mapping at the top level of the file")
    return root, sources


def _join(first: Mapping, second: Mapping, path: str, collector: ProblemCollector) -> Mapping:
    joined = Mapping(
        source=first.source,
        line=first.line,
        column=first.column,
        end_line=first.end_line,
        items=dict(first.items),
        places={**second.places, **first.places},
        anchored=first.anchored | second.anchored,
    )
    for key, node in second.items.items():
        old = first.items.get(key)
        where = f"{path}.{key}" if path else key
        if old is None:
            joined.items[key] = node
        elif path in IDENTITIES:
            source, line, _ = first.places[key]
            _, here, column = second.places[key]
            kind = path.rpartition(".")[2]
            message = f"duplicate {kind} {key!r}, already defined in {source.name}, line {line}"
            collector.error_at(second.source.name, where, here, column, message)
        else:
            joined.items[key] = _join_values(old, node, where, collector)
    return joined


def _join_values(old: Node, new: Node, path: str, collector: ProblemCollector) -> Node:
    if isinstance(new, Scalar) and new.value is None:
        return old
    if isinstance(old, Scalar) and old.value is None:
        return new
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _join(old, new, path, collector)
    if isinstance(old, Sequence) and isinstance(new, Sequence):
        return sequence_at(old, [*old.items, *new.items])
    before = f"{old.source.name}, line {old.line}"
    if not (isinstance(old, Scalar) and isinstance(new, Scalar)):
        collector.error(new, path, f"conflict: {before} has a different kind of value here")
    elif type(old.value) is not type(new.value) or old.value != new.value:
        collector.error(new, path, f"conflict: {before} sets a different value")
    return old
