"""TODO adapters/http1/client."""
