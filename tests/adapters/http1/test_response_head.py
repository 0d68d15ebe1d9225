"""Head of a response as bytes; pure."""

from __future__ import annotations

import pytest

from swapchart.adapters.http1.server.response_head import encode_head, status_line

DATE = b"date: now\r\n"


def test_encode_head_fields_keep_order_case_and_duplicates() -> None:
    """Fields that do not frame the response are sent as the application gave them."""
    fields = [(b"X-B", b"1"), (b"set-cookie", b"a"), (b"Set-Cookie", b"b")]

    head, date, announced, closes = encode_head(200, fields, DATE)

    assert head == b"HTTP/1.1 200 OK\r\nX-B: 1\r\nset-cookie: a\r\nSet-Cookie: b\r\n"
    assert (date, announced, closes) == (DATE, None, False)


@pytest.mark.parametrize("name", [b"Connection", b"Keep-Alive", b"Transfer-Encoding"])
def test_encode_head_hop_by_hop_fields_are_left_out(name: bytes) -> None:
    """The server decides about its connection; only the wish to close it counts."""
    head, _, _, closes = encode_head(200, [(name, b"Close")], DATE)

    assert head == b"HTTP/1.1 200 OK\r\n"
    assert closes is (name == b"Connection")


@pytest.mark.parametrize(("status", "is_sent"), [(200, True), (204, False), (304, True)])
def test_encode_head_content_length_is_announced_unless_204(status: int, is_sent: bool) -> None:
    """The length of a 204 is known to the caller and not sent (RFC 9110 section 8.6)."""
    head, _, announced, _ = encode_head(status, [(b"Content-Length", b"5")], DATE)

    assert (b"Content-Length: 5\r\n" in head) is is_sent
    assert announced == b"5"


def test_encode_head_with_date_adds_none() -> None:
    """The application's own date is the only one."""
    head, date, _, _ = encode_head(200, [(b"Date", b"then")], DATE)

    assert (head, date) == (b"HTTP/1.1 200 OK\r\nDate: then\r\n", b"")


@pytest.mark.parametrize("byte", [b"\r", b"\n", b"\0", b"\r\nx: y"])
@pytest.mark.parametrize("at", [0, 1])
def test_encode_head_breaking_bytes_are_rejected(byte: bytes, at: int) -> None:
    """Neither a name nor a value can end its field early."""
    field = [b"x-a", b"1"]
    field[at] += byte

    with pytest.raises(ValueError, match="CR, LF or NUL"):
        encode_head(200, [(field[0], field[1])], DATE)


@pytest.mark.parametrize("status", [-1, 0, 100, 199, 600])
def test_status_line_out_of_range_is_rejected(status: int) -> None:
    """An application cannot send an interim response, or none that exists."""
    with pytest.raises(ValueError, match=r"200\.\.599"):
        status_line(status)


def test_status_line_unknown_status_has_no_phrase() -> None:
    """A status without a standard phrase is sent with an empty one."""
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
