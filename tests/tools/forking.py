"""A process that is hard to end, as the argument of ``python -c``."""

from __future__ import annotations

#: Every 2 ms it is another process, which writes a byte to its argument's file, ignores SIGTERM
#: and leads a session of its own.
RENEWED = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for _ in range(20_000):
    os.write(fd, b".")
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(0.002)
"""

#: The same below a leader that stays.
RENEWED_BELOW = "import os, signal\nif os.fork():\n    signal.pause()\n" + RENEWED
