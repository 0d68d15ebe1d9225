"""Error that an application gets when its client has disconnected.

In a module of its own: a compiled one cannot have a class with two builtin bases.
"""

from __future__ import annotations

from ....machine.errors import SwapchartError


class ClientDisconnectedError(SwapchartError, ConnectionError):
    """The client disconnected while a response was being sent (ASGI 2.4: an OSError)."""
