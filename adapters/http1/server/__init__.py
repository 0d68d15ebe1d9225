"""TODO adapters/http1/server."""
