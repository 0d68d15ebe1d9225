"""`swapchart run` with a real llama-server, without and in a terminal."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from tools.llama import LlamaServer
from tools.terminal import CTRL_D
from tools.user_place import Place

pytestmark = pytest.mark.llama


@pytest.fixture
def named(place: Place) -> Place:
    """A user whose programs see no others than a real llama-server."""
    place.env["PATH"] += ":/usr/bin:/bin"
    return place


def _use(place: Place, server: LlamaServer) -> None:
    place.env |= server.env
    place.engine("llama-server", f'exec {shlex.join(server.command)} "$@"')


def test_run_prints_the_response_of_a_real_server(
    named: Place, real_llama: LlamaServer, tiny_gguf: Path
) -> None:
    _use(named, real_llama)
    shutil.copy(tiny_gguf, named.folder / "tiny-F32.gguf")
    code, out, err = named.run("tiny-F32.gguf", "hello", "--max-tokens", "4")

    assert code == 0, err
    assert out
    assert re.search(r"^tiny is ready after \d+\.\d s$", err, re.MULTILINE)
    assert re.search(r"^\[first token .* 4 written at .*\]$", err, re.MULTILINE)


def test_run_converses_with_a_real_model_in_a_terminal(
    named: Place, smollm2_llama: LlamaServer, smollm2: Path
) -> None:
    """Two turns, the second of which knows the first; then Ctrl-D leaves no process."""
    _use(named, smollm2_llama)
    with named.terminal(str(smollm2), "--max-tokens", "24") as terminal:
        terminal.read_until(r"is ready after \d+\.\d s\n(?:.*\n)*> $", 120.0)
        terminal.type("What is the capital of France?\r")
        first = terminal.read_until(r"\[.* (\d+) tokens read, .*\]\n> $", 120.0)
        terminal.type("And which country is that in?\r")
        second = terminal.read_until(r"\[.* (\d+) tokens read, .*\]\n> $", 120.0)
        assert int(second[1]) > int(first[1])
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
        assert terminal.is_restored()
    named.assert_nothing_left()
