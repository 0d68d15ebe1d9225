"""HTTP/1.1 client.

A `ConnectionPool` holds the connections to one upstream; a `Connection` sends one request at a time
and hands its response on as it comes. `errors` says what failed and how far the request had come;
`retry` decides from that whether the request is sent again.
"""
