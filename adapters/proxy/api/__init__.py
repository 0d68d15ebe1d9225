"""HTTP endpoints, one module per group.

`route_table` lists every `Route` with its handler, the key that it needs, and its description. Most
handlers are an `ApiHandler`: a function that gets the `ProxyContext` and the `Request`, and whose
return type, a `Body` of `schema`, is also what `openapi` generates the OpenAPI document from. The
others get ASGI's ``send`` and send the response themselves.
"""
