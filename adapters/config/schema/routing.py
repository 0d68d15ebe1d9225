"""Keys of profiles, selectors, peers, groups, matrix and queue."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeAlias

from .fields import FreeForm, Seconds, SecondsOrOff
from .model import FiltersSection, Timeouts
from .section import BeforeValidator, Field, SecretStr, Section, refuse


class PeerTimeouts(Timeouts):
    """Timeouts of a peer; seconds."""

    response_header: int = 60
    """Seconds until the first header of a response; 0 is unlimited.

    Example: `responseHeader: 600`
    """


class PeerSection(Section):
    """Another server that offers models."""

    proxy: str
    """Address of the peer. Example: `proxy: "http://192.168.1.20:8080"`"""
    api_key: SecretStr = SecretStr("")
    """API key that the peer gets with each request. Example: `apiKey: sk-example`"""
    models: tuple[str, ...]
    """Models that the peer offers, by their names there. Example: `models: [big]`"""
    filters: FiltersSection = FiltersSection()
    """Changes to the JSON body of requests to the peer. Example: `filters: {stripParams: top_k}`"""
    timeouts: PeerTimeouts = PeerTimeouts()
    """Connection timeouts of the peer. Example: `timeouts: {responseHeader: 600}`"""


def as_profile(value: object) -> object:
    """Return *value* unless it is in the form that was removed."""
    if isinstance(value, (list, tuple)):
        raise refuse("expected a mapping with pins: the list form of profiles was removed")
    return value


class ProfileSection(Section):
    """Public names that mean other models while the profile is active."""

    description: str = ""
    """Text that lists of profiles show. Example: `description: for the night`"""
    pins: dict[str, str | None]
    """Model behind each public name while the profile is active; null removes the name.

    Example: `pins: {main: qwen}`
    """


class SelectorSettings(Section):
    """Settings of a selector's strategy."""

    spillover: int = 1
    """Running requests of a target before the next target is used, >= 1. Example: `spillover: 4`"""


class SelectorSection(Section):
    """A name that stands for one of several models, chosen for each request."""

    strategy: Literal["warm", "pin", "spillover"]
    """`warm` prefers a ready target, `pin` rewrites the name, `spillover` uses the next target
    when one is full.

    Example: `strategy: warm`
    """
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Models to choose from, in order of preference. Example: `targets: [qwen, small]`"""
    settings: SelectorSettings = SelectorSettings()
    """Settings of the strategy. Example: `settings: {spillover: 2}`"""
    name: str = ""
    """Name that `/v1/models` shows. Example: `name: Fast or slow`"""
    description: str = ""
    """Description that `/v1/models` shows. Example: `description: whichever model is loaded`"""
    unlisted: bool = False
    """Leave the selector out of `/v1/models`. Example: `unlisted: true`"""
    metadata: FreeForm = Field(default_factory=dict)
    """Values that `/v1/models` shows. Example: `metadata: {family: qwen}`"""


class GroupSection(Section):
    """Models that are swapped together."""

    swap: bool = True
    """One member runs at a time; with `false` all members may run together.

    Example: `swap: false`
    """
    exclusive: bool = True
    """A start of a member evicts the models of other groups. Example: `exclusive: false`"""
    persistent: bool = False
    """Other groups do not evict the members. Example: `persistent: true`"""
    members: tuple[str, ...] = ()
    """Models of the group. Example: `members: [qwen, small]`"""


class MatrixSection(Section):
    """Combinations of models that may run at the same time, as expressions."""

    vars: dict[str, str] = Field(default_factory=dict)
    """Short names of models, for the sets. Example: `vars: {q: qwen}`"""
    evict_costs: dict[str, int] = Field(default_factory=dict, alias="evict_costs")
    """Cost of the eviction of a model, 1 by default; the cheapest choice is made.

    Example: `evict_costs: {qwen: 10}`
    """
    sets: dict[str, str] = Field(default_factory=dict)
    """Expressions of models that may run together: `&` is and, `+NAME` is another set, and `|`
    is or.

    Example: `sets: {pair: qwen & small}`
    """


class RouterSettings(Section):
    """Settings of the two routers."""

    groups: dict[str, GroupSection] = Field(default_factory=dict)
    """Groups by name; the same as the key `groups` of the top level.

    Example: `groups: {chat: {members: [qwen, small]}}`
    """
    matrix: MatrixSection | None = None
    """The same as the key `matrix` of the top level.

    Example: `matrix: {sets: {pair: qwen & small}}`
    """


class RouterSection(Section):
    """Router: decides which models may run together."""

    use: Literal["group", "matrix", ""] = ""
    """Router that decides: `group` or `matrix`; by default the one that has settings.

    Example: `use: group`
    """
    settings: RouterSettings = RouterSettings()
    """Settings of the routers. Example: `settings: {groups: {chat: {members: [qwen]}}}`"""


class FifoSection(Section):
    """Order of waiting requests."""

    priority: dict[str, int] = Field(default_factory=dict)
    """Priority of a model's requests in the queue, 0 by default; higher ones go first.

    Example: `priority: {qwen: 10}`
    """


class SchedulerSettings(Section):
    """Settings of the scheduler."""

    fifo: FifoSection = FifoSection()
    """Order of waiting requests. Example: `fifo: {priority: {qwen: 10}}`"""


class SchedulerSection(Section):
    """Scheduler: orders waiting requests."""

    use: Literal["fifo", ""] = "fifo"
    """Scheduler of the queue; there is one. Example: `use: fifo`"""
    settings: SchedulerSettings = SchedulerSettings()
    """Settings of the scheduler. Example: `settings: {fifo: {priority: {qwen: 10}}}`"""


class RoutingSection(Section):
    """Scheduler and router."""

    scheduler: SchedulerSection = SchedulerSection()
    """Order of waiting requests.

    Example: `scheduler: {settings: {fifo: {priority: {qwen: 10}}}}`
    """
    router: RouterSection = RouterSection()
    """Models that may run together, in llama-swap's newer form.

    Example: `router: {settings: {groups: {chat: {members: [qwen]}}}}`
    """


def _as_residency(value: object) -> object:
    return math.inf if value == "auto" else value


#: Seconds, or ``auto``: as long as the last start took.
Residency: TypeAlias = Annotated[
    float,
    Field(ge=0, allow_inf_nan=True),
    BeforeValidator(_as_residency, json_schema_input_type=float | Literal["auto"]),
]


class Queue(Section):
    """Limits of waiting requests; times in seconds."""

    limit: Annotated[int, Field(ge=1)] = 512
    """Most requests that wait; further ones are rejected. Example: `limit: 100`"""
    timeout: Seconds = 300.0
    """Seconds that a request may wait. Example: `timeout: 120`"""
    max_wait: SecondsOrOff = 30.0
    """Seconds after which later requests no longer overtake a waiting one; 0 is never.

    Example: `maxWait: 60`
    """
    min_residency: Residency = 0.0
    """Seconds that an idle model is kept for its next request while another model is
    requested; `auto` is as long as its own last start took.

    Example: `minResidency: auto`
    """
