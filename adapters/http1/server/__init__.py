"""HTTP/1.1 server inside hypercorn or uvicorn.

A `ServerConnection` is the protocol of one client. Its `RequestParser` makes of each request a
`RequestCycle`, the ASGI call; an `InputBuffer` holds unparsed bytes, a `ConnectionWriter` sends,
and `ConnectionTimeouts` says what is overdue. The `ConnectionManager` holds all connections of a
server and shuts them down.

`hypercorn_protocol` and `uvicorn_protocol` fit this into either server. `stock` limits the HTTP
layers of both servers themselves (`stock_hypercorn`, `stock_uvicorn`). `websocket` takes WebSocket
connections from either server, as a `ClientStream` of bytes.
"""
