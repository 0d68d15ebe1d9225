"""The port of one run: is it free, who listens, and does it answer?

`check` looks before a start, `listeners` reads sockets from /proc, `owner` decides whether a
listener belongs to the run, and `http_probe` asks for health.
"""
