"""Options of `swapchart serve` that concern the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ...dataclass import dataclass

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of the server.

    Attributes:
        server: ``hypercorn`` or ``uvicorn``.
        is_stock: Use the server's own HTTP/1.1 layer instead of ours.
        certificate: Files of a certificate chain and its key; None means clear text.
        stop_limit_s: Seconds from the first SIGTERM that in-flight requests, hooks and grace
            periods have.
        on_listening: Called with the URL once clients can connect.
    """

    server: str = "hypercorn"
    is_stock: bool = False
    certificate: tuple[Path, Path] | None = None
    stop_limit_s: float = 60.0
    on_listening: Callable[[str], None] = lambda url: None
