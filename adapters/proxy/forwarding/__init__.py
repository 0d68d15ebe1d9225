"""Forwarding: acquire a model, send the request upstream, relay the response.

`Forwarding` is one request on its way, and `CHECKS` lists what it has passed before. `FastPath`
does the same without a task, for small requests to a ready model, and leaves everything else to
`Forwarding`. A `LoadingStream` reports progress to a client whose model is loading. `tunnel` opens
websockets: as bytes (`websocket_stream`) under our own HTTP layer, as messages
(`websocket_messages`) under another ASGI server.
"""
