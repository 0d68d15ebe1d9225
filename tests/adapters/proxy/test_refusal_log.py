"""Log of refused requests: one line for each reason and client, and few in a minute."""

from __future__ import annotations

import pytest

from swapchart.adapters.proxy.access.refusal_log import RefusalLog


def test_refusal_is_logged_once_for_each_client(caplog: pytest.LogCaptureFixture) -> None:
    """The line has the id of the first request; text from clients stays on one line."""
    log = RefusalLog()
    for number, client in enumerate(["10.0.0.1", "10.0.0.1", "10.0.0.2"]):
        log.write("forbidden", "the\nkey", request_id=b"id-%d" % number, client=client)
    log.write("unauthorized", "unauthorized: no key", request_id=b"id-9")

    assert [record.getMessage() for record in caplog.records] == [
        r"request refused: forbidden: the\nkey (client=10.0.0.1 request=id-0)",
        r"request refused: forbidden: the\nkey (client=10.0.0.2 request=id-2)",
        "request refused: unauthorized: no key (request=id-9)",
    ]


def test_refusals_of_many_clients_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A client with many addresses or names cannot fill the log."""
    log = RefusalLog()
    for number in range(1000):
        log.write("unauthorized", "no key", request_id=b"id", client=f"10.0.0.{number}")

    assert len(caplog.records) == 20
