"""A real llama-server, and models for it.

Without one the tests are skipped, and say how to get it; with REQUIRE_REAL_LLAMA=1 they fail
instead, so that a broken installation cannot hide.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tools.fixtures import place, serve
from tools.llama import INSTALL, LlamaServer, find_llama, smollm2_path
from tools.make_tiny_gguf import write_tiny_gguf

__all__ = ["place", "serve"]


def _missing(why: str) -> None:
    if os.environ.get("REQUIRE_REAL_LLAMA") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights; 0.5 MB."""
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


def _find(model: Path, folder: Path) -> LlamaServer:
    server, why_not = find_llama(model, folder)
    if server is None:
        _missing(why_not)
    assert server is not None
    return server


@pytest.fixture(scope="session")
def real_llama(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaServer:
    """A llama-server that loads and answers on this machine, with ``tiny_gguf``."""
    return _find(tiny_gguf, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def llama_program(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaServer:
    """llama-server's own program, with all of its options; it does not run on every CPU."""
    server, why_not = find_llama(tiny_gguf, tmp_path_factory.mktemp("llama"), must_be_real=True)
    if server is None:
        pytest.skip(why_not)
    return server


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a model that says something; 94 MB."""
    path = smollm2_path()
    if path is None:
        _missing(f"SmolLM2 not installed: {INSTALL}")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def smollm2_llama(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> LlamaServer:
    """A llama-server that answers with ``smollm2``: quantised weights ask more of the CPU."""
    return _find(smollm2, tmp_path_factory.mktemp("llama"))
