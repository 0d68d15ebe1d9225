"""Compile the shipped chart: ``python -m swapchart.machine > machine/lifecycle.compiled.json``."""

import argparse

from .shipped import fresh, lines, source

if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m swapchart.machine",
        description="Write the shipped chart, checked and compiled, to standard output as JSON.",
        epilog="A build step of swapchart itself; charts of your own need none. "
        "To check, draw or export a chart: swapchart chart --help",
    ).parse_args()
    print("\n".join(lines(fresh(source()))))
