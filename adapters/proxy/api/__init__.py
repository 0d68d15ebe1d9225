"""HTTP endpoints, one module per group.

`route_table` lists every route with its method, path, rights and handler. A handler gets the
`ProxyContext`, the `Request` and ASGI's ``send``.
"""
