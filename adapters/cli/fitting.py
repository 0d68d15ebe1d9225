"""`swapchart plan --with A,B,C`: whether models fit into memory together, without a proxy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from ...runtime import MemoryLearning
from ...runtime.memory import Amounts, MemoryNeed, Pool, size
from ...runtime.memory.together import Together, lack_in_words, residents, together
from ..app.fitting import needs_of
from ..app.memory_setup import MemorySetup, memory_rules
from ..config import Config, ConfigProblems, format_problems, load_config
from ..memory import Meter
from ..store.footprints import read_footprints
from ..store.state_directory import default_directory
from .defaults import NoConfigurationError, choose_configuration, configuration_sources
from .output import _fail


def plan_with(options: argparse.Namespace) -> int:
    """Print whether the models fit together, and which would run; return 1 if they do not fit."""
    try:
        choose_configuration(options)
        config = load_config(options.config, options.config_dir)
    except ConfigProblems as error:
        print(format_problems(error.problems), file=sys.stderr)
        return 1
    except NoConfigurationError as error:
        return _fail(str(error))
    if config.memory.mode == "off":
        return _fail("memory is no condition: `memory:` is off in the configuration")
    names = [name.strip() for name in options.beside.split(",") if name.strip()]
    ids = [config.aliases.get(name, name) for name in names]
    if unknown := [name for name in ids if name not in config.models]:
        known = ", ".join(config.models)
        return _fail(f"no such model: {', '.join(unknown)}; there are {known}")
    if not ids:
        return _fail("expected names of models, such as --with a,b,c")
    pools, needs = _known(options, config)
    chosen = {name: needs[name] for name in dict.fromkeys(ids) if name in needs}
    found = together(pools, chosen)
    pinned = {model.id for model in config.models.values() if model.pinned}
    stay = residents(pools, chosen, pinned, memory_rules(config))
    stay += [name for name in ids if name not in chosen]
    if options.json:
        print(json.dumps(_as_json(pools, chosen, found, stay), indent=2))
    else:
        _print(pools, chosen, found, ids, stay)
    return 0 if found.fits else 1


def _known(
    options: argparse.Namespace, config: Config
) -> tuple[Mapping[str, Pool], Mapping[str, MemoryNeed]]:
    """Return the pools of this machine, and the needs that are declared, learned or estimated."""
    state = options.state_dir or default_directory(configuration_sources(options))
    setup = MemorySetup(Meter(), MemoryLearning(read_footprints(state / "journal.db")))
    setup.prepare(config)
    return needs_of(config, setup.readings, setup.need)


def _as_json(
    pools: Mapping[str, Pool], needs: Mapping[str, MemoryNeed], found: Together, stay: list[str]
) -> dict[str, Any]:
    return {
        "fits": found.fits,
        "lack": dict(found.lack),
        "resident": stay,
        "models": [
            {"model": name, "source": needs[name].source, "memory": dict(place)}
            for name, place in found.places.items()
        ],
        "pools": [
            {"name": pool.name, "capacity": pool.capacity, "budget": pool.budget}
            for pool in pools.values()
        ],
    }


def _print(
    pools: Mapping[str, Pool], needs: Mapping[str, MemoryNeed], found: Together, ids: list[str],
    stay: list[str],
) -> None:  # fmt: skip
    names = f"{', '.join(ids[:-1])} and {ids[-1]}" if len(ids) > 1 else ids[0]
    verb = "fit" if len(ids) > 1 else "fits"
    if found.fits:
        print(f"{names} {verb}{' together' if len(ids) > 1 else ''}")
    else:
        print(f"{names} do not fit{' together' if len(ids) > 1 else ''}: "
              f"{lack_in_words(pools, found)}")  # fmt: skip
        print(f"if they are requested in this order, these run in the end: {', '.join(stay)}")
    for pool in pools.values():
        held = {
            name: place[pool.name] for name, place in found.places.items() if pool.name in place
        }
        if held:
            print(_pool_line(pool, held))
            for name, amount in held.items():
                print(f"  {size(amount):>9}  {name} ({needs[name].source})")


def _pool_line(pool: Pool, held: Amounts) -> str:
    left = pool.budget - sum(held.values())
    rest = f"{size(left)} left" if left >= 0 else f"{size(-left)} missing"
    return f"{pool.name}: {size(pool.budget)} for models, {rest}"
