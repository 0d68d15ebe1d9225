"""Forwarding: acquire a model, send the request upstream, relay the response.

`forward` does it for every request; `fast_path` is the same without a task, for small requests to
a ready model. `loading_stream` tells a waiting client what happens; `websocket` opens tunnels.
"""
