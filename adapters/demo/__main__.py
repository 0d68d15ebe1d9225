"""``python -m swapchart.adapters.demo``: the demo server."""

import sys

from .server import main

if __name__ == "__main__":
    sys.exit(main())
