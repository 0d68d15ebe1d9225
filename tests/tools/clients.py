"""The clients that people use, pointed at a proxy of ours: openai, anthropic, curl."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import openai

TALK: Any = [{"role": "user", "content": "hello there"}]
_LONG_S = 30.0


@contextmanager
def openai_client(port: int, key: str, *, retries: int = 0) -> Iterator[openai.OpenAI]:
    """Yield OpenAI's client, which by default does not try again."""
    with (
        openai.DefaultHttpxClient(trust_env=False, timeout=_LONG_S) as transport,
        openai.OpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=retries,
            http_client=transport,
        ) as client,
    ):  # fmt: skip
        yield client


@contextmanager
def claude_client(port: int, key: str, *, retries: int = 0) -> Iterator[anthropic.Anthropic]:
    """Yield Anthropic's client, which by default does not try again."""
    with (
        anthropic.DefaultHttpxClient(trust_env=False, timeout=_LONG_S) as transport,
        anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{port}",
            api_key=key,
            max_retries=retries,
            http_client=transport,
        ) as client,
    ):
        yield client


def curl(*arguments: str) -> str:
    """Run curl, which must succeed; returns what it writes."""
    return subprocess.run(
        ["curl", "--noproxy", "*", "-sS", "--max-time", "30", *arguments],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
