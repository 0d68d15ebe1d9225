"""Real proxies for what needs a real server in front."""

from __future__ import annotations

from tools.fixtures import serve, serve_module

__all__ = ["serve", "serve_module"]
