"""Bodies that describe models: which there are, which run, and their charts."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import UNSET, Meta, field

from .base import Body, Maybe, Part
from .containers import ContainerFacts
from .kv import KvFacts

#: State of a model as in the metric ``swapchart_model_state``.
ReportedState: TypeAlias = Literal[
    "stopped", "starting", "ready", "sleeping", "stopping", "failed", "shutdown"
]


class LlamaSwapMeta(Part, kw_only=True):
    """Extensions of an entry in the list of models.

    Attributes:
        llamaswap: ``metadata`` of the configuration, with ``type`` and what belongs to that type.
        n_ctx: Context length in tokens.
    """

    llamaswap: dict[str, Any]
    n_ctx: Maybe[int] = UNSET


class LoadStatus(Part, kw_only=True):
    """Load state of a model.

    Attributes:
        args: Command line of the server, in ``/models`` and for keys with the scope ``admin``.
        failed: The last run of the server failed.
        exit_code: Exit code of that run; null if it was killed by a signal, or is not known.
    """

    value: str
    args: Maybe[list[str]] = UNSET
    failed: Maybe[bool] = UNSET
    exit_code: Maybe[int | None] = UNSET


class Architecture(Part, kw_only=True):
    """Modalities of a model."""

    input_modalities: Maybe[list[str]] = UNSET
    output_modalities: Maybe[list[str]] = UNSET
    modality: Maybe[str] = UNSET


class Model(Body, kw_only=True):
    """A model; also an entry in the list of models.

    Attributes:
        created: When the proxy was started; seconds since 1970.
        context_length: Context length in tokens.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    meta: LlamaSwapMeta
    status: LoadStatus
    name: Maybe[str] = UNSET
    description: Maybe[str] = UNSET
    architecture: Maybe[Architecture] = UNSET
    capabilities: Maybe[dict[str, bool]] = UNSET
    supported_parameters: Maybe[list[str]] = UNSET
    context_length: Maybe[int] = UNSET


class ModelList(Body, kw_only=True):
    """All models that the key may use, sorted by id."""

    object: Literal["list"] = "list"
    data: list[Model]


class HeldMemory(Part, kw_only=True):
    """Memory of one pool that a model holds; in bytes.

    Attributes:
        claim: What it was granted.
        seen: What it uses; null means that it is not measured.
        source: Origin of the claim: declared, learned, estimated or unknown.
    """

    claim: int
    seen: int | None
    source: str


class RunningModel(Part, kw_only=True):
    """A model whose server runs.

    Attributes:
        state: State in llama-swap's words.
        ttl: Idle timeout in seconds; 0 means none.
        configuration: Active states of the chart, outermost first.
        cause: Why the model is in that state.
        pid: Process id of the server; null while there is no process.
        incarnation: Number of the run, from 1.
        in_flight: Requests that the server is processing.
        waiting: Requests that wait for the server to become ready.
        container: Its container; absent without one.
        node: Node on which the server runs; empty if it is not known.
        memory: Pool -> memory that it holds; absent without `memory:`.
    """

    model: str
    state: str
    cmd: str
    proxy: str
    ttl: float
    name: str
    description: str
    configuration: list[str]
    cause: str
    pid: int | None
    incarnation: int
    in_flight: int
    waiting: int
    node: str
    kv: Maybe[KvFacts] = UNSET
    container: Maybe[ContainerFacts] = UNSET
    memory: Maybe[dict[str, HeldMemory]] = UNSET


class RunningModels(Body, kw_only=True):
    """All models whose server runs, sorted by id."""

    running: list[RunningModel]


class ModelStatus(Part, kw_only=True):
    """State of a model, in the event ``modelStatus``; a peer's model has no state.

    Attributes:
        state: State in llama-swap's words.
        peer_id: Id of the peer; empty for our own models.
        configuration: Active states of the chart, outermost first.
        failures: Failed starts in a row.
        node: Node of the server; absent for the machine of the proxy.
        pinned: The model is never evicted.
        kept: It has no idle limit until it is unloaded or unpinned; absent for others.
        load_s: Time in seconds that a start takes, by the last ones; absent before the first.
    """

    id: str
    name: str
    description: str
    state: str
    unlisted: bool
    peer_id: str = field(name="peerID")
    configuration: Maybe[list[str]] = UNSET
    cause: Maybe[str] = UNSET
    pid: Maybe[int | None] = UNSET
    incarnation: Maybe[int] = UNSET
    node: Maybe[str] = UNSET
    in_flight: Maybe[int] = UNSET
    waiting: Maybe[int] = UNSET
    failures: Maybe[int] = UNSET
    aliases: Maybe[list[str]] = UNSET
    capabilities: Maybe[dict[str, bool]] = UNSET
    context_length: Maybe[int] = UNSET
    pinned: Maybe[bool] = UNSET
    kept: Maybe[bool] = UNSET
    load_s: Maybe[float] = UNSET


class ChartLabel(Part, kw_only=True):
    """One reason for a transition: events, guard and actions."""

    events: list[str]
    guard: str
    actions: list[str]
    origin: str


class ChartPlace(Part, kw_only=True):
    """Box of a state in pixels, from the top left corner of the drawing."""

    x: float
    y: float
    width: float
    height: float


class ChartState(Part, kw_only=True):
    """A state of a chart.

    Attributes:
        above: Ids of its ancestors, outermost first.
        initial: Id of its initial child; empty without one.
        inside: Transitions that do not leave the state.
        is_quiet: In this state no process exists.
        is_serving: In this state requests are served.
    """

    id: str
    kind: str
    above: list[str]
    initial: str
    enter: list[str]
    exit: list[str]
    inside: list[ChartLabel]
    is_quiet: bool
    is_serving: bool
    place: ChartPlace


class ChartTransition(Part, kw_only=True):
    """An arrow of a chart."""

    source: str
    target: str
    labels: list[ChartLabel]


class Chart(Body, kw_only=True):
    """Lifecycle chart of a model and its active states.

    Attributes:
        configuration: Active states, outermost first.
        width: Width of the drawing in pixels.
        height: Height of the drawing in pixels.
        states: All states in document order, ancestors before their descendants.
    """

    model: str
    chart: str
    configuration: list[str]
    width: float
    height: float
    states: list[ChartState]
    transitions: list[ChartTransition]


class QueuedRequest(Part, kw_only=True):
    """A request in the queue.

    Attributes:
        position: Place in the queue, from 1.
        since: When the request was queued, in seconds on the clock of ``now``.
        why: Why the request waits.
        id: Its number in the event ``inflight``; missing if no request of a client waits, as for a
            load by command.
        request_id: Its X-Request-ID; missing where ``id`` is.
        waited_s: How long it has been in the queue, in seconds.
    """

    position: int
    model: str
    priority: int
    since: float
    why: str
    id: Maybe[str] = UNSET
    request_id: Maybe[str] = UNSET
    waited_s: Maybe[float] = UNSET


class Swap(Part, kw_only=True):
    """A swap under way: the models that are evicted for the target."""

    target: str
    evicting: list[str]


class ModelLoad(Part, kw_only=True):
    """Requests of one model.

    Attributes:
        phase: Phase of its lifecycle as the scheduler sees it.
        granted: Requests that were admitted and have not ended.
        limit: Maximum of these; null means unlimited.
        pinned: The model is never evicted.
    """

    model: str
    phase: str
    granted: int
    limit: int | None
    pinned: bool


class Queue(Body, kw_only=True):
    """The queue in its order, swaps under way, and the load of each model.

    Attributes:
        now: Time of the response in seconds, on a clock of unknown origin.
    """

    queue: list[QueuedRequest]
    swaps: list[Swap]
    models: list[ModelLoad]
    now: Maybe[float] = UNSET


class Explanation(Body, kw_only=True):
    """Effect that a request for a model would have at this moment.

    Attributes:
        evict: Models that would be evicted.
        why: Why the request would wait or be rejected; empty if neither.
        position: Place that it would get in the queue, from 1.
        container: Container of the model; absent without one.
        memory: Sum of its memory, one amount a line; absent if memory is no condition for it.
    """

    model: str
    outcome: Literal["serve", "wait", "swap", "start", "reject"]
    evict: list[str]
    why: str
    phase: str
    state: str
    cause: str
    configuration: list[str]
    granted: int
    limit: int | None
    position: Annotated[int, Meta(ge=1)]
    container: Maybe[ContainerFacts] = UNSET
    memory: Maybe[list[str]] = UNSET


class ModelReadiness(Body, kw_only=True):
    """Readiness of a model, which is not loaded for it.

    Attributes:
        accepts: A request would be served, if need be after the model was loaded.
        loaded: A request would be served at once, or after those in flight.
        why: Why a request would be refused; empty if it would be served.
        cause: Why the model is in that state; empty if it was never started.
    """

    model: str
    state: ReportedState
    accepts: bool
    loaded: bool
    why: str
    cause: str


class ModelNotReady(ModelReadiness, kw_only=True):
    """The same for a model whose requests would be refused."""

    STATUS: ClassVar[int] = 503


class Readiness(Body, kw_only=True):
    """Readiness of the proxy and of the models that the key may use, sorted by id."""

    status: Literal["ready"] = "ready"
    models: list[ModelReadiness]
