"""Estimates of memory by arithmetic, from the command line of a server and its files.

llama-server: all files of the model, its projector, adapters and draft; the KV cache, exact to the
byte; the compute buffer, ``ubatch x (48 x embedding + 2 x context per slot)`` bytes, which fits
eleven launches of SmolLM2-135M to 0.1 MiB; 45 MiB for the process. For a GPU 512 MiB are added for
the context of its driver: an assumption that was not measured. The prompt cache of the host
(``--cache-ram``) grows with use, and is left to what runs show.

vLLM and SGLang take a fraction of the whole card, whatever the model, and some more outside of it.

A command that splits a model between devices in a way that its options decide is not estimated.

Source: llama.cpp, llama-kv-cache.cpp and llama-kv-cache-iswa.cpp; vLLM, "Engine Arguments"; SGLang,
"Server Arguments".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..llama_cpp.gguf import Gguf, GgufError, read_gguf, shards
from ..llama_cpp.launch_args import LaunchLine

RAM = "RAM"
_MIB = 1 << 20
PROCESS = 45 * _MIB  # program, libraries, tokenizer and heap of llama-server, as measured
GPU_CONTEXT = 512 * _MIB  # assumed
_COMPUTE_PER_EMBEDDING, _COMPUTE_PER_TOKEN = 48, 2  # bytes per token of a micro-batch
_AUTO_SLOTS = 4  # of llama-server without --parallel; they share one cache
_BATCH, _UBATCH = 2048, 512
_CELLS = 256  # granularity of a cache, in tokens
_ELEMENT = {
    "f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
    "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip
#: Layers of which one has no window, for architectures whose files do not say it.
_WINDOW_PERIODS = {
    "gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4, "exaone4": 4, "llama4": 4,
}  # fmt: skip
_VARIABLES = {
    "LLAMA_ARG_MODEL": "--model", "LLAMA_ARG_CTX_SIZE": "--ctx-size",
    "LLAMA_ARG_N_PARALLEL": "--parallel", "LLAMA_ARG_CACHE_TYPE_K": "--cache-type-k",
    "LLAMA_ARG_CACHE_TYPE_V": "--cache-type-v", "LLAMA_ARG_UBATCH": "--ubatch-size",
    "LLAMA_ARG_BATCH": "--batch-size", "LLAMA_ARG_N_GPU_LAYERS": "--gpu-layers",
    "LLAMA_ARG_MMPROJ": "--mmproj", "LLAMA_ARG_SPEC_DRAFT_MODEL": "--spec-draft-model",
    "LLAMA_ARG_FIT": "--fit",
}  # fmt: skip
_SPLITS = (
    "--n-cpu-moe", "-ncmoe", "--cpu-moe", "-cmoe", "--override-tensor", "--tensor-split",
    "--no-kv-offload", "--rpc",
)  # fmt: skip
_SERVER = re.compile(r"llama-server[\w.-]*")
_OUTSIDE = 0.06  # share of a card that vLLM and SGLang take beside their fraction
_FRACTIONS = {"vllm": 0.9, "sglang": 0.88}
_FRACTION_OPTIONS = {"vllm": "--gpu-memory-utilization", "sglang": "--mem-fraction-static"}
_PARALLEL_OPTIONS = (
    ("--tensor-parallel-size", "-tp", "--tp-size", "--tp"),
    ("--pipeline-parallel-size", "-pp", "--pp-size"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Memory that a command will take, by arithmetic.

    Attributes:
        amounts: Bytes by pool.
        note: The sum in words.
        files: Bytes of the files of the model; 0 means unknown.
        advice: Change of the command that saves memory, in words; empty if none is known.
    """

    amounts: Mapping[str, int]
    note: str
    files: int = 0
    advice: str = ""


def server_line(argv: Sequence[str]) -> LaunchLine | None:
    """Return the part of *argv* that is the command line of a llama-server; None without one.

    Programs that run it, such as ``prlimit`` or ``numactl``, may stand before it.
    """
    for index, word in enumerate(argv):
        if _SERVER.fullmatch(PurePath(word).name):
            return LaunchLine.parse(argv[index:])
    return None


def with_variables(line: LaunchLine, environment: Mapping[str, str]) -> LaunchLine:
    """Return *line* with the options that variables set; those of the command line count first."""
    added = tuple(
        (option, (environment[name],))
        for name, option in _VARIABLES.items()
        if name in environment and not line.has(option)
    )
    return LaunchLine(line.program, (*line.options, *added))


def estimate(
    argv: Sequence[str], environment: Mapping[str, str], gpus: Mapping[str, int],
) -> Estimate | None:  # fmt: skip
    """Return what a command will take; None if that cannot be said.

    Args:
        argv: Program and arguments.
        environment: Its variables.
        gpus: Pools of the GPUs that it uses, in order -> their capacity in bytes; empty if it uses
            none.

    Raises:
        OSError: A file of the model cannot be read.
        GgufError: The model is not a GGUF file.
    """
    line = server_line(argv)
    if line is not None:
        return _llama_server(with_variables(line, environment), list(gpus))
    engine = _engine(argv)
    return None if engine is None or not gpus else _fraction(engine, argv, gpus)


def is_elastic(line: LaunchLine) -> bool:
    """Return True if a llama-server on GPUs fits itself into what is free."""
    is_fixed = line.value("--ctx-size") not in (None, "0") and line.has("--gpu-layers")
    return line.value("--fit") != "off" and not is_fixed


# ---- llama-server
def _llama_server(line: LaunchLine, gpus: Sequence[str]) -> Estimate | None:
    model = line.value("--model")
    if model is None or any(line.has(option) for option in _SPLITS):
        return None
    head = read_gguf(Path(model))
    layers = line.value("--gpu-layers")
    if line.value("--device") == "none" or line.value("-dev") == "none":
        gpus = []
    elif layers is not None and layers not in ("all", "auto", "-1"):
        if layers == "0":
            gpus = []
        elif not layers.isdecimal() or int(layers) <= head.number("block_count"):
            return None  # partly on the host
    parts = {
        "files": _files(line),
        "KV cache": kv_bytes(head, line),
        "compute": _compute(head, line),
    }
    draft = line.value("--spec-draft-model")
    if draft is not None:
        parts["KV cache"] += kv_bytes(read_gguf(Path(draft)), line)
    if not gpus:
        parts["process"] = PROCESS
        return Estimate(
            amounts={RAM: sum(parts.values())}, note=_in_words(parts, line, head),
            files=parts["files"], advice=_advice(head, line),
        )  # fmt: skip
    parts["GPU context"] = GPU_CONTEXT * len(gpus)
    share, rest = divmod(sum(parts.values()), len(gpus))
    amounts = {name: share + (rest if index == 0 else 0) for index, name in enumerate(gpus)}
    return Estimate(
        amounts={**amounts, RAM: PROCESS}, note=_in_words(parts, line, head),
        files=parts["files"], advice=_advice(head, line),
    )  # fmt: skip


def _advice(head: Gguf, line: LaunchLine) -> str:
    """Return what half of the context saves, in words; empty if that is nothing."""
    context = _context(head, line)
    halved = LaunchLine(line.program, (*line.options, ("--ctx-size", (str(context // 2),))))
    saved = kv_bytes(head, line) + _compute(head, line)
    saved -= kv_bytes(head, halved) + _compute(head, halved)
    if context < 2 * _CELLS or saved < _MIB:
        return ""
    return f"-c {context} -> {context // 2} saves {saved / _MIB:.0f} MiB"


def _in_words(parts: Mapping[str, int], line: LaunchLine, head: Gguf) -> str:
    words = [f"{size / _MIB:.0f} MiB {name}" for name, size in parts.items()]
    words[1] += f" of {_context(head, line)} tokens"
    return " + ".join(words)


def _files(line: LaunchLine) -> int:
    """Return the size of all files that the command names, with all parts of split ones."""
    paths = {part for _, path in line.files() for part in shards(Path(path))}
    return sum(path.stat().st_size for path in paths)


def _number(line: LaunchLine, option: str, default: int) -> int:
    given = line.value(option)
    return int(given) if given is not None and given.isdecimal() else default


def _context(head: Gguf, line: LaunchLine) -> int:
    return _number(line, "--ctx-size", 0) or head.number("context_length")


def _slots(line: LaunchLine) -> tuple[int, bool]:
    """Return the number of slots, and whether they share one cache."""
    slots = _number(line, "--parallel", 0)
    is_shared = line.has("--kv-unified") or (slots == 0 and not line.has("--no-kv-unified"))
    return slots or _AUTO_SLOTS, is_shared


def _ubatch(line: LaunchLine) -> int:
    return min(_number(line, "--ubatch-size", _UBATCH), _number(line, "--batch-size", _BATCH))


def _compute(head: Gguf, line: LaunchLine) -> int:
    slots, is_shared = _slots(line)
    per_slot = _context(head, line) // (1 if is_shared else slots)
    per_token = (
        _COMPUTE_PER_EMBEDDING * head.number("embedding_length") + _COMPUTE_PER_TOKEN * per_slot
    )
    return min(_ubatch(line), per_slot) * per_token


def kv_bytes(head: Gguf, line: LaunchLine) -> int:
    """Return the size of the KV cache of a model; bytes."""
    slots, is_shared = _slots(line)
    streams = 1 if is_shared else slots
    cells = _padded(_context(head, line) // streams)
    window = head.sliding_window
    windowed = cells
    if window and not line.has("--swa-full"):
        in_use = window * (slots if is_shared else 1) + _ubatch(line)
        windowed = min(cells, _padded(in_use))
    key_type, value_type = (
        _ELEMENT.get(line.value(f"--cache-type-{side}") or "f16", 2.0) for side in ("k", "v")
    )
    total = 0.0
    for heads, has_window in zip(_kv_heads(head), _has_window(head), strict=True):
        suffix = "_swa" if has_window and head.number("attention.key_length_swa") else ""
        keys = _width(head, f"key_length{suffix}") * key_type
        values = _width(head, f"value_length{suffix}") * value_type
        if head.number("attention.key_length_mla"):
            values = 0.0  # read from the keys
        total += heads * (keys + values) * (windowed if has_window else cells)
    return int(total) * streams


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS


def _width(head: Gguf, name: str) -> int:
    heads = head.number("attention.head_count") or max(
        (int(each) for each in head.array("attention.head_count")), default=1
    )
    return head.number(f"attention.{name}") or head.number("embedding_length") // max(heads, 1)


def _kv_heads(head: Gguf) -> list[int]:
    """Return the number of KV heads of each layer; 0 for a layer without attention."""
    layers = head.number("block_count")
    given = head.array("attention.head_count_kv") or head.array("attention.head_count")
    if given:
        heads = [int(each) for each in given][:layers]
        return heads + [heads[-1]] * (layers - len(heads))
    number = head.number("attention.head_count_kv") or head.number("attention.head_count")
    period = head.number("full_attention_interval")
    if period:
        return [number if (layer + 1) % period == 0 else 0 for layer in range(layers)]
    return [number] * layers


def _has_window(head: Gguf) -> list[bool]:
    """Return for each layer whether it has a sliding window."""
    layers = head.number("block_count")
    if not head.sliding_window:
        return [False] * layers
    given = head.array("attention.sliding_window_pattern")
    if given:
        pattern = [bool(each) for each in given][:layers]
        return pattern + [False] * (layers - len(pattern))
    period = head.number("attention.sliding_window_pattern") or _WINDOW_PERIODS.get(
        head.architecture, 0
    )
    if not period:  # an unknown pattern counts as none, which is the larger amount
        return [False] * layers
    return [(layer + 1) % period != 0 for layer in range(layers)]


# ---- engines that take a fraction of each card
def _engine(argv: Sequence[str]) -> str | None:
    for word in argv:
        name = PurePath(word).name.partition(".")[0]
        if name in _FRACTIONS:
            return name
    return None


def _fraction(engine: str, argv: Sequence[str], gpus: Mapping[str, int]) -> Estimate:
    line = LaunchLine.parse(["", *argv])
    given = line.value(_FRACTION_OPTIONS[engine])
    try:
        fraction = min(max(float(given), 0.0), 1.0) if given else _FRACTIONS[engine]
    except ValueError:
        fraction = _FRACTIONS[engine]
    cards = 1
    for names in _PARALLEL_OPTIONS:
        cards *= max((_number(line, name, 1) for name in names), default=1)
    share = fraction + _OUTSIDE
    used = list(gpus.items())[: max(cards, 1)]
    return Estimate(
        amounts={name: int(capacity * share) for name, capacity in used},
        note=f"{fraction:.0%} of each of {len(used)} GPUs + {_OUTSIDE:.0%} beside it",
    )


__all__ = ["Estimate", "GgufError", "estimate", "is_elastic", "kv_bytes", "server_line"]
