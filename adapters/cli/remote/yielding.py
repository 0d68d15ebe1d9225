"""`swapchart yield POOL...`: leaves memory pools of a running proxy to other programs."""

from __future__ import annotations

import argparse
import json

from ..output import _fail
from .client import asking, proxy_of


@asking
def leave(options: argparse.Namespace) -> int:
    """Leave memory pools of a running proxy to other programs, or end that."""
    from ...system.durations import seconds_of
    from ...system.sizes import bytes_of

    lasts_s, keep = None, bytes_of(options.keep)
    if keep is None:
        return _fail(f"--keep: expected a size such as 4GiB or 512MiB, found {options.keep!r}")
    if options.for_ is not None and not (lasts_s := seconds_of(options.for_)):
        return _fail(f"--for: expected a duration such as 90s or 2h, found {options.for_!r}")
    body = {"pools": options.pools, "seconds": 0 if options.end else lasts_s, "keep": keep}
    found = proxy_of(options).send("POST", "/api/memory/yield", body, field="pools")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    names = ", ".join(options.pools)
    verb = "is" if len(options.pools) == 1 else "are"
    if options.end:
        print(f"{names} {verb} for models again, unless a rule of `yield` holds")
        return 0
    until = "" if options.for_ is None else f" for {options.for_}"
    print(f"{names} {verb} left to other programs{until}, of which models keep {options.keep};")
    print(f"`swapchart yield {' '.join(options.pools)} --end` ends it")
    return 0
