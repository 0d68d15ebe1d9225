"""Output of all models on stdout, for the key ``logToStdout``."""

from __future__ import annotations

import sys
from codecs import getincrementaldecoder

from ...runtime import LogRing
from ..system import threads


async def print_log(ring: LogRing) -> None:
    """Write to stdout what comes into *ring* from now on.

    A stdout that takes nothing blocks one thread; the ring drops what comes meanwhile, and says so.
    """
    text = getincrementaldecoder("utf-8")("replace")
    async for data in ring.stream(history=False):
        await threads.run_or_fail(_print, text.decode(data))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
