"""Checks that a request for a model passes before it is forwarded, in their order."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One check of a request.

    Attributes:
        name: What is checked.
        statuses: HTTP statuses of the responses to requests that fail it.
        module: Where the check is, below ``adapters``.
    """

    name: str
    statuses: tuple[int, ...]
    module: str


#: What a request for a model passes before it is forwarded, in this order; the first check that
#: fails decides the response.
CHECKS = (
    Check(
        "HTTP syntax and limits", (400, 405, 408, 414, 417, 431, 501, 505),
        "http1/server/validation.py",
    ),
    Check("loop of peers", (508,), "proxy/access/admission.py"),
    Check("Host", (421,), "proxy/access/admission.py"),
    Check("Origin", (403,), "proxy/access/admission.py"),
    Check("API key", (401,), "proxy/access/admission.py"),
    Check("route", (404, 405), "proxy/app.py"),
    Check("scope of the key", (403,), "proxy/access/admission.py"),
    Check("keep-alive of the model", (400,), "proxy/access/keep_alive.py"),
    Check("size of the body", (413,), "proxy/request.py"),
    Check("model name in the body", (400,), "proxy/body/model_name.py"),
    Check("model", (404, 503), "proxy/models/resolver.py"),
    Check("models of the key", (403,), "proxy/api/inference.py"),
    Check("filters of the model", (400, 415), "proxy/api/inference.py"),
)  # fmt: skip
