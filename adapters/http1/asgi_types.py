"""Types of ASGI 3, as far as this package uses them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]
SendFullResponse: TypeAlias = Callable[[int, Headers, bytes], bool]
WriteBody: TypeAlias = Callable[[bytes, bytes], bool]


@runtime_checkable
class SupportsFastPath(Protocol):
    """ASGI application that can serve a request without a task of its own."""

    def try_fast_path(self, call: Any) -> bool:
        """Serve *call*, a ``RequestCycle``, or return False: then it is called as ASGI says."""
        ...


def fast_path_of(app: object) -> Callable[[Any], bool] | None:
    """Return the fast path of *app*; None if it has none."""
    return app.try_fast_path if isinstance(app, SupportsFastPath) else None
