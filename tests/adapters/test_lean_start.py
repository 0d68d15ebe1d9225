"""An idle proxy has imported nothing that it has not needed."""

from __future__ import annotations

import subprocess
import sys
from email.utils import formatdate

import pytest

from swapchart.adapters.http1.http_date import http_date

#: Modules of features that a proxy may never use: metrics, KV caches, clusters, other protocols.
UNUSED = (
    "difflib", "email", "h11", "h2", "hpack", "html", "http.client", "httpx", "importlib.resources",
    "logging.config", "multiprocessing", "prometheus_client", "tomllib", "statistics", "wsproto",
    "swapchart.adapters.kv.model_cache", "swapchart.adapters.proxy.api.metrics.page",
    "swapchart.adapters.ray.launcher",
)  # fmt: skip
PARTLY = "import sys; from swapchart.adapters.http1 import hypercorn_import as h; h.import_partly()"


def run(code: str) -> str:
    """Return what *code* prints in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_start_imports_no_unused_features() -> None:
    """The proxy and hypercorn are imported without the modules of unused features."""
    code = (
        f"{PARTLY}; import swapchart.adapters.app.application, swapchart.adapters.server.run; "
        f"print(*[name for name in {UNUSED} if name in sys.modules])"
    )

    assert run(code).split() == []


def test_hypercorn_import_load_brings_the_protocols_of_the_package() -> None:
    """After `load`, hypercorn has what a complete import gives it, and waiting functions ran."""
    code = (
        f"{PARTLY}; seen = []; h.when_loaded(lambda: seen.append('loaded')); "
        "print(h.is_partial(), seen); h.load(); h.load(); h.when_loaded(lambda: seen.append(2)); "
        "import h2.events, hypercorn.protocol as p, hypercorn.asyncio.tcp_server as t; "
        "import hypercorn.config as f, wsgiref.handlers as w, "
        "hypercorn.logging as l, logging.config as c; "
        "print(h.is_partial(), seen, t.ProtocolWrapper is p.ProtocolWrapper, "
        "l.dictConfig is c.dictConfig, f.format_date_time is w.format_date_time, "
        "h2.events.RequestReceived.__module__)"
    )

    assert run(code).splitlines() == ["True []", "False ['loaded', 2] True True True h2.events"]


def test_hypercorn_import_after_another_import_changes_nothing() -> None:
    """A program that has imported hypercorn keeps it as it is."""
    code = f"import hypercorn.asyncio.tcp_server as t; {PARTLY}; print(h.is_partial())"

    assert run(code) == "False\n"


@pytest.mark.parametrize("at", [0.0, 951_782_400.0, 1_735_689_599.0, 1_800_000_000.5])
def test_http_date_is_the_date_of_email(at: float) -> None:
    assert http_date(at) == formatdate(at, usegmt=True).encode()
