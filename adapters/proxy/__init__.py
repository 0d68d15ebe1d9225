"""The reverse proxy as an ASGI application.

`ProxyApp` gets a `Request`, finds its `Route`, checks it (`access`) and calls the handler of the
route (`api`). A handler finds the model (`body`, `models`) and runs a `Forwarding` (`forwarding`),
which acquires the model from the supervisor and relays the response of its `Upstream`. What became
of the request goes to `accounting`. All of them share one `ProxyContext`.
"""
