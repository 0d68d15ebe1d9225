"""``swapchart kv``: what is kept of conversations, whether it is sound, and away with it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from ..config import ConfigProblems, format_problems, load_config
from ..services import kv_wish, service_spec
from ..store.state import default_directory
from .entry import by_value
from .files import FolderLock, KvStoreError
from .keeper import KvKeeper, Place
from .proof import Record
from .store import ModelStore

Found = tuple[str, Place, ModelStore]


def run(options: argparse.Namespace) -> int:
    """Do what was asked for; returns the exit code."""
    if not options.config and not options.config_dir:
        return _fail("expected --config FILE or --config-dir DIR, got neither")
    try:
        found = list(_stores(options))
        if options.what == "purge":
            return _purge(found)
        for _, _, store in found:
            store.read()
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return 1
    except KvStoreError as error:
        return _fail(str(error))
    return _verify(found) if options.what == "verify" else _list(found, is_json=options.json)


def _stores(options: argparse.Namespace) -> Iterator[Found]:
    config = load_config(options.config, options.config_dir)
    files = [*options.config, *([options.config_dir] if options.config_dir else [])]
    keeper = KvKeeper((options.state_dir or default_directory(files)) / "kv")
    for name in options.models:
        if name not in config.models:
            raise KvStoreError(f"no such model: {name}; there are {', '.join(config.models)}")
    for model in config.models.values():
        place = keeper.place(service_spec(model), kv_wish(model))
        if place is not None and (not options.models or model.id in options.models):
            yield model.id, place, ModelStore(model.id, place.folder, place.disk)


def _list(found: list[Found], *, is_json: bool) -> int:
    rows: list[dict[str, Any]] = []
    for name, place, store in found:
        learned = store.manifest.learned
        for entry in by_value(store.manifest.entries):
            record = Record.load(learned.get(entry.fingerprint, {}))
            rows.append(
                {
                    "model": name, "tokens": entry.tokens, "bytes": entry.size,
                    "saved_at": entry.saved_at, "misses": entry.misses,
                    "verdict": record.verdict, "file": str(place.folder / entry.file),
                }
            )  # fmt: skip
    if is_json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("nothing is kept")
    for row in () if is_json else rows:
        when = datetime.fromtimestamp(row["saved_at"], UTC).astimezone()
        print(
            f"{row['model']}: {row['tokens']} tokens, {row['bytes'] / 1e6:.1f} MB, saved "
            f"{when:%Y-%m-%d %H:%M:%S}, {row['verdict']}"
        )
    return 0


def _verify(found: list[Found]) -> int:
    bad = 0
    for name, _, store in found:
        for entry in by_value(store.manifest.entries):
            flaw = store.verify(entry)
            bad += bool(flaw)
            print(f"{name}: {entry.file}: {flaw or 'ok'}")
    return 1 if bad else 0


def _purge(found: list[Found]) -> int:
    with ExitStack() as stack:
        for folder in {folder for _, place, _ in found for folder in (place.folder, place.disk)}:
            if folder is not None and folder.is_dir():
                stack.callback(FolderLock(folder).close)
        for name, _, store in found:
            store.read()
            count, size = len(store.manifest.entries), store.purge()
            if count:
                print(f"{name}: {count} saved slots, {size / 1e6:.1f} MB")
    return 0


def _fail(message: str) -> int:
    print(f"swapchart: {message}", file=sys.stderr)
    return 1
