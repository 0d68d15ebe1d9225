"""Services of the operating system that every adapter may use.

Private files, work in threads with a fallback, and name lookup without a thread pool.
"""
