"""Processes that outlive their proxy.

`keeper` starts a guard that lets them, with what `memory` holds about each; `guard_keeping` is the
guard's own part, and `guard_ending` ends one of them without a proxy. `takeover` is the connection
of the next proxy to that guard.
"""
