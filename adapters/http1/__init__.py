"""HTTP/1.1, both directions.

`server` takes requests inside hypercorn or uvicorn, `client` sends them to upstreams. Both share
`headers` and `write_batch`, and do not know each other.
"""
