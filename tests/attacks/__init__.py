"""Attack corpus: hostile inputs, each run against a real proxy, and what must hold afterwards.

An *attack* is a function that takes a *target* (a running proxy with two models) and sends it
something hostile. It asserts the status or the end of the connection itself. Around each attack
``test_attacks.py`` measures the proxy and asserts that

- ``/health``, polled from another process and connection, was never later than 500 ms (best of
  three tries; the figure is printed),
- the peak of the resident memory grew by no more than the attack's own bound,
- a normal request is answered afterwards, nothing is in flight or queued, the descriptors are as
  many as before, and the log tells of no unexpected error.

Each attack runs against hypercorn, uvicorn and hypercorn with ``--stock``; in a compiled
environment (``SWAPCHART_COMPILE=1``) against the compiled code instead. One proxy serves all
attacks of a variant that need the same configuration.

To add an attack write one function in the module of its subject and name it in that module's
``ATTACKS``; README.md has an example.
"""
