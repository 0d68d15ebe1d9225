"""The configuration of the original request, and llama-swap's minimal one, load unchanged."""

from __future__ import annotations

from tools.configs import Load
from tools.hooks import argv_of

SEED = r"""
macros:
  build_dir: /opt/llama.cpp/build
  models_dir: /models
  cache_dir: /var/cache/kv
  128k_context: 131072
models:
  qwopus-35b-moe:
    afterHealthy: "curl -s -X POST \"http://localhost:${PORT}/slots/1?action=restore\" -H \"Content-Type: application/json\" -d '{\"filename\": \"qwopus-35b-moe.bin\"}'"
    beforeStop: "curl -s -X POST \"http://localhost:${PORT}/slots/1?action=save\" -H \"Content-Type: application/json\" -d '{\"filename\": \"qwopus-35b-moe.bin\"}'"
    cmd: |
      ${build_dir}/bin/llama-server
      --model ${models_dir}/qwen3.5/Qwopus-35B-A3B.Q4_K_M.gguf
      --slot-save-path ${cache_dir}
      --host 127.0.0.1
      --port ${PORT}
      --ctx-size ${128k_context}
    aliases:
      - qwopus-moe
    ttl: 0
"""  # noqa: E501 - as its author wrote it


def test_seed_gives_command_and_hooks_as_argv(load: Load) -> None:
    """The seed's macros expand, its command splits, and its hooks are argv without a shell."""
    config = load(SEED)
    model = config.models["qwopus-35b-moe"]

    assert config.warnings == ()
    assert model.argv == (
        *("/opt/llama.cpp/build/bin/llama-server", "--model"),
        *("/models/qwen3.5/Qwopus-35B-A3B.Q4_K_M.gguf", "--slot-save-path", "/var/cache/kv"),
        *("--host", "127.0.0.1", "--port", "5800", "--ctx-size", "131072"),
    )
    assert model.check_url == "http://localhost:5800/health"
    assert config.real_name("qwopus-moe") == "qwopus-35b-moe"
    (before_stop,) = model.hooks["beforeStop"]
    assert argv_of(before_stop) == (
        *("curl", "-s", "-X", "POST", "http://localhost:5800/slots/1?action=save"),
        *("-H", "Content-Type: application/json", "-d", '{"filename": "qwopus-35b-moe.bin"}'),
    )
    assert (before_stop.timeout_s, before_stop.retries, before_stop.on_error) == (30, 0, "warn")


def test_smallest_model_has_every_default(load: Load) -> None:
    """A model that is nothing but a command gets llama-swap's defaults, but no limit of 10."""
    small = load("models: {m: {cmd: 'serve --port ${PORT}'}}").models["m"]

    assert (small.proxy, small.port) == ("http://localhost:5800", 5800)
    assert (small.ttl, small.unload_timeout, small.concurrency_limit) == (0, 10, None)
    assert (small.health_check_timeout, small.stop_argv, small.hooks) == (120, (), {})
