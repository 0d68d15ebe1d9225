"""Port of one run: whether it is free, which process listens on it, and whether it responds.

`check` runs before a start, `listeners` lists listening sockets, `owner` decides whether a listener
belongs to the run, and `http_probe` requests the health endpoint.
"""
