"""Headers that are forwarded and headers that are removed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tools.rows import row

from swapchart.adapters.http1.headers import (
    HOP_BY_HOP,
    HeaderError,
    connection_names,
    request_headers,
    response_headers,
)

Fields = list[tuple[bytes, bytes]]
HOST = (b"Host", b"up:1")


def upstream_sees(fields: Fields, **options: object) -> Fields:
    found = request_headers(fields, host=b"up:1", client=None, **options)  # type: ignore[arg-type]
    assert found[0] == HOST
    return found[1:]


def lowered(fields: Fields) -> Fields:
    """Return *fields* with their names as ASGI has them."""
    return [(name.lower(), value) for name, value in fields]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title])
@row("C01")
def test_hop_by_hop_headers_are_never_forwarded(name: bytes, change: object) -> None:
    """None of the nine crosses in either direction, however it is spelled."""
    fields = [(b"A", b"1"), (change(name), b"x"), (b"B", b"2")]  # type: ignore[operator]

    assert upstream_sees(fields) == [(b"A", b"1"), (b"B", b"2")]
    assert response_headers(fields) == [(b"a", b"1"), (b"b", b"2")]


@row("C01")
def test_hop_by_hop_headers_are_nine() -> None:
    """The list is RFC 9110's and Go's, no more and no less."""
    assert len(HOP_BY_HOP) == 9


KEY, XFF = (b"X-Api-Key", b"k"), (b"X-Forwarded-For", b"6.6.6.6")
LENGTH, AUTH = (b"Content-Length", b"3"), (b"Authorization", b"Bearer b")


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ([(b"Connection", b"X-Api-Key"), KEY], []),
        ([KEY, (b"Connection", b"x-api-key")], []),
        ([(b"Connection", b""), (b"Connection", b"X-Api-Key"), KEY], []),  # CVE-2021-33197
        ([(b"Connection", b"close, X-Api-Key ,\tfoo"), KEY, (b"Foo", b"1")], []),
        ([(b"CONNECTION", b"X-API-KEY"), KEY, KEY], []),
        ([(b"Connection", b"Content-Length"), LENGTH], [LENGTH]),
        ([(b"Connection", b"Authorization, Host"), AUTH], [AUTH]),
        ([(b"Connection", b"Connection"), KEY], [KEY]),
        ([(b"Connection", b"keep-alive"), (b"Keep-Alive", b"5"), KEY], [KEY]),
        ([(b"Connection", b",,, ,"), KEY], [KEY]),
        ([(b"Connection", b"upgrade"), (b"Upgrade", b"h2c"), KEY], [KEY]),
        ([(b"Connection", b"HTTP2-Settings"), (b"HTTP2-Settings", b"AA"), KEY], [KEY]),
        ([(b"Connection", b"x-api"), KEY], [KEY]),
    ],
)
@row("C02")
def test_connection_header_removes_headers_of_the_client_only(fields: Fields, kept: Fields) -> None:
    """What the client names goes; what frames or authenticates the request stays."""
    assert upstream_sees(fields) == kept
    crossed = response_headers(fields)
    assert [field for field in crossed if field[0] != b"host"] == lowered(kept)


@row("C02")
def test_connection_header_cannot_remove_headers_of_the_proxy() -> None:
    """The client names our fields: its own are dropped, ours are sent."""
    fields = [(b"Connection", b"X-Forwarded-For, Host, Upgrade"), XFF, (b"Host", b"evil")]

    found = request_headers(fields, host=b"up:1", client=b"10.0.0.9", upgrade=b"websocket")

    assert found == [
        HOST,
        (b"X-Forwarded-For", b"10.0.0.9"),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"websocket"),
    ]


@row("C02")
def test_connection_names_are_read_from_all_lines() -> None:
    """Names are lower-cased, blanks and empty items do not count."""
    fields = [
        (b"Connection", b""),
        (b"X", b"y"),
        (b"connection", b"A, ,b\t"),
        (b"CONNECTION", b"C"),
    ]

    assert connection_names(fields) == {b"a", b"b", b"c"}


@row("C07")
def test_content_length_beside_transfer_encoding_is_dropped() -> None:
    """An answer with both is framed by the coding, and we frame it anew."""
    fields = [(b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), (b"A", b"1")]

    assert response_headers(fields) == [(b"a", b"1")]


@row("C07")
def test_two_content_lengths_are_refused_unless_equal() -> None:
    """Equal ones are folded, different ones are refused."""
    assert response_headers([LENGTH, LENGTH]) == [(b"content-length", LENGTH[1])]
    with pytest.raises(HeaderError, match="given twice"):
        response_headers([LENGTH, (b"content-length", b"4")])


@pytest.mark.parametrize("bad", [b"a\r\nB: c", b"a\rb", b"a\nb", b"a\0b", b"\n", b"a\r\n b"])
@row("C07", "C04")
def test_header_value_with_line_end_is_refused(bad: bytes) -> None:
    """CR, LF and NUL cross in no value, dropped fields included."""
    for fields in ([(b"A", bad)], [(b"Ok", b"1"), (b"Connection", bad)]):
        with pytest.raises(HeaderError):
            upstream_sees(fields)
        with pytest.raises(HeaderError):
            response_headers(fields)


@pytest.mark.parametrize("bad", [b"", b"A B", b"A:", b"A\r\nB", b"\xffA", b"A\0", b" A", b"(A)"])
@row("C05")
def test_header_names_are_tokens(bad: bytes) -> None:
    """A name that is not a token is refused."""
    for cross in (upstream_sees, response_headers):
        with pytest.raises(HeaderError):
            cross([(b"Ok", b"1"), (bad, b"x")])


@row("C20")
def test_trailer_announcement_is_dropped() -> None:
    """Trailers are not forwarded, so they are not announced."""
    assert upstream_sees([(b"Trailer", b"X-Sum"), (b"TE", b"trailers")]) == []
    assert response_headers([(b"trailer", b"X-Sum")]) == []


@row("C21")
def test_expect_is_not_forwarded() -> None:
    """Whether to continue is between the client and us."""
    assert upstream_sees([(b"Expect", b"100-continue"), KEY]) == [KEY]


@pytest.mark.parametrize(
    "fields",
    [
        [(b"Authorization", b"Bearer sk")],
        [(b"authorization", b"Basic eDpzaw==")],
        [(b"X-Api-Key", b"sk")],
        [(b"x-api-key", b"sk"), (b"Authorization", b"Bearer sk")],
        [(b"Proxy-Authorization", b"Bearer sk")],
        [(b"AUTHORIZATION", b"bearer sk"), (b"Connection", b"Authorization")],
    ],
)
@row("C34")
def test_consumed_credentials_are_removed(fields: Fields) -> None:
    """A credential that was meant for us is gone in every spelling."""
    strip = frozenset({b"authorization", b"x-api-key"})

    assert upstream_sees([*fields, (b"A", b"1")], strip=strip) == [(b"A", b"1")]


@row("C34")
def test_credentials_pass_where_the_proxy_has_no_keys() -> None:
    """Without keys of our own the client's credentials are the upstream's business."""
    assert upstream_sees([AUTH, KEY]) == [AUTH, KEY]


@row("C35")
def test_set_cookie_stays_in_order_and_unfolded() -> None:
    """Duplicates, order and case of end-to-end fields are the upstream's."""
    fields = [(b"Set-Cookie", b"a=1"), (b"X-b", b"\xff"), (b"set-cookie", b"b=2, c"), (b"E", b"")]

    assert response_headers(fields) == lowered(fields)
    assert upstream_sees(fields) == fields


@row("C44")
def test_request_id_crosses_in_neither_direction() -> None:
    """Both sides get the id of the request from its sender; an upstream's own is dropped."""
    fields = [(b"X-Request-Id", b"a"), (b"B", b"c")]

    assert upstream_sees(fields) == [(b"B", b"c")]
    assert response_headers(fields) == [(b"b", b"c")]


@row("C44")
def test_x_forwarded_for_is_appended() -> None:
    """The client's address comes last; several lines become one."""
    fields = [(b"X-Forwarded-For", b"1.1.1.1"), KEY, (b"x-forwarded-for", b"2.2.2.2, 3.3.3.3")]

    found = request_headers(fields, host=b"up:1", client=b"4.4.4.4")

    expected = (b"X-Forwarded-For", b"1.1.1.1, 2.2.2.2, 3.3.3.3, 4.4.4.4")
    assert found == [HOST, KEY, expected]


@row("C44")
def test_untrusted_forwarding_headers_are_dropped() -> None:
    """A client that may not say where a request came from does not say it."""
    fields = [XFF, (b"X-Forwarded-Proto", b"https"), (b"Forwarded", b"for=1.1.1.1"), KEY,
              (b"X-Forwarded-Host", b"evil"), (b"X-Forwarded-Port", b"1")]  # fmt: skip

    found = request_headers(fields, host=b"up:1", client=b"4.4.4.4", trust_forwarded=False)

    assert found == [HOST, KEY, (b"X-Forwarded-For", b"4.4.4.4")]


def test_event_streams_are_marked_unbuffered() -> None:
    """An event stream tells an nginx in front of us not to hold it back; once."""
    kind = (b"Content-Type", b"text/event-stream; charset=utf-8")
    hint = (b"X-Accel-Buffering", b"no")
    own = (b"x-accel-buffering", b"yes")

    assert response_headers([kind]) == lowered([kind, hint])
    assert response_headers([own, kind]) == lowered([own, kind])
    assert response_headers([(b"Content-Type", b"text/plain")])[1:] == []


names = st.one_of(
    st.sampled_from([*sorted(HOP_BY_HOP), b"host", b"content-length", b"a", b"b", b"expect"]),
    st.text("abX-", min_size=1, max_size=4).map(str.encode),
)
lists = st.lists(
    st.tuples(names, st.one_of(st.sampled_from([b"a, b", b"close", b""]), st.binary(max_size=6)))
)


@given(lists)
@row("C01", "C02")
def test_forwarded_headers_were_sent_and_may_pass(fields: Fields) -> None:
    """For any fields: an order-keeping selection, without hop-by-hop fields, or a refusal."""
    fields = [(name.lower(), value) for name, value in fields if name != b"content-length"]
    try:
        crossed = response_headers(fields)
    except HeaderError:
        assert any(c in value for _, value in fields for c in (b"\r", b"\n", b"\0"))
        return
    rest = iter(fields)

    assert all(field in rest for field in crossed)
    forbidden = HOP_BY_HOP | connection_names(fields)
    assert {name.lower() for name, _ in crossed}.isdisjoint(forbidden - {b"host"})
    allowed = [field for field in fields if field[0].lower() not in forbidden]
    assert [f for f in crossed if f[0] != b"host"] == [f for f in allowed if f[0] != b"host"]
