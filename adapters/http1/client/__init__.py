"""HTTP/1.1 client.

A `ConnectionPool` holds the connections to one upstream; a `Connection` sends one request at a
time. `request_body` sends bodies that are large or arrive in chunks, the `ResponseParser` turns the
received bytes into an `UpstreamResponse`, and its reader gets the body as it arrives. `errors` says
what failed and how far the exchange had come; `retry` decides from that whether the request is sent
again.
"""
