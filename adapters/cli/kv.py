"""``swapchart kv``: list, verify and purge saved KV caches."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ..app.kv_setup import desired_kv_settings
from ..app.service_setup import service_spec
from ..config import ConfigProblems, format_problems, load_config
from ..kv.effectiveness import Effectiveness
from ..kv.entry import Entry, by_value
from ..kv.files import FolderLock, KvStoreError
from ..kv.library.store import ConversationStore
from ..kv.listing.rows import SavedRow, row_of_conversation, row_of_slot
from ..kv.manager import KvManager, Place
from ..kv.manifest import ManifestError, ModelStore, model_of
from ..store.state_directory import NotAFolderError, check_folder, default_directory
from .defaults import NoConfigurationError, choose_configuration, configuration_sources


class StoredModel(NamedTuple):
    """Saved slots of one model in one folder.

    Attributes:
        name: Name of the model.
        place: Folder of the slots.
        store: Reads them.
        is_used: The model is configured and saves its slots in this folder.
    """

    name: str
    place: Place
    store: ModelStore
    is_used: bool

    @property
    def library(self) -> ConversationStore:
        """Files of its library."""
        return ConversationStore(self.name, self.place.folder, self.place.disk)


def run(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit code."""
    try:
        choose_configuration(options)
        found = _stores(options)
        if options.what == "purge":
            return _purge(found)
        problems = [problem for one in found if (problem := _read(one.store))]
        code = _verify(found) if options.what == "verify" else _list(found, options)
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return 1
    except (KvStoreError, NoConfigurationError, NotAFolderError) as error:
        return _fail(str(error))
    return max([code, *map(_fail, problems)])


def _read(store: ModelStore) -> str:
    try:
        store.read()
    except KvStoreError as error:
        return str(error)
    return ""


def _stores(options: argparse.Namespace) -> list[StoredModel]:
    config = load_config(options.config, options.config_dir)
    files = configuration_sources(options)
    state = options.state_dir or default_directory(files)
    check_folder(state)
    directory = state / "kv"
    kv_manager, found, folders = (
        KvManager(directory),
        list[StoredModel](),
        list(directory.glob("*")),
    )
    for model in config.models.values():
        settings = desired_kv_settings(model)
        place = kv_manager.place(service_spec(model), settings)
        if place is not None:
            store = ModelStore(model.id, place.folder, place.disk)
            found.append(StoredModel(model.id, place, store, is_used=model.kv.mode == "keep"))
            folders += [place.folder, *(settings.directory.glob("*") if settings.directory else ())]
    found += _left(folders, found)
    names = {one.name for one in found} | config.models.keys()
    for name in options.models:
        if name not in names:
            raise KvStoreError(f"no such model: {name}; there are {', '.join(sorted(names))}")
    return [one for one in found if not options.models or one.name in options.models]


def _left(folders: Iterable[Path], known: Iterable[StoredModel]) -> Iterator[StoredModel]:
    """Yield the slots of models that were removed, or that now use another folder."""
    seen = {store.path.resolve() for _, _, store, _ in known}
    for folder in folders:
        for path in sorted(folder.glob("swapchart-*.json")):
            name = model_of(path)
            if name is not None and path.resolve() not in seen:
                seen.add(path.resolve())
                yield StoredModel(name, Place(folder), ModelStore(name, folder), is_used=False)


def _list(found: list[StoredModel], options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    for one in found:
        rows += _slot_rows(one)
        rows += _conversation_rows(one, shows_words=options.words)
    if options.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print("no saved caches")
    for row in () if options.json else rows:
        print(_line(row))
    return 0


def _slot_rows(one: StoredModel) -> Iterator[dict[str, Any]]:
    for entry in by_value(one.store.manifest.entries):
        yield _row(one, row_of_slot(entry, _verdict(one, entry.fingerprint)))


def _conversation_rows(one: StoredModel, *, shows_words: bool) -> Iterator[dict[str, Any]]:
    for talk in sorted(one.library.read(), key=lambda talk: -talk.used_at):
        found = row_of_conversation(talk, _verdict(one, talk.fingerprint))
        row = {
            **_row(one, found), "used_at": found.used_at, "restores": found.restores,
            "saved_s": found.saved_s,
        }  # fmt: skip
        yield {**row, "words": found.words} if shows_words else row


def _row(one: StoredModel, row: SavedRow) -> dict[str, Any]:
    return {
        "model": one.name, "tokens": row.tokens, "bytes": row.size, "saved_at": row.saved_at,
        "misses": row.misses, "verdict": row.verdict, "file": str(one.place.folder / row.file),
        "is_used": one.is_used,
    }  # fmt: skip


def _verdict(one: StoredModel, fingerprint: str) -> str:
    return Effectiveness.load(one.store.manifest.learned.get(fingerprint, {})).verdict


def _line(row: Mapping[str, Any]) -> str:
    parts = [
        f"{row['model']}: {row['tokens']} tokens", f"{row['bytes'] / 1e6:.1f} MB",
        f"saved {_time_text(row['saved_at'])}",
    ]  # fmt: skip
    if "used_at" in row:
        parts.append(f"used {_time_text(row['used_at'])}")
        parts.append(f"restored {row['restores']} times, which saved {row['saved_s']:.1f} s")
    parts.append(row["verdict"])
    if not row["is_used"]:
        parts.append("not used")
    words = f": {row['words']!r}" if "words" in row else ""
    return ", ".join(parts) + words


def _time_text(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _verify(found: list[StoredModel]) -> int:
    bad = 0
    for name, _, store, _ in found:
        for entry in by_value(store.manifest.entries):
            flaw = store.verify(entry)
            if flaw and _is_superseded(store, entry):
                continue  # a running proxy has replaced it meanwhile
            bad += bool(flaw)
            print(f"{name}: {entry.file}: {flaw or 'ok'}")
    for one in found:
        library = one.library
        for talk in library.read():
            flaw = library.verify(talk)
            if flaw and talk.file not in {again.file for again in library.read()}:
                continue  # a running proxy has replaced it meanwhile
            bad += bool(flaw)
            print(f"{one.name}: {talk.file}: {flaw or 'ok'}")
    return 1 if bad else 0


def _is_superseded(store: ModelStore, entry: Entry) -> bool:
    now = ModelStore(store.manifest.model, store.files.folder, store.files.disk)
    return not _read(now) and entry not in now.manifest.entries


def _purge(found: list[StoredModel]) -> int:
    with ExitStack() as stack:
        for folder in {folder for one in found for folder in one.place.folders}:
            if folder.is_dir():
                stack.callback(FolderLock(folder).close)
        for one in found:
            with suppress(ManifestError):
                one.store.read()
            count, size = len(one.store.manifest.entries), one.store.purge()
            if count:
                print(f"{one.name}: {count} saved slots, {size / 1e6:.1f} MB")
            count, size = len(one.library.read()), one.library.purge()
            if count:
                print(f"{one.name}: {count} conversations, {size / 1e6:.1f} MB")
    return 0


def _fail(message: str) -> int:
    print(f"swapchart: {message}", file=sys.stderr)
    return 1
