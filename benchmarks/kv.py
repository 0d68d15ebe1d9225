"""Saved conversations on a real llama-server with SmolLM2, each part with and without.

`swaps`: from a request to its first token after a swap, with `kv: keep`. `turns`: more
conversations than slots, over a swap and a kill, with a library. `load`: the cost of a library for
four clients that never pause. `waits`: how long a request waits for a save that is under way.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from lab import kv_library, kv_load, kv_swaps
from lab.contenders import own_versions
from lab.llama import real_llama
from lab.report import Weather, document, publish

_PLOT = Path(__file__).resolve().parent.parent / "docs" / "kv.svg"
_PARTS = ("swaps", "turns", "load", "waits")


class Bench:
    """The parts.

    Args:
        folder: Where proxies and servers run.
        options: Of the command.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder, self._options = folder, options
        self._keep = not (options.quick or options.control)
        self._server, self._model = real_llama(folder)

    def run(self, part: str) -> None:
        """Run *part* and publish its report."""
        weather = Weather()
        title, texts = getattr(self, f"_{part}")(weather)
        about = f"A real llama-server ({self._server.name}, {self._model.name})."
        text = document(
            title, f"./dev bench kv --part {part}", [about, *texts], weather, own_versions()
        )  # fmt: skip
        publish("kv" if part == "swaps" else f"kv_{part}", text, keep=self._keep)

    def _swaps(self, weather: Weather) -> tuple[str, list[str]]:
        options, cases = self._options, list[kv_swaps.Case]()
        words = "300x1" if options.quick else options.cases
        rounds = 1 if options.quick else options.rounds
        for word in words.split(","):
            tokens, slots = map(int, word.split("x"))
            for is_kept in (False, True):
                case = kv_swaps.Case(tokens=tokens, slots=slots, is_kept=is_kept)
                folder = self._folder / f"case{len(cases)}"
                kv_swaps.measure(folder, self._server, self._model, case, rounds)
                cases.append(case)
                weather.note()
                _show(kv_swaps.rows_of([case])[0])
        if self._keep:
            _PLOT.write_text(kv_swaps.plot(cases))
        return "Conversations over a swap", kv_swaps.text_of(cases, rounds)

    def _turns(self, weather: Weather) -> tuple[str, list[str]]:
        count, tokens = (4, 300) if self._options.quick else (12, 1000)
        found = []
        for has_library in (False, True):
            folder = self._folder / f"turns{has_library}"
            found.append(
                kv_library.measure(
                    folder, self._server, self._model, count=count, tokens=tokens, rounds=1,
                    has_library=has_library,
                )
            )  # fmt: skip
            weather.note()
            _show(found[-1])
        return "More conversations than slots", kv_library.text_of(*found, count, tokens)

    def _load(self, weather: Weather) -> tuple[str, list[str]]:
        options = self._options
        pairs, turns = (1, 2) if options.quick else (options.pairs, options.turns)
        load = kv_load.measure(
            self._folder / "load", self._server, self._model, pairs=pairs, turns=turns,
            is_control=options.control,
        )  # fmt: skip
        weather.note()
        return "Library under load", kv_load.text_of(load, turns)

    def _waits(self, weather: Weather) -> tuple[str, list[str]]:
        tokens, count = (300, 2) if self._options.quick else (1000, 50)
        waits = kv_load.measure_waits(
            self._folder / "waits", self._server, self._model, tokens=tokens, count=count
        )
        weather.note()
        return "Requests that meet a save", kv_load.text_of_waits(waits, tokens)


def _show(value: Any) -> None:
    print(value, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short and once; nothing is kept")
    parser.add_argument(
        "--part", action="append", choices=_PARTS, help="only this part; default: all of them"
    )
    parser.add_argument(
        "--cases", default="1000x1,4000x1,8000x1,1000x4,4000x4",
        help="swaps: tokens x conversations of a model; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3, help="swaps: rounds")
    parser.add_argument("--pairs", type=int, default=10, help="load: pairs of runs")
    parser.add_argument("--turns", type=int, default=8, help="load: turns of each client in a run")
    parser.add_argument(
        "--control", action="store_true", help="load: no library on either side; nothing is kept"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="swapchart-bench-") as name:
        bench = Bench(Path(name), options)
        for part in options.part or _PARTS:
            bench.run(part)


if __name__ == "__main__":
    main()
