"""OpenTelemetry traces of requests and swaps.

`port` is all that the rest of the proxy knows: without `tracing: true` nothing else is imported,
and the extra ``otel`` need not be installed. `provider` sets the SDK up by the standard environment
variables, `requests` makes the spans of requests, and `swaps` those of starts, stops and hooks.
"""
