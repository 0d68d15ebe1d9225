"""`swapchart top`: a live view of a running proxy.

`snapshot` asks the proxy, `reader` does so again and again in a thread, `frame` draws what came,
`keyboard` reads keys, and `command` connects them.
"""
