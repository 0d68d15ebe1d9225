"""Options of `swapchart run`."""

from __future__ import annotations

from pathlib import Path

from ..command_parser import CommandParser, path_or_name
from ..defaults import DEFAULT_URL
from ..remote.parsers import add_key, add_question


def add_run(parser: CommandParser) -> None:
    """Add the options of `run`."""
    parser.is_intermixed = True
    parser.add_argument(
        "model", metavar="MODEL", type=path_or_name,
        help="GGUF file, directory of safetensors, or name of a model: of a running proxy, of the "
        "configuration, or of Ollama's store",
    )  # fmt: skip
    add_question(parser)
    parser.add_argument(
        "--engine", choices=("llama-server", "vllm"),
        help="program that serves the model; with vllm, MODEL may be an id of Hugging Face; "
        "default: what the file needs",
    )  # fmt: skip
    parser.add_argument(
        "--config", "-config", action="append", type=Path, default=[], metavar="FILE",
        help="look for MODEL in this configuration only",
    )  # fmt: skip
    parser.set_defaults(config_dir=None)
    parser.add_argument(
        "--url", metavar="URL",
        help="look for MODEL in this running proxy only; the one that is asked otherwise is "
        f"$SWAPCHART_URL, or {DEFAULT_URL}",
    )  # fmt: skip
    add_key(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.examples(
        "swapchart run ~/models/qwen-Q4_K_M.gguf",
        'swapchart run llama3.2 "Why is the sky blue?"  # from the store of Ollama',
        "swapchart run qwen < question.txt",
        "swapchart run ~/models/Qwen3-8B --engine vllm",
    )
