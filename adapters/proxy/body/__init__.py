"""Request bodies: read, find the model, rewrite.

Pure but for the `spool`, which keeps a long form on disk. JSON is scanned in bounded steps
(`json_scan`) that `turns` spreads over the event loop.
"""
