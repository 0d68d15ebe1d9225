"""The dataclasses of this package behave as those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
import subprocess
import sys
import tomllib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest

from swapchart.adapters.memory.elsewhere import MODULES
from swapchart.dataclass import dataclass, field

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
T = TypeVar("T")


def declare(dataclass: Any) -> dict[str, Any]:
    """Return classes that *dataclass* has made, by name."""

    @dataclass(frozen=True, slots=True)
    class Point(Generic[T]):
        x: T
        y: int = 2
        near: list[int] = field(default_factory=list, compare=False)
        seen: ClassVar[int] = 7

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Named:
        name: str
        secret: str = field(default="s", repr=False)
        doubled: str = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "doubled", self.name * 2)

    @dataclass(slots=True)
    class Counter:
        count: int = 0
        note: str = field(default="none", kw_only=True)

    @dataclass(slots=True)
    class Child(Counter):
        last: int = 5

    @dataclass(slots=True, eq=False)
    class Same:
        value: int

    @dataclass(frozen=True, slots=True)
    class Own:
        value: int

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __repr__(self) -> str:
            return "own"

    @dataclass(frozen=True, slots=True)
    class Empty:
        pass

    return {each.__name__: each for each in (Point, Named, Counter, Child, Same, Own, Empty)}


OURS, THEIRS = declare(dataclass), declare(dataclasses.dataclass)
TRIALS: list[Callable[[dict[str, Any]], object]] = [
    lambda c: repr(c["Point"](1)),
    lambda c: repr(c["Point"](1, y=3, near=[4])),
    lambda c: c["Point"](1) == c["Point"](1, near=[5]),
    lambda c: c["Point"](1) == c["Point"](2),
    lambda c: c["Point"](1) == 1,
    lambda c: len({c["Point"](1), c["Point"](1), c["Point"](3)}),
    lambda c: c["Point"](1).near is c["Point"](1).near,
    lambda c: c["Point"].seen,
    lambda c: c["Point"].__match_args__,
    lambda c: c["Named"].__match_args__,
    lambda c: c["Point"].__slots__,
    lambda c: [(f.name, f.type, f.kw_only) for f in dataclasses.fields(c["Child"])],
    lambda c: dataclasses.asdict(c["Named"](name="a")),
    lambda c: dataclasses.replace(c["Point"](1), y=9).y,
    lambda c: repr(c["Named"](name="a")),
    lambda c: c["Named"](name="a") == c["Named"](name="a", secret="t"),
    lambda c: c["Named"]("a"),
    lambda c: c["Named"](),
    lambda c: c["Point"](1, 2, [], 4),
    lambda c: setattr(c["Point"](1), "x", 2),
    lambda c: delattr(c["Point"](1), "x"),
    lambda c: setattr(c["Counter"](), "nothing", 2),
    lambda c: repr(c["Child"](1, 2, note="n")),
    lambda c: c["Child"](1) == c["Counter"](1),
    lambda c: hash(c["Counter"]()),
    lambda c: c["Same"](1) == c["Same"](1),
    lambda c: (
        hash(c["Own"](1)) == hash(c["Own"](1)),
        c["Own"](1) == c["Own"](2),
        repr(c["Own"](1)),
    ),
    lambda c: (c["Empty"]() == c["Empty"](), repr(c["Empty"]())),
    lambda c: copy.deepcopy(c["Point"]([1])) == c["Point"]([1]),
    lambda c: c["Point"](1).__getstate__(),
    lambda c: dataclasses.is_dataclass(c["Empty"]),
    lambda c: weakref.ref(c["Point"](1)),
]


def outcome(trial: Callable[[dict[str, Any]], object], classes: dict[str, Any]) -> object:
    """Return what *trial* returns, or the type of its exception."""
    try:
        return trial(classes)
    except Exception as error:  # noqa: BLE001  (compared)
        return type(error)


@pytest.mark.parametrize("number", range(len(TRIALS)))
def test_dataclass_behaves_as_the_standard_library(number: int) -> None:
    """Construction, comparison, text, copies and errors are the same."""
    assert outcome(TRIALS[number], OURS) == outcome(TRIALS[number], THEIRS)


@pytest.mark.parametrize("number", range(len(TRIALS)))
def test_dataclass_method_made_first_is_not_different(number: int) -> None:
    """Whichever method is needed first, the others follow."""
    classes = declare(dataclass)

    assert outcome(TRIALS[number], classes) == outcome(TRIALS[number], THEIRS)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Kept:
    value: int


def test_dataclass_pickled_and_referenced_weakly_as_declared() -> None:
    kept = Kept(1)

    assert pickle.loads(pickle.dumps(kept)) == kept
    assert weakref.ref(kept)() is kept


def test_dataclass_match_by_position_reads_the_fields() -> None:
    match OURS["Point"](1, 3):
        case object() as point if isinstance(point, OURS["Point"]):
            found: Any = point

    assert (found.x, found.y) == (1, 3)


def test_dataclass_decorator_by_module() -> None:
    """Compiled modules, those sent to nodes and the demo server take the standard library's."""
    compiled = {
        ROOT / name
        for name in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"][
            "modules"
        ]
    }
    alone = {ROOT / (name.removeprefix("swapchart.").replace(".", "/") + ".py") for name in MODULES}
    alone |= {*(ROOT / "adapters/demo").rglob("*.py")}
    taken = {
        path: re.findall(r"^from (.+) import .*\bdataclass\b", path.read_text(), re.MULTILINE)
        for folder in ("machine", "runtime", "adapters")
        for path in (ROOT / folder).rglob("*.py")
    }
    wrong = [
        path
        for path, modules in taken.items()
        if modules and (modules == ["dataclasses"]) != (path in compiled | alone)
    ]

    assert wrong == []


def test_dataclass_unused_class_compiles_nothing() -> None:
    """Importing a module with dataclasses calls the compiler for none of their methods."""
    code = (
        "import sys, builtins; real, calls = builtins.exec, []\n"
        "from swapchart.dataclass import dataclass\n"
        "import swapchart.dataclass as m\n"
        "m.exec = lambda *a: (calls.append(a), real(*a))\n"
        "@dataclass(frozen=True)\n"
        "class A:\n  x: int = 1\n"
        "assert not calls; A(); A(); A() == A(); hash(A()); assert len(calls) == 1"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
