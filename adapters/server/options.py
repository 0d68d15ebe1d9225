"""Options of `swapchart serve` that concern the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How to serve.

    Attributes:
        server: ``hypercorn`` or ``uvicorn``.
        is_stock: Speak HTTP/1.1 by the server's own layer instead of ours.
        certificate: Files of a certificate chain and its key: speak HTTPS. None: clear text.
        stop_limit_s: From the first SIGTERM: so long for requests in flight, hooks and grace.
        on_listening: Called with the URL once clients can connect.
    """

    server: str = "hypercorn"
    is_stock: bool = False
    certificate: tuple[Path, Path] | None = None
    stop_limit_s: float = 60.0
    on_listening: Callable[[str], None] = lambda url: None
