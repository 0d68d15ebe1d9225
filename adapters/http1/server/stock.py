"""Limits for the HTTP/1.1 layers of hypercorn and uvicorn themselves.

They serve with ``--stock``, websockets, and servers that are configured for what this package does
not do. Without limits they read a head or a body for as long as it trickles, hypercorn speaks
HTTP/2 to a client that begins with its preface or asks for ``h2c``, and a request that crosses the
close of an idle connection is reset. With them a client gets the timeouts of ``H1Limits`` (under
uvicorn also its size of a head), HTTP/2 is rejected, ``h2c`` ignored as RFC 9110 7.8 allows, and
idle connections end by a half-close first. How these layers treat malformed requests is theirs.

The classes of both servers are private; where one is not what is expected, it stays as it is.
"""

from __future__ import annotations

import logging
from typing import Any

from .validation import H1Limits

LOG = logging.getLogger("swapchart.h1")


def guarded_hypercorn(stock: Any, limits: H1Limits) -> Any:
    """Return hypercorn's ``TCPServer`` with *limits*, and without HTTP/2.

    Args:
        stock: The class.
        limits: Limits of each client.
    """
    try:
        from hypercorn.protocol.h11 import H11Protocol

        from .stock_hypercorn import LimitedTCPServer  # needs hypercorn and h11
    except ImportError:
        return stock
    methods = ("_read_data", "_initiate_server_close", "_close")
    if not all(hasattr(stock, name) for name in methods) or not hasattr(
        H11Protocol, "_check_protocol"
    ):
        LOG.warning(
            "this version of hypercorn is unknown: its own HTTP layer serves without limits"
        )
        return stock
    return type("LimitedTCPServer", (LimitedTCPServer, stock), {"limits": limits})


def guarded_uvicorn(limits: H1Limits) -> Any:
    """Return uvicorn's protocol on httptools with *limits*, for its ``Config(http=...)``.

    None means that uvicorn or httptools is missing or unknown, which a warning says.

    Args:
        limits: Limits of each client.
    """
    try:
        from .stock_uvicorn import LimitedHttpTools  # needs uvicorn
    except ImportError as error:
        LOG.warning("uvicorn serves HTTP/1.1 without limits: %s", error)
        return None
    return type("LimitedHttpTools", (LimitedHttpTools,), {"limits": limits})
