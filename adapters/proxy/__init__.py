"""The proxy as an ASGI application: requests in, models awaited, answers relayed."""
