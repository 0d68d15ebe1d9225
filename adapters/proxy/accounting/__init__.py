"""Records of requests.

A `RequestRecord` collects the facts of one request; `InFlightRequests` tracks those that have not
ended. When the response is on its way, the `Recorder` reads its `TokenUsage`, updates the
`Metrics`, stores a row and a `Capture`, and writes a line of the access log. `Accounting` holds
all of these.
"""
