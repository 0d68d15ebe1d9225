"""Bodies of the proxy's own errors, and the share of memory for captures."""

from __future__ import annotations

from typing import get_args

import pytest
from anthropic.types.shared.error_type import ErrorType

from swapchart.adapters.proxy.accounting.accounting import Accounting
from swapchart.adapters.proxy.event_bus import EventBus
from swapchart.adapters.proxy.responses import error_value
from swapchart.runtime import LogRing


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", "bad_request"),
        (401, "authentication_error", "unauthorized"),
        (404, "invalid_request_error", "not_found"),
        (405, "invalid_request_error", "invalid_request"),
        (413, "invalid_request_error", "invalid_request"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (499, "invalid_request_error", "request_cancelled"),
        (500, "server_error", "internal_error"),
        (503, "server_error", "service_unavailable"),
        (507, "server_error", "internal_error"),
    ],
)
def test_error_value_without_a_code_has_that_of_its_status(
    status: int, kind: str, code: str
) -> None:
    """A code that is given takes precedence."""
    error = error_value(status, "text")

    assert error == {
        "src": "swapchart",
        "error": {"message": "text", "type": kind, "param": None, "code": code},
    }
    assert error_value(status, "text", code="own")["error"]["code"] == "own"


@pytest.mark.parametrize("status", range(400, 600))
def test_anthropic_error_value_is_one_of_its_library(status: int) -> None:
    """Its types, by status as its API has them, and the id of the request."""
    value = error_value(status, "text", is_anthropic=True, request_id=b"id-1")
    kind = value["error"]["type"]
    known = {*get_args(ErrorType), "request_too_large"}

    assert (value["type"], value["request_id"], value["error"]["message"]) == (
        "error", "id-1", "text",
    )  # fmt: skip
    assert kind in known
    assert ("api_error" in kind) <= (status >= 500)
    assert value["error"]["code"] == error_value(status, "text")["error"]["code"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_anthropic_error_type_follows_the_status(status: int, kind: str) -> None:
    assert error_value(status, "text", is_anthropic=True)["error"]["type"] == kind


@pytest.mark.parametrize(
    ("open_requests", "share"),
    [(0, 1 << 20), (1, 1 << 20), (2, 1 << 19), (3, (1 << 20) // 3), (10**9, None)],
)
def test_capture_limit_is_shared_by_open_requests(open_requests: int, share: int | None) -> None:
    """A quarter of the memory for captures is divided among them, down to a minimum."""
    accounting = Accounting(None, EventBus(), LogRing(1000), 4 << 20)
    least = Accounting(None, EventBus(), LogRing(1000), 0).capture_limit(1)

    assert 0 < least < 1 << 19
    assert accounting.capture_limit(open_requests) == (least if share is None else share)
