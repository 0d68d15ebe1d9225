"""Bodies of the proxy's own errors, and the share of memory for captures."""

from __future__ import annotations

import pytest

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
    """A code that is given takes precedence; clients of Anthropic's API get its form."""
    error = error_value(status, "text")

    assert error == {
        "src": "swapchart",
        "error": {"message": "text", "type": kind, "param": None, "code": code},
    }
    assert error_value(status, "text", code="own")["error"]["code"] == "own"
    assert error_value(status, "text", is_anthropic=True) == {"type": "error", **error}


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
