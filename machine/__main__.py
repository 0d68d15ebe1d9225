"""Compile the shipped chart: ``python -m swapchart.machine > machine/lifecycle.compiled.json``."""

from .shipped import fresh, lines, source

if __name__ == "__main__":
    print("\n".join(lines(fresh(source()))))
