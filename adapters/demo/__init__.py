"""A small inference server without a model: what demos and tests run where an engine would be.

Standard library only, and nothing of the proxy: it must start as fast as a process can.
"""
