"""Model that speaks WebSocket by a library, compression included, and echoes messages.

Run as ``python websocket_model.py PORT``.
"""

from __future__ import annotations

import sys
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve


def _answer_health(connection: ServerConnection, request: Request) -> Response | None:
    if request.path == "/health":
        return connection.respond(HTTPStatus.OK, "ok")
    return None


def _echo(connection: ServerConnection) -> None:
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


def main(port: int) -> None:
    """Serve until a signal ends it."""
    with serve(
        _echo, "127.0.0.1", port, process_request=_answer_health, max_size=1 << 27
    ) as server:  # fmt: skip
        server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
