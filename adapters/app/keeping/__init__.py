"""Models that outlive the proxy: what the next proxy adopts, and what this one lets go on.

`ModelKeeper` tells the launcher which processes may outlive the proxy, and gives those of an
earlier one to the supervisor.
"""
