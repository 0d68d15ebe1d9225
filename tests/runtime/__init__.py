"""Tests of swapchart.runtime. A package, so that mypy does not take this folder for that one."""
