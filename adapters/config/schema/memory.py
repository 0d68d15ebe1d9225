"""Keys of memory: sizes, pools, and what one model needs.

A size has a unit (``12GiB``, ``512MiB``, ``12GB``) or is a share of its pool (``80%``). A bare
number is rejected, because other programs mean megabytes or bytes by it; 0 needs no unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from ....dataclass import dataclass
from ...system.sizes import amount_of
from ..command_line import UnterminatedQuoteError, split_command
from .fields import CommandLine
from .section import (
    AfterValidator,
    BeforeValidator,
    Field,
    Section,
    WithJsonSchema,
    refuse,
)

_PATTERN = r"^(0|\d+(\.\d+)?\s*(B|[kKMGT]i?B|%))$"


@dataclass(frozen=True, slots=True)
class Size:
    """An amount of memory.

    Attributes:
        bytes_: Bytes, >= 0; None if it is a share.
        share: Share of the capacity of its pool, 0 to 1; None if it is in bytes.
    """

    bytes_: int | None = None
    share: float | None = None

    def of(self, capacity: int) -> int:
        """Return the bytes of a pool of *capacity* bytes."""
        if self.bytes_ is not None:
            return self.bytes_
        return int(capacity * (self.share or 0.0))


def _as_size(value: object) -> Size:
    if isinstance(value, Size):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == 0:
            return Size(bytes_=0)
        raise refuse(f"expected a size with a unit, such as {value:g}GiB or {value:g}MiB")
    found = amount_of(value) if isinstance(value, str) else None
    if found is None:
        raise refuse("expected a size such as 12GiB, 512MiB or 80%")
    number, unit = found
    if unit != "%":
        return Size(bytes_=int(number))
    if number > 100:
        raise refuse("expected at most 100%")
    return Size(share=number / 100)


#: A size, or a share of the pool.
SizeText: TypeAlias = Annotated[
    Size,
    BeforeValidator(_as_size),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": _PATTERN}, {"const": 0}]}),
]


def as_argv(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return a command as program and arguments."""
    if isinstance(value, tuple):
        return value
    try:
        argv = split_command(value)
    except UnterminatedQuoteError as error:
        raise refuse(f"unterminated quote: expected another {error.quote}") from error
    if not argv:
        raise refuse("expected a command")
    return argv


class PoolSection(Section):
    """A memory pool: what differs from what the machine says, or a pool of one's own."""

    device: str | None = None
    """UUID of a GPU that gets this name, or its PCI address.

    Example: `device: GPU-8f6a, capacity: 24GiB`
    """
    capacity: SizeText | None = None
    """Size of the pool; by default as it is read. Example: `capacity: 24GiB`"""
    limit: SizeText | None = None
    """Most that models may hold together. Example: `capacity: 24GiB, limit: 80%`"""
    reserve: SizeText | None = None
    """Amount that is never given to models. Example: `capacity: 24GiB, reserve: 1GiB`"""
    check: Annotated[CommandLine, AfterValidator(as_argv)] | None = None
    """Command that prints the free bytes of the pool; needs `capacity`.

    Example: `capacity: 16GiB, check: npu-free --bytes`
    """

    def _check_fields(self) -> None:
        if self.check is not None and (self.capacity is None or self.capacity.bytes_ is None):
            raise refuse("expected capacity: the size of the pool that `check` is about, in bytes")

    @property
    def check_argv(self) -> tuple[str, ...]:
        """Command that prints the free bytes, as program and arguments; empty without `check`."""
        return self.check if isinstance(self.check, tuple) else ()


def _as_mode(value: object) -> object:
    return "off" if value is False else value  # YAML's word for off


class MemorySection(Section):
    """Memory of the machine, and how the scheduler uses it."""

    mode: Annotated[Literal["off", "observe", "auto"], BeforeValidator(_as_mode)] = "auto"
    """`observe` shows the plans and follows groups or the matrix alone, `off` reads nothing.

    Example: `mode: observe`
    """
    reserve: SizeText | None = None
    """Amount of each pool that is never given to models. Example: `reserve: 5%`"""
    evict: Literal["cost", "lru"] = "cost"
    """Models that are evicted first: `cost` weighs the time to load them, `lru` is the least
    recently used.

    Example: `evict: lru`
    """
    unknown: Literal["alone", "refuse"] = "alone"
    """A model of which nothing is known starts `alone`, or is refused with `refuse`.

    Example: `unknown: refuse`
    """
    on_pressure: Literal["evict", "warn"] = "evict"
    """Effect of a pool that is too full: `evict` idle models, or `warn`.

    Example: `onPressure: warn`
    """
    cgroup: Annotated[str, Field(min_length=1)] | None = None
    """cgroup of the models below `/sys/fs/cgroup`, whose limit is that of RAM.

    Example: `cgroup: models.slice`
    """
    pools: dict[str, PoolSection] = Field(default_factory=dict)
    """Memory pools by name, where they differ from what the machine says.

    Example: `pools: {GPU0: {capacity: 24GiB}}`
    """


def _as_memory(value: object) -> object:
    return {"mode": value} if value is False or isinstance(value, str) else value


#: ``off``, ``observe`` or ``auto``, or a mapping.
MemoryEntry: TypeAlias = Annotated[
    MemorySection,
    BeforeValidator(
        _as_memory, json_schema_input_type=Literal["off", "observe", "auto"] | MemorySection
    ),
]


class ModelMemory(Section):
    """Memory that one model needs.

    Attributes:
        is_auto: The amounts are learned or estimated.
        need: Amount at one of the pools `on`, or of them together with ``place: all``.
        on: Pools where it can run; empty means those that its command uses.
        place: Ways to place it: on any one pool, or split over all; in order.
        asleep: Amounts by pool while it sleeps.
        evict_cost: Factor of the cost of its eviction.
        pools: Amounts by pool.
    """

    is_free_form: ClassVar[bool] = True

    is_auto: bool = Field(default=False, exclude=True)
    need: SizeText | None = None
    """Amount at one of the pools `on`, or of them together with `place: all`.

    Example: `need: 14GiB`
    """
    on: tuple[str, ...] = ()
    """Pools where the model can run. Example: `need: 1GiB, on: [RAM]`"""
    place: tuple[Literal["any", "all"], ...] = ("any",)
    """Ways to place it: on `any` one pool, or split over `all`.

    Example: `need: 1GiB, on: [RAM], place: any`
    """
    asleep: dict[str, SizeText] = Field(default_factory=dict)
    """Amounts by pool while the model sleeps. Example: `asleep: {RAM: 1GiB}`"""
    evict_cost: Annotated[float, Field(gt=0)] = 1.0
    """Factor of the cost of its eviction, > 0. Example: `evictCost: 2`"""
    pools: dict[str, SizeText] = Field(default_factory=dict)

    def _check_fields(self) -> None:
        if self.need is not None and self.pools:
            raise refuse("expected either need, or amounts by pool")
        if "all" in self.place and self.need is None:
            raise refuse("expected need: the amount to split with `place: all`")

    @property
    def is_free(self) -> bool:
        """True if memory is no condition for the model."""
        return self.need == Size(bytes_=0) and not self.asleep


_KEYS = frozenset({"need", "on", "place", "asleep", "evictCost"})


def _as_model_memory(value: object) -> object:
    if isinstance(value, ModelMemory):
        return value
    if value == "auto":
        return {"is_auto": True}
    if not isinstance(value, Mapping):
        return {"need": value}
    keys = {str(key) for key in value}
    if not keys & _KEYS:
        return {"pools": dict(value)}
    if unknown := sorted(keys - _KEYS):
        raise refuse(
            f"expected need, on, place, asleep and evictCost, or amounts by pool; "
            f"found {', '.join(map(repr, unknown))}"
        )
    given = dict(value)
    for key in ("on", "place"):
        if isinstance(given.get(key), str):
            given[key] = (given[key],)
        elif isinstance(given.get(key), list):
            given[key] = tuple(given[key])
    if "need" not in given:
        given["is_auto"] = True
    return given


#: ``auto``, a size, amounts by pool, or a mapping with ``need``, ``on`` and more.
ModelMemoryEntry: TypeAlias = Annotated[
    ModelMemory,
    BeforeValidator(_as_model_memory),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "auto"},
                {"const": 0},
                {"type": "string", "pattern": _PATTERN},
                {
                    "type": "object",
                    "properties": {
                        "need": {"type": "string", "pattern": _PATTERN},
                        "on": {"type": ["string", "array"], "items": {"type": "string"}},
                        "place": {
                            "anyOf": [
                                {"enum": ["any", "all"]},
                                {"type": "array", "items": {"enum": ["any", "all"]}},
                            ]
                        },
                        "asleep": {"type": "object"},
                        "evictCost": {"type": "number", "exclusiveMinimum": 0},
                    },
                    "additionalProperties": {"type": ["string", "integer"]},
                },
            ]
        }
    ),
]
