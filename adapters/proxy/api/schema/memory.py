"""Bodies that describe memory: pools, and what each model holds of them."""

from __future__ import annotations

from msgspec import Struct

from .base import Body, Part


class MemoryPool(Part, kw_only=True):
    """A memory pool; amounts are in bytes.

    Attributes:
        limit: Most that models may hold; null means that there is no limit.
        used: Bytes in use by all programs; null means that they are not read.
        foreign: Bytes that other programs hold.
        others: Name of another program -> bytes that it holds, the largest ones, where the driver
            says it.
        held: Bytes that models hold: what they were granted or what they use, whichever is more.
        free: Bytes that are free for models; negative if the pool is too full.
        stale: The last reading is too old to rely on.
        source: Where the pool is read; empty means that it is declared only.
        keep: Most that models may hold while the pool is left to other programs; null means that
            it is not.
        left_because: Why it is left to other programs, in words; empty while it is not.
    """

    name: str
    capacity: int
    reserve: int
    limit: int | None
    used: int | None
    foreign: int
    others: dict[str, int]
    held: int
    free: int
    stale: bool
    source: str
    keep: int | None
    left_because: str


class MemoryHolder(Part, kw_only=True):
    """Memory of a model, in bytes by pool.

    Attributes:
        claim: What it was granted.
        seen: What it uses.
        source: Origin of the claim: declared, learned, estimated or unknown.
        load_s: Time in seconds that its start takes.
        idle_s: Time in seconds since its last use; 0 while it is in use.
    """

    model: str
    phase: str
    claim: dict[str, int]
    seen: dict[str, int]
    source: str
    pinned: bool
    load_s: float
    idle_s: float


class LearnedMemory(Part, kw_only=True):
    """Amounts of one pool in earlier runs of one launch of a model; in bytes.

    Attributes:
        launch: Identifies the launch: its options, files and devices.
        claim: What its next start reserves.
        ready: What the last run held when it became ready.
        highest: Most that one of the last five runs held.
        asleep: Most that it held while it slept; 0 if it never did.
        runs: Number of runs, at most 5.
        method: How the last run was measured: process, delta or log.
    """

    model: str
    pool: str
    launch: str
    claim: int
    ready: int
    highest: int
    asleep: int
    runs: int
    method: str


class MemoryNotice(Part, kw_only=True):
    """A notice in words.

    Attributes:
        kind: ``pressure``: a pool is too full. ``reading``: memory cannot be read. ``exceeded``: a
            model has held more than it declares. ``unused``: five runs have never used 40 % or
            more of a declared amount. ``elastic``: a server fits itself into what is free.
            ``short``: a model ran out of memory, so its starts reserve more.
        model: Model that it is about; empty if it is about none.
        pool: Pool that it is about; empty if it is about none.
    """

    kind: str
    model: str
    pool: str
    text: str


class AwayModel(Part, kw_only=True):
    """A model that left memory to other programs, and is loaded again when these are gone."""

    model: str


class OutOfMemory(Part, kw_only=True):
    """Ends of a model because memory ran out, since the proxy was started.

    Attributes:
        count: Number of them.
        at: Time of the last one.
        why: What happened then, the sum and what to do.
        retried: It was started once more after other models had made room.
    """

    model: str
    count: int
    at: str
    why: str
    retried: bool


class MemoryState(Body, kw_only=True):
    """Memory pools and what models hold of them.

    Attributes:
        mode: ``off``, ``observe`` or ``auto``.
        failure: Why the last reading failed; empty if it did not.
        learned: What earlier runs have shown.
        notices: What is wrong now, and which declarations need a change.
        away: Models that are loaded again, the next one first.
        failures: Models that ran out of memory.
    """

    mode: str
    pools: list[MemoryPool]
    models: list[MemoryHolder]
    failure: str
    learned: list[LearnedMemory]
    notices: list[MemoryNotice]
    away: list[AwayModel]
    failures: list[OutOfMemory]


class YieldRequest(Struct, kw_only=True):
    """Body of a request that leaves pools to other programs.

    Attributes:
        seconds: Time after which models may use them again; null means until a further request,
            and 0 ends it now.
        keep: Bytes of each that models may hold meanwhile.
    """

    pools: list[str]
    seconds: float | None = None
    keep: int = 0


class YieldedPools(Body, kw_only=True):
    """Memory pools that are left to other programs by request."""

    pools: list[str]


class ForgottenMemory(Body, kw_only=True):
    """Outcome of forgetting what was learned of a model.

    Attributes:
        launches: Number of launches that were known.
    """

    model: str
    launches: int
