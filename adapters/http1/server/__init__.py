"""HTTP/1.1 server.

A `ServerConnection` parses what a client sends, and makes a `RequestCycle` for each request, which
is the ASGI call. The `ConnectionManager` holds all connections, their clock and their shutdown.
`hypercorn_protocol` and `uvicorn_protocol` fit this into either server; `stock` bounds their own
HTTP layers; `websocket` and `client_stream` hand websockets on as bytes.
"""
