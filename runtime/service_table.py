"""Table of the services of one supervisor, and of those that are being removed."""

from __future__ import annotations

from .errors import RequestError, UnknownServiceError
from .lifecycle import Lifecycle
from .retirement import Retirement


class ServiceTable:
    """The services that a supervisor knows.

    Attributes:
        lifecycles: Name -> lifecycle, in the order in which they were added.
        retiring: Name -> removal under way; such a service is in *lifecycles* too.
        is_closing: The supervisor shuts down: it accepts no request and no service.
    """

    def __init__(self) -> None:
        self.lifecycles: dict[str, Lifecycle] = {}
        self.retiring: dict[str, Retirement] = {}
        self.is_closing = False
        self._removed: set[str] = set()

    def check_open(self) -> None:
        """Raise an error if the supervisor shuts down.

        Raises:
            RequestError: It does.
        """
        if self.is_closing:
            raise RequestError("shutting_down", "shutting down")

    def forget(self, name: str) -> None:
        """Drop *name*, whose removal is complete."""
        del self.lifecycles[name], self.retiring[name]
        self._removed.add(name)

    def lookup(self, name: str) -> Lifecycle:
        """Return the lifecycle of *name*.

        Raises:
            UnknownServiceError: There is no such service; a `KeyError` too.
        """
        found = self.lifecycles.get(name) if isinstance(name, str) else None
        if found is None:
            raise UnknownServiceError(name)
        return found

    def unknown(self, name: str) -> RequestError:
        """Return the error for a request for *name*, which is not in the table."""
        is_removed = isinstance(name, str) and name in self._removed
        return self.removed(name) if is_removed else UnknownServiceError(name)

    def removed(self, name: str) -> RequestError:
        """Return the error for a request for *name*, which was removed or is being removed."""
        retirement = self.retiring.get(name)
        wait_s = None if retirement is None or retirement.successor is None else 1.0
        return RequestError("model_removed", f"{name} was removed", retry_after_s=wait_s)
