"""Interface of a host for its instances."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from ..fence import Fence
from ..listeners import Listeners
from ..timers import TimerService
from .records import Step
from .store import Store

T = TypeVar("T")


class HostLink(Protocol):
    """Interface of a host for its instances.

    Attributes:
        tasks: Runs activities.
        timers: Makes timers.
        listeners: Get the steps of all instances.
        store: Keeps a snapshot of each instance; None keeps none.
        wall: Returns the time in seconds since 1970-01-01 UTC.
    """

    store: Store | None
    wall: Callable[[], float]
    tasks: Fence
    timers: TimerService
    listeners: Listeners[Step]

    def check_thread(self) -> None:
        """Raise `WrongThreadError` outside the thread of the host."""
        ...

    def check_no_other_thread(self, instead: str) -> None:
        """Raise `WrongThreadError`, which names *instead*, if the host runs in another thread."""
        ...

    def call_threadsafe(self, call: Callable[[], Any]) -> Future[Any]:
        """Run *call* in the loop of the host, from any thread."""
        ...
