"""Check that the packages of tracing are installed, without importing them."""

from __future__ import annotations

from importlib.util import find_spec

from ....runtime import SwapchartError


class TracingMissingError(SwapchartError):
    """The configuration asks for traces, and the packages are not installed."""


def check_tracing(*, is_wanted: bool) -> None:
    """Check that tracing can be set up if it *is_wanted*.

    Raises:
        TracingMissingError: It cannot; the text says what to install.
    """
    if not is_wanted:
        return
    try:
        is_there = find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # of the parent
        is_there = False
    if not is_there:
        raise TracingMissingError(
            "`tracing: true` needs the OpenTelemetry SDK, which is not installed: "
            "pip install 'swapchart[otel]'"
        )
