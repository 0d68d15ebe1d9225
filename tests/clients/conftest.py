"""Clients of other projects and a real proxy."""

from __future__ import annotations

from tools.fixtures import serve_module

__all__ = ["serve_module"]
