"""The examples of docs/clients.md, run as they are shown but for the address."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tools.client_drivers import INSTALLED, LIBRARIES, python_of, skip_missing, version
from tools.client_programs import block
from tools.net import port_block
from tools.recipes import configuration
from tools.swapchart_process import Serve, SwapchartProcess

pytestmark = pytest.mark.slow

EXAMPLES = [
    ("OpenAI library", "python", "openai (Python)"),
    ("OpenAI library", "js", "openai (Node)"),
    ("Anthropic library", "python", "anthropic (Python)"),
    ("Anthropic library", "js", "@anthropic-ai/sdk (Node)"),
    ("AI SDK", "js", "ai, @ai-sdk/openai-compatible"),
    pytest.param("LiteLLM library", "python", "litellm", marks=pytest.mark.clients),
    pytest.param("LangChain", "python", "langchain-openai", marks=pytest.mark.clients),
]


@pytest.fixture(scope="module")
def proxy(serve_module: Serve) -> SwapchartProcess:
    """A proxy with the configuration of docs/recipes.md."""
    return serve_module(config=json.dumps({"startPort": port_block(), **configuration()}))


@pytest.mark.parametrize(("heading", "language", "name"), EXAMPLES)
def test_docs_example_of_a_client_prints_a_response(
    heading: str, language: str, name: str, proxy: SwapchartProcess, tmp_path: Path
) -> None:
    """A block of the page, with the address of a proxy, is a whole program."""
    (library,) = (each for each in LIBRARIES if each.name == name)
    if not version(library):
        skip_missing(name, is_light=library.is_light)
    text = block(heading, language)
    assert "127.0.0.1:8080" in text
    path = tmp_path / ("example.py" if language == "python" else "example.mjs")
    path.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{proxy.port}"))
    argv = [str(python_of(library)), str(path)]
    if language == "js":
        (tmp_path / "node_modules").symlink_to(INSTALLED / "node" / "node_modules")
        argv = ["node", str(path)]
    env = {
        **os.environ,
        "HOME": str(tmp_path),
        "NO_PROXY": "*",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("This is chat. You asked: say hello\n")
