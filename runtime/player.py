"""Player: one instance of a custom chart in a host of its own.

    async with Player(read(text), activities={"measure": measure}, timers={"pause": 5}) as player:
        player.post("go")
        await player.wait_for("done")

`Lifecycle` does the same for the chart of a service, with processes and requests; `Host` runs many
instances.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..machine import Configuration, Document, Machine, Snapshot, Value
from .arguments import require_chart_source, require_mapping, require_name, require_text
from .engine import Actions, ActivityFunction, Host, HostStateError, Instance, Step, StepListener
from .engine.actions import ErrorFunction, NotifyListener

if TYPE_CHECKING:
    from statemachine import StateChart


class Player:
    """Runs one instance of a chart; an async context manager, entered once.

    Args:
        chart: A machine, a document, or a python-statemachine class that a document can express.
        activities: Name -> function that runs while the activity is active. If the chart cancels
            the activity, the function is cancelled and its event is dropped.
        timers: Name -> seconds until the event of the timer, >= 0; by default those of the chart.
        parameters: Parameters of the chart.
        payload: Data of the program, for its activities.
        on_step: Called with each step; must not wait. An exception is logged.
        on_notify: Called with the name of each ``notify`` effect; must not wait. An exception is
            logged.
        on_error: (activity, error) -> event of an activity that raised *error*; None leaves the
            choice to the chart.
        id: Id of the instance, for its log lines and steps.

    Raises:
        ChartError: The chart is wrong, or what it starts is not what the arguments hold.
        ConfigError: An argument has a wrong type, or a callback is async.
    """

    def __init__(
        self, chart: Machine | Document | type[StateChart[Any]], *,
        activities: Mapping[str, ActivityFunction] | None = None,
        timers: Mapping[str, float] | None = None,
        parameters: Mapping[str, Value] | None = None,
        payload: Any = None,
        on_step: StepListener | None = None,
        on_notify: NotifyListener | None = None,
        on_error: ErrorFunction | None = None,
        id: str | None = None,  # noqa: A002
    ) -> None:  # fmt: skip
        require_chart_source("chart", chart)
        given = {} if parameters is None else parameters
        require_mapping("parameters", given, "a mapping of names to values")
        if id is not None:
            require_name("id", id)
        self._host = Host()
        self._is_entered = False
        actions = Actions(
            activities={} if activities is None else activities,
            timers={} if timers is None else timers,
            on_step=on_step, on_notify=on_notify, on_error=on_error,
        )  # fmt: skip
        self._instance: Instance[Any] = self._host.prepared(
            chart, name=id, actions=actions, parameters=given, payload=payload
        )

    async def __aenter__(self) -> Self:
        """Enter the initial configuration.

        Raises:
            HostStateError: The player was entered before.
            StepError: A datum left its domain.
        """
        await self._host.__aenter__()
        try:
            self._host.adopt(self._instance)
        except BaseException as error:  # `async with` leaves only what it has entered
            await self._host.__aexit__(type(error), error, error.__traceback__)
            raise
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel all activities."""
        await self._host.__aexit__(kind, error, traceback)

    @property
    def configuration(self) -> Configuration:
        """All active states, in document order."""
        return self._instance.configuration

    @property
    def is_final(self) -> bool:
        """True if the chart has ended."""
        return self._instance.is_final

    @property
    def data(self) -> dict[str, Value]:
        """The chart's data by name."""
        return self._instance.data

    @property
    def payload(self) -> Any:
        """Data of the program, for its activities."""
        return self._instance.payload

    def snapshot(self) -> Snapshot:
        """Return what `Host.resume` needs to go on; see `Instance.snapshot`.

        Raises:
            HostStateError: The player was not entered yet.
        """
        if not self._is_entered:
            why = "the instance has not begun: enter `async with` first"
            raise HostStateError(f"{self._instance.id}: {why}")
        return self._instance.snapshot()

    def datum(self, name: str) -> Value | None:
        """Return one variable or parameter of the chart; None if it has no such variable."""
        require_text("name", name)
        return {**self._instance.parameters, **self._instance.data}.get(name)

    def can(self, event: str, data: Mapping[str, Value] | None = None) -> bool:
        """Return True if the chart handles *event* now; see `Instance.can`."""
        return self._instance.can(event, {} if data is None else data)

    def post(
        self, event: str, data: Mapping[str, Value] | None = None, *, payload: Any = None
    ) -> Step | None:
        """Process *event*, now or, inside a step, right after it; see `Instance.post`."""
        return self._instance.post(event, data, payload=payload)

    def replay(
        self, event: str, data: Mapping[str, Value] | None = None, *, payload: Any = None,
        cause: str = "replay",
    ) -> Step | None:  # fmt: skip
        """Process *event* in place of whatever sends it, for tests; see `Instance.replay`."""
        return self._instance.replay(event, data, payload=payload, cause=cause)

    def post_threadsafe(
        self, event: str, data: Mapping[str, Value] | None = None, *, payload: Any = None
    ) -> Future[Step | None]:
        """Post *event* from any thread; see `Host.post_threadsafe`."""
        return self._instance.post_threadsafe(event, data, payload=payload)

    async def wait_for(self, *states: str) -> None:
        """Wait until one of *states* is active; see `Instance.wait_for`."""
        await self._instance.wait_for(*states)

    def listen(self, listener: StepListener) -> Callable[[], None]:
        """Call *listener* with each step; see `Instance.listen`."""
        return self._instance.listen(listener)

    def events(self) -> AsyncIterator[Step]:
        """Yield each step from now on; see `Instance.events`."""
        return self._instance.events()
