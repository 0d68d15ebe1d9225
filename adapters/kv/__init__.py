"""Conversations survive a swap: the slots of llama.cpp's servers, saved before a stop and restored.

``keeper`` is what a composition root uses; the rest can be used alone.
"""
