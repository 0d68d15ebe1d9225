"""What an application gets to know when its client does not stay.

In a module of its own: a compiled one cannot have a class with two builtin bases.
"""

from __future__ import annotations

from ....machine.errors import SwapchartError


class ClientDisconnectedError(SwapchartError, ConnectionError):
    """The client left, or was cut, while an answer was being sent (ASGI 2.4: an OSError)."""
