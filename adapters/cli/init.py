"""`swapchart init`: a configuration for the models of this machine."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from ...runtime.errors import SwapchartError
from ..app.memory_setup import RAM, memory_pools
from ..config import check_config, config_schema, format_problems
from ..config.values import Config, Routing
from ..discovery import (
    Engines,
    Found,
    Room,
    configuration,
    find_engines,
    find_models,
    find_ollama_models,
    ollama_stores,
    plan_models,
)
from ..discovery.document import room_text, schema_path, summary
from ..memory import Meter
from ..system.whole_files import write_whole
from .output import _fail
from .remote.table import count

_NO_ROUTING = Routing(use="group", groups={}, matrix=None, priorities={})


class InitError(SwapchartError):
    """No configuration can be made; the text says why and what to do."""


def init(options: argparse.Namespace) -> int:
    """Write a configuration for the models in folders, in Ollama's store, and for vLLM."""
    target: Path = options.output
    try:
        if not options.force and target.exists():
            raise InitError(f"{target} exists; write to another file with -o, or use --force")
        if not (options.folders or options.ollama or options.vllm):
            _fail(
                "init: expected folders with models, --ollama or --vllm MODEL, such as: "
                "swapchart init ~/models"
            )
            return 2
        engines = find_engines()
        found = _search(options)
        room, unread = machine_room()
        planned = plan_models(found, engines, room, options.vllm)
        for line in summary(planned, found.left):
            print(line)
        if not planned:
            where = ", ".join(map(str, options.folders)) or "the store of Ollama"
            raise InitError(f"no model was found in {where}; nothing was written")
        schema = schema_path(target)
        text = configuration(planned, found.left, room, name=str(target), schema=schema.name)
        _check(text)
        _write(target, text)
        if options.force or not schema.exists():
            _write(schema, json.dumps(config_schema(), indent=2) + "\n")
    except InitError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    print(f"\nmemory for models: {room_text(room)}")
    print(f"{target}: {count(len(planned), 'model')}")
    has_gguf = any(each.model.head is not None for each in planned)
    for advice in [*unread, *_advice(engines, has_gguf=has_gguf)]:
        print(f"note: {advice}")
    default = " --config " + str(target) if target != Path("config.yaml") else ""
    print(f"next: swapchart serve{default}")
    return 0


def _search(options: argparse.Namespace) -> Found:
    found = Found()
    if options.folders:
        for folder in options.folders:
            if not folder.exists():
                raise InitError(f"{folder} does not exist")
        found.add(find_models([_full_path(folder) for folder in options.folders]))
    if options.ollama:
        stores = ollama_stores(os.environ, Path.home())
        if not (stores[0] / "manifests").is_dir():
            places = ", ".join(map(str, stores))
            raise InitError(f"no store of Ollama in {places}; set OLLAMA_MODELS to its folder")
        found.add(find_ollama_models(stores[0]))
    return found


def _full_path(folder: Path) -> Path:
    """Return *folder* as an absolute path without ``..``; links are kept where that is possible."""
    plain = Path(os.path.abspath(folder))  # noqa: PTH100  # absolute() keeps `..`
    return plain if plain.exists() and plain.samefile(folder) else folder.resolve()


def machine_room() -> tuple[Room, list[str]]:
    """Return the memory that models may have here, and a note if it is not known.

    Models may have the pools of this machine without their reserves.
    """
    try:
        readings = Meter().read_blocking(())
    except OSError as error:
        reason = f"the memory of this machine cannot be read, so contexts are the smallest: {error}"
        return Room(), [reason]
    pools = memory_pools(Config(models={}, routing=_NO_ROUTING), readings)
    free = {name: pool.capacity - pool.reserve for name, pool in pools.pools.items()}
    return Room(gpus={name: free[name] for name in pools.gpus}, ram=free.get(RAM, 0)), []


def _check(text: str) -> None:
    """Check that `serve` accepts what is about to be written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(text, "utf-8")
        problems = [each for each in check_config([path]) if each.severity == "error"]
    if problems:
        raise InitError(f"a model cannot be written:\n{format_problems(problems)}")


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise InitError(f"{path} cannot be written: {error.strerror}") from error


def _advice(engines: Engines, *, has_gguf: bool) -> list[str]:
    advice = []
    if has_gguf and engines.llama_server is None:
        advice.append(
            "llama-server is not in PATH; install llama.cpp, or write its path into the commands"
        )
    return advice
