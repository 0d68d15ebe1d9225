"""HTTP/1.1, both directions.

`server` receives requests inside hypercorn or uvicorn, `client` sends them to upstreams; neither
imports the other. Both use `io_batch`, which does the reads and the writes of one turn of the event
loop together, `repeated_head`, and `undelivered`. `headers` decides which header fields cross the
proxy.
"""
