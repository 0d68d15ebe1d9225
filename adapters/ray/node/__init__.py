"""Node side: what runs on each node of a Ray cluster, with Ray and the standard library alone.

The proxy ships this code with the actor, so swapchart need not be installed on a node. An `Agent`
is the resident actor of one node. It has a `GuardServer`, which starts processes and ends their
trees, and a `Child` for each of them.
"""
