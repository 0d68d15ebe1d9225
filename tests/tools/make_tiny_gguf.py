"""A model with random weights, half a megabyte, that a real llama-server loads in milliseconds.

Run as a script: ``make_tiny_gguf.py OUT.gguf [SEED]``.

Source: the GGUF specification, version 3 (ggml/docs/gguf.md); the llama architecture's names.
"""

from __future__ import annotations

import random
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

_U32, _I32, _F32, _BOOL, _TEXT, _ARRAY = 4, 5, 6, 7, 8, 9
_ALIGNMENT = 32
_WIDTH, _HIDDEN, _LAYERS, _HEADS, _KV_HEADS, _CONTEXT = 64, 128, 2, 4, 2, 8192
_GEMMA_LAYERS = 6  # one of them without a window
_UNKNOWN, _CONTROL, _BYTE, _NORMAL = 2, 3, 6, 1
_SPACE = "\u2581"
_WORDS = (
    "the of to and in is it for on with as at by from that this one two model word time "
    "slot cache swap load start stop ready wait queue free red blue green tree river stone"
)
_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)

Tensor = tuple[str, tuple[int, ...], "array[float]"]


def write_tiny_gguf(path: Path, seed: int = 0, *, window: int = 0) -> Path:
    """Write the model to *path* and return it.

    Args:
        path: The file; overwritten.
        seed: Equal seeds give equal bytes; others give other weights of the same shape.
        window: Make it a gemma 3, where five layers of six see so many tokens back only; tokens.
            0: a llama without windows.
    """
    tokens = _vocabulary()
    values = list(_metadata(tokens, seed, window))
    tensors = list(_tensors(len(tokens), random.Random(seed), is_gemma=bool(window)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values)
    data = bytearray()
    for name, shape, numbers in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        head += struct.pack("<IQ", 0, len(data))  # 0: F32
        data += numbers.tobytes()
        data += bytes(-len(data) % _ALIGNMENT)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)
    return path


def _vocabulary() -> list[tuple[str, int]]:
    special = [("<unk>", _UNKNOWN), ("<s>", _CONTROL), ("</s>", _CONTROL)]
    single = [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    texts = [_SPACE, *map(chr, range(33, 127)), *(_SPACE + word for word in _WORDS.split())]
    return special + single + [(text, _NORMAL) for text in texts]


def _metadata(tokens: Sequence[tuple[str, int]], seed: int, window: int) -> Iterator[bytes]:
    architecture = "gemma3" if window else "llama"
    yield _pair("general.architecture", _TEXT, _text(architecture))
    yield _pair("general.name", _TEXT, _text(f"tiny-random-{seed}"))
    for name, number in [
        ("context_length", _CONTEXT),
        ("embedding_length", _WIDTH),
        ("block_count", _GEMMA_LAYERS if window else _LAYERS),
        ("feed_forward_length", _HIDDEN),
        ("attention.head_count", _HEADS),
        ("attention.head_count_kv", _KV_HEADS),
        ("rope.dimension_count", _WIDTH // _HEADS),
        ("vocab_size", len(tokens)),
    ]:
        yield _pair(f"{architecture}.{name}", _U32, struct.pack("<I", number))
    if window:
        for name, number in [
            ("sliding_window", window), ("key_length", _WIDTH // _HEADS),
            ("value_length", _WIDTH // _HEADS),
        ]:  # fmt: skip
            yield _pair(f"gemma3.attention.{name}", _U32, struct.pack("<I", number))
    epsilon = f"{architecture}.attention.layer_norm_rms_epsilon"
    yield _pair(epsilon, _F32, struct.pack("<f", 1e-5))
    yield _pair("tokenizer.ggml.model", _TEXT, _text("llama"))
    yield _pair("tokenizer.ggml.pre", _TEXT, _text("default"))
    yield _pair("tokenizer.ggml.tokens", _ARRAY, _array(_TEXT, [_text(t) for t, _ in tokens]))
    # A merge is tried in order of score: any falling order will do.
    scores = [struct.pack("<f", -float(at)) for at in range(len(tokens))]
    yield _pair("tokenizer.ggml.scores", _ARRAY, _array(_F32, scores))
    kinds = [struct.pack("<i", kind) for _, kind in tokens]
    yield _pair("tokenizer.ggml.token_type", _ARRAY, _array(_I32, kinds))
    for at, name in enumerate(("unknown", "bos", "eos")):
        yield _pair(f"tokenizer.ggml.{name}_token_id", _U32, struct.pack("<I", at))
    yield _pair("tokenizer.ggml.add_bos_token", _BOOL, b"\1")
    yield _pair("tokenizer.ggml.add_eos_token", _BOOL, b"\0")
    yield _pair("tokenizer.chat_template", _TEXT, _text(_TEMPLATE))


def _tensors(vocabulary: int, chance: random.Random, *, is_gemma: bool) -> Iterator[Tensor]:
    def drawn(name: str, *shape: int, scale: float = 0.0) -> Tensor:
        scale = scale or 0.5 / shape[-1] ** 0.5
        size = shape[0] * shape[1]
        numbers = array("f", (chance.gauss(0.0, scale) for _ in range(size)))
        return f"{name}.weight", shape, numbers

    def ones(name: str, width: int = _WIDTH) -> Tensor:
        return f"{name}.weight", (width,), array("f", [1.0] * width)

    yield drawn("token_embd", vocabulary, _WIDTH, scale=1.0)
    yield ones("output_norm")
    name, shape, numbers = drawn("output", vocabulary, _WIDTH, scale=0.3)
    for at in range(259 * _WIDTH):  # special and byte tokens are all but never chosen
        numbers[at] *= 0.01
    yield name, shape, numbers
    kv_width = _WIDTH * _KV_HEADS // _HEADS
    layers = _GEMMA_LAYERS if is_gemma else _LAYERS
    for layer in (f"blk.{number}." for number in range(layers)):
        if is_gemma:
            yield ones(f"{layer}attn_q_norm", _WIDTH // _HEADS)
            yield ones(f"{layer}attn_k_norm", _WIDTH // _HEADS)
            yield ones(f"{layer}post_attention_norm")
            yield ones(f"{layer}post_ffw_norm")
        yield ones(f"{layer}attn_norm")
        yield ones(f"{layer}ffn_norm")
        yield drawn(f"{layer}attn_q", _WIDTH, _WIDTH)
        yield drawn(f"{layer}attn_k", kv_width, _WIDTH)
        yield drawn(f"{layer}attn_v", kv_width, _WIDTH)
        yield drawn(f"{layer}attn_output", _WIDTH, _WIDTH)
        yield drawn(f"{layer}ffn_gate", _HIDDEN, _WIDTH)
        yield drawn(f"{layer}ffn_up", _HIDDEN, _WIDTH)
        yield drawn(f"{layer}ffn_down", _WIDTH, _HIDDEN)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _array(kind: int, items: Sequence[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(items)) + b"".join(items)


def _pair(key: str, kind: int, data: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + data


if __name__ == "__main__":
    write_tiny_gguf(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
