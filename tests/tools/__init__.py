"""Shared tools of the tests: child processes, raw HTTP, a real llama-server and a tiny model."""
