"""Records of requests.

A `RequestRecord` collects the facts of one request. When its response is on the way, the `recorder`
writes them down: access log, activity row, `metrics`, capture and token usage.
"""
