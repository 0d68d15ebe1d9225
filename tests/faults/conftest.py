"""Real proxies, as in tests/e2e; after each test none of their processes may be left."""

from __future__ import annotations

from tools.fixtures import journal, serve, serve_module

__all__ = ["journal", "serve", "serve_module"]
