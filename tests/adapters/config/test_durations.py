"""Durations in the configuration and in X-Keep-Alive: both read the same."""

from __future__ import annotations

import pytest

from swapchart.adapters.config.schema.checks import check_value
from swapchart.adapters.config.schema.fields import Duration
from swapchart.adapters.config.schema.section import RefusedError
from swapchart.adapters.proxy.access.keep_alive import KeepAliveError, keep_alive_of


@pytest.mark.parametrize(
    "text", ["5m", "1h30m", "1h2m3.5s", "500ms", "2us", "2\u00b5s", "2\u03bcs", "3ns", ".5s", "1.s"]
)
def test_duration_has_one_length_everywhere(text: str) -> None:
    seconds = keep_alive_of([(b"x-keep-alive", text.encode())])
    assert seconds == check_value(Duration, text)
    assert isinstance(seconds, float)
    assert check_value(Duration, f"-{text}") == -seconds
    assert check_value(Duration, f"+{text}") == seconds


@pytest.mark.parametrize("text", ["", "5", "5x", "--5s", "+-5s", "5m-3s", "\u0663s", "1 s"])
def test_duration_that_is_invalid_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match="expected a duration such as 15s"):
        check_value(Duration, text)
    if text != "5":  # a header may have plain seconds
        with pytest.raises(KeepAliveError):
            keep_alive_of([(b"x-keep-alive", text.encode())])
