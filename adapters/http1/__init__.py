"""HTTP/1.1, both directions.

`server` receives requests inside hypercorn or uvicorn, `client` sends them to upstreams; neither
imports the other. Both use `write_batch`, which sends the writes of one turn of the event loop
together, and `undelivered`. `headers` decides which header fields cross the proxy.
"""
