"""Facts about model files for clients of Ollama."""

from __future__ import annotations

from pathlib import Path

from tools.make_tiny_gguf import write_tiny_gguf

from swapchart.adapters.app.ollama.facts import read_all
from swapchart.adapters.config import load_config


def test_facts_come_from_the_command_and_the_file(tmp_path: Path) -> None:
    """Options of llama-server count first, then its file; other commands have no facts."""
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    path = tmp_path / "config.yaml"
    path.write_text(f"""
models:
  plain: {{cmd: 'llama-server --port ${{PORT}} -m {model}'}}
  slots: {{cmd: 'llama-server --port ${{PORT}} -m {model} -c 4096 -np 4 --mmproj {model}'}}
  vectors: {{cmd: 'llama-server --port ${{PORT}} -m {model} --embeddings'}}
  missing: {{cmd: 'llama-server --port ${{PORT}} -m {tmp_path}/none.gguf -c x'}}
  other: {{cmd: 'vllm serve --port ${{PORT}}'}}
""")
    found = read_all(load_config([path]))

    assert found.keys() == {"plain", "slots", "vectors", "missing"}
    plain = found["plain"]
    assert plain["architecture"] == "llama"
    assert plain["size"] == model.stat().st_size
    assert plain["context"] > 0
    assert (found["slots"]["context"], found["slots"]["has_vision"]) == (1024, True)
    assert (found["vectors"]["is_embedding"], plain["is_embedding"]) == (True, False)
    assert found["missing"] == {"is_embedding": False, "has_vision": False, "context": 0}
