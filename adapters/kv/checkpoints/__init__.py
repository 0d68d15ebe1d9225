"""Checkpoints: slots that are saved while their server has nothing to do.

`policy` decides, and is pure; `Checkpointer` waits for an idle server and saves.
"""
