"""Operating-system services for all adapters.

`private_files` creates files that only this user may access, `threads` runs blocking calls in
worker threads or, without any, in the event loop, and `name_lookup` resolves host names without
libuv.
"""
