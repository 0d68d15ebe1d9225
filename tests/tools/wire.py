"""Raw requests that no server may accept, each with the status of our response.

Each name begins with its row of the fault catalog.
"""

from __future__ import annotations

H = b"Host: x\r\n"
G = b"GET / HTTP/1.1\r\n" + H
P = b"POST / HTTP/1.1\r\n" + H
C = P + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + H + b"\r\n"


def get(path: str, *fields: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    """Return a request without a body, ``GET`` unless *method* says otherwise."""
    lines = [b"%b %b HTTP/%b" % (method, path.encode(), version), b"Host: x", *fields, b"", b""]
    return b"\r\n".join(lines)


REFUSED: dict[str, tuple[int, bytes]] = {
    "C03 length and coding": (400, P + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "C03 coding and length": (400, P + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    "C04 two equal lengths": (400, P + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "C04 two lengths": (400, P + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "C04 listed lengths": (400, P + b"Content-Length: 3, 3\r\n\r\nabc"),
    "C04 negative length": (400, P + b"Content-Length: -3\r\n\r\nabc"),
    "C04 signed length": (400, P + b"Content-Length: +3\r\n\r\nabc"),
    "C04 hexadecimal length": (400, P + b"Content-Length: 0x3\r\n\r\nabc"),
    "C04 length with underscore": (400, P + b"Content-Length: 1_0\r\n\r\n1234567890"),
    "C04 length with blank": (400, P + b"Content-Length: 3 3\r\n\r\nabc"),
    "C04 empty length": (400, P + b"Content-Length:\r\n\r\n"),
    "C04 length of 30 digits": (400, P + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"),
    "C04 identity": (501, P + b"Transfer-Encoding: identity\r\n\r\n"),
    "C04 xchunked": (501, P + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "C04 gzip, chunked": (501, P + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "C04 chunked, gzip": (400, P + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
    "C04 chunked, chunked": (400, P + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "C04 coding twice": (
        400,
        P + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "C04 coding with a parameter": (501, P + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    "C04 empty coding": (400, P + b"Transfer-Encoding:\r\n\r\n"),
    "C04 coding behind a VT": (400, P + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "C04 coding behind a blank": (400, P + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    "C06 coding in 1.0": (
        400,
        b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "C05 bare LF everywhere": (400, b"GET / HTTP/1.1\nHost: x\n\n"),
    "C05 bare LF in a field": (400, b"GET / HTTP/1.1\r\nHost: x\n\r\n"),
    "C05 bare LF at the end": (400, G + b"A: b\r\n\n"),
    "C05 folded field": (400, G + b"A: b\r\n c\r\n\r\n"),
    "C05 folded at once": (400, b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"),
    "C05 bare CR in a value": (400, G + b"A: b\rc\r\n\r\n"),
    "C05 NUL in a value": (400, G + b"A: b\0c\r\n\r\n"),
    "C05 control in a value": (400, G + b"A: b\x01c\r\n\r\n"),
    "C05 no colon": (400, G + b"A\r\n\r\n"),
    "C05 blank before the colon": (400, G + b"A : b\r\n\r\n"),
    "C05 no name": (400, G + b": b\r\n\r\n"),
    "C05 name not ASCII": (400, G + b"\xc3\xa4: b\r\n\r\n"),
    "C05 CR CR LF": (400, b"GET / HTTP/1.1\r\r\n" + H + b"\r\n"),
    "C06 HTTP/0.9 by name": (505, b"GET / HTTP/0.9\r\n" + H + b"\r\n"),
    "C06 HTTP/0.9 by nature": (505, b"GET /\r\n\r\n"),
    "C06 HTTP/1.2": (505, b"GET / HTTP/1.2\r\n" + H + b"\r\n"),
    "C06 HTTP/2.0": (505, b"GET / HTTP/2.0\r\n" + H + b"\r\n"),
    "C06 HTTP/3.0": (505, b"GET / HTTP/3.0\r\n" + H + b"\r\n"),
    "C06 HTTP/1.10": (505, b"GET / HTTP/1.10\r\n" + H + b"\r\n"),
    "C06 HTTP/x": (400, b"GET / HTTP/x\r\n" + H + b"\r\n"),
    "C06 blank behind the version": (400, b"GET / HTTP/1.1 \r\n" + H + b"\r\n"),
    "C06 lower-case method": (400, b"get / HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 unknown method": (400, b"FOO / HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 CONNECT": (405, b"CONNECT a:443 HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 GET *": (400, b"GET * HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 relative target": (400, b"GET a HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 fragment": (400, b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 target not ASCII": (400, b"GET /\xc3\xa4 HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 blank in the target": (400, b"GET /a b HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 NUL in the target": (400, b"GET /\0 HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 absolute with user": (400, b"GET http://u@a/ HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 absolute ftp": (400, b"GET ftp://a/ HTTP/1.1\r\n" + H + b"\r\n"),
    "C06 absolute without host": (400, b"GET http:///a HTTP/1.1\r\n" + H + b"\r\n"),
    "C30 no Host": (400, b"GET / HTTP/1.1\r\nA: b\r\n\r\n"),
    "C30 two Hosts": (400, G + H + b"\r\n"),
    "C30 odd Host": (400, b"GET / HTTP/1.1\r\nHost: a@b/c?d\r\n\r\n"),
    "C30 Host with a blank": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "C21 unknown expectation": (417, P + b"Expect: cake\r\nContent-Length: 3\r\n\r\nabc"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)),
    "C27 HTTP/2 from the first byte": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "an answer": (400, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
}
