"""Names of the ASGI extensions of this HTTP layer, which save an application steps of its task."""

FULL_RESPONSE = "swapchart.full_response"
"""ASGI extension `(status, headers, body) -> bool`: send a complete response without waiting.

False means that it cannot be sent now and has to go through `send`.
"""
FULL_BODY = "swapchart.full_body"
"""ASGI extension `() -> bytes | None`: take the complete body of the request.

None means that it is not complete or not in one piece and has to be read with `receive`.
"""
WRITE_BODY = "swapchart.write_body"
"""ASGI extension `(piece, chunk) -> bool`: send a piece of the body, not the last, at once.

*chunk* is the piece as a chunk, which then need not be framed again, or b"". False means that
nothing was sent, since the client does not keep up: the piece has to go through `send`. The
response must have been started.
"""
ON_DISCONNECT = "swapchart.on_disconnect"
"""ASGI extension `(callback or None) -> None`: set what is called when the client disconnects.

For an application that does not call `receive` for a while, because it has no room for the body.
"""
